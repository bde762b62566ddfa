"""The format of an export: one JSON object a line, a header first, parents before children, an end that counts.

Words stand in the clear; what can be computed from them (digests, sizes, units of recall) is left out and made anew by
an import. `run` and `step` say where something came from in the tenant that exported it; an import leaves them out,
because a file must not be able to claim somebody's runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from agentstate.core.limits import (
    ALIAS_CHARS_MAX,
    ALIAS_KIND_CHARS_MAX,
    AUTHORS_MAX,
    EXTERNAL_ID_CHARS_MAX,
    ITEM_BYTES_MAX,
    ITEM_SOURCES_MAX,
    MESSAGE_BYTES_MAX,
    MIB,
    NAME_CHARS_MAX,
    PROGRESS_BYTES_MAX,
    REASON_CHARS_MAX,
    SUBJECT_CAP_BYTES_MAX,
    SUBJECT_CAP_BYTES_MIN,
)

FORMAT = "agentstate.subject"
VERSION = 1
INT_MAX = 2**31 - 1
MEDIA_TYPE = "application/x-ndjson"


def _bytes_max(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text.encode()) > limit:
            raise ValueError(f"at most {limit:,} bytes")
        return text

    return AfterValidator(check)


Name = Annotated[str, Field(max_length=NAME_CHARS_MAX)]
Key = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]
Reason = Annotated[str, Field(max_length=REASON_CHARS_MAX)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=INT_MAX)]
Number = Annotated[int, Field(ge=1, le=INT_MAX)]
Ids = Annotated[list[UUID], Field(max_length=1_000)]
MessageText = Annotated[str, Field(min_length=1), _bytes_max(MESSAGE_BYTES_MAX)]
ItemText = Annotated[str, Field(min_length=1), _bytes_max(ITEM_BYTES_MAX)]
SummaryText = Annotated[str, Field(min_length=1), _bytes_max(MIB)]
Document = Annotated[str, Field(min_length=1), _bytes_max(4 * PROGRESS_BYTES_MAX)]
Origin = Literal["said", "memory", "prompt"]
ItemStatus = Literal["active", "over_cap", "expired", "superseded", "forgotten"]


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Sourced(Line):
    """Where it came from, in the tenant that exported it."""

    run: UUID | None = None
    step: Count | None = None


class By(Line):
    kind: Annotated[str, Field(max_length=10)]
    id: Annotated[str, Field(max_length=64)] = ""
    name: Name = ""


class HeaderLine(Line):
    type: Literal["header"] = "header"
    format: Literal["agentstate.subject"] = "agentstate.subject"
    version: Literal[1] = 1
    tenant: UUID
    exported_at: AwareDatetime


class SubjectLine(Line):
    type: Literal["subject"] = "subject"
    id: UUID
    external_id: Annotated[str, Field(min_length=1, max_length=EXTERNAL_ID_CHARS_MAX)] | None
    name: Name
    cap_bytes: Annotated[int, Field(ge=SUBJECT_CAP_BYTES_MIN, le=SUBJECT_CAP_BYTES_MAX)] | None
    created_at: AwareDatetime
    last_active_at: AwareDatetime


class AliasLine(Line):
    type: Literal["alias"] = "alias"
    kind: Annotated[str, Field(min_length=1, max_length=ALIAS_KIND_CHARS_MAX)]
    value: Annotated[str, Field(min_length=1, max_length=ALIAS_CHARS_MAX)]
    created_at: AwareDatetime


class AuthorLine(Line):
    type: Literal["author"] = "author"
    no: Annotated[int, Field(ge=1, le=AUTHORS_MAX)]
    name: Key


class SessionLine(Line):
    type: Literal["session"] = "session"
    id: UUID
    key: Key
    agent: Name
    title: Name
    status: Literal["open", "closed", "expired"]
    version: Number
    summarised_seq: Count
    created_at: AwareDatetime
    last_active_at: AwareDatetime
    idle_s: Count | None
    expires_at: AwareDatetime | None
    ended_at: AwareDatetime | None


class MessageLine(Sourced):
    type: Literal["message"] = "message"
    id: UUID
    session: UUID
    seq: Number
    role: Literal["user", "assistant", "system", "tool"]
    author: Annotated[int, Field(ge=0, le=AUTHORS_MAX)]
    text: MessageText
    importance: Literal["decision", "commitment", "fact", "routine"]
    origin: Origin
    outcome: Annotated[str, Field(max_length=40)]
    client_id: Key | None
    sent_at: AwareDatetime
    recorded_at: AwareDatetime
    undone_in: Number | None


class SummaryLine(Sourced):
    type: Literal["summary"] = "summary"
    id: UUID
    session: UUID | None
    level: Literal["turn", "segment", "session", "subject"]
    from_seq: Count
    to_seq: Count
    session_version: Number
    text: SummaryText
    sources: Annotated[list[UUID], Field(max_length=100_000)]
    method: Annotated[str, Field(max_length=120)]
    stale: bool
    created_at: AwareDatetime


class ItemLine(Sourced):
    type: Literal["item"] = "item"
    id: UUID
    kind: Literal["semantic", "episodic", "procedural"]
    namespace: Name
    fact_kind: Annotated[str, Field(max_length=60)]
    attribute_hmac: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None  # comparable inside one tenant only
    schema_version: Number
    status: ItemStatus
    pinned: bool
    importance: Share
    version: Number
    origin: Origin
    valid_from: AwareDatetime
    valid_to: AwareDatetime | None
    known_from: AwareDatetime
    known_to: AwareDatetime | None
    expires_at: AwareDatetime | None
    superseded_by: UUID | None
    sources: Annotated[list[UUID], Field(max_length=ITEM_SOURCES_MAX)]
    created_at: AwareDatetime
    updated_at: AwareDatetime


class RevisionLine(Line):
    type: Literal["revision"] = "revision"
    item: UUID
    version: Number
    change: Annotated[str, Field(max_length=12)]
    text: ItemText
    facts: dict[str, Any] | None
    reason: Reason
    status: ItemStatus
    pinned: bool
    importance: Share
    valid_from: AwareDatetime
    valid_to: AwareDatetime | None
    schema_version: Number
    restored_from: Number | None
    merged: Ids
    by: By
    run: UUID | None = None
    created_at: AwareDatetime


class ProposalLine(Sourced):
    type: Literal["proposal"] = "proposal"
    id: UUID
    act: Literal["add", "update", "supersede", "merge", "forget"]
    status: Literal["pending", "accepted", "rejected", "withdrawn"]
    item: UUID | None
    expected_version: Number | None
    body: dict[str, Any]
    why: Reason
    method: Annotated[str, Field(min_length=1, max_length=120)]
    confidence: Share
    sources: Annotated[list[UUID], Field(max_length=ITEM_SOURCES_MAX)]
    decided_by: Name
    created_at: AwareDatetime
    decided_at: AwareDatetime | None


class ProgressLine(Line):
    type: Literal["progress"] = "progress"
    id: UUID
    key: Key
    agent: Name
    version: Number
    created_at: AwareDatetime
    updated_at: AwareDatetime


class ProgressVersionLine(Sourced):
    type: Literal["progress_version"] = "progress_version"
    progress: UUID
    version: Number
    body: Document
    reason: Reason
    by: By
    created_at: AwareDatetime


class QuestionLine(Sourced):
    type: Literal["question"] = "question"
    id: UUID
    agent: Name
    text: MessageText
    at: AwareDatetime


class InjectionLine(Sourced):
    type: Literal["injection"] = "injection"
    id: UUID
    call: UUID
    session: UUID | None
    part: Literal["pinned", "summary", "recalled", "tail", "prompt", "progress"]
    source: Literal["message", "item", "summary", "prompt", "progress"]
    source_id: UUID
    version: Number
    position: Annotated[int, Field(ge=1, le=32_767)]
    score: Annotated[float, Field(allow_inf_nan=False)] | None
    scores: dict[Annotated[str, Field(max_length=40)], Annotated[float, Field(allow_inf_nan=False)]]
    tokens: Count
    masked: bool
    at: AwareDatetime


class EndLine(Line):
    """The last line: how many of each came before it, and SHA-256 over all of them with their line ends."""

    type: Literal["end"] = "end"
    counts: dict[str, Count]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


LINES: tuple[type[Line], ...] = (
    HeaderLine,
    SubjectLine,
    AliasLine,
    AuthorLine,
    SessionLine,
    MessageLine,
    SummaryLine,
    ItemLine,
    RevisionLine,
    ProposalLine,
    ProgressLine,
    ProgressVersionLine,
    QuestionLine,
    InjectionLine,
    EndLine,
)
BY_TYPE: Mapping[str, type[Line]] = {line.model_fields["type"].default: line for line in LINES}
