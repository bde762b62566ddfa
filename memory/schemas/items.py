"""Items and their revisions as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.http.schemas import Out, one_of
from memory.schemas.parts import SUBJECT, BecauseIn, Kind, SizedQuery
from memory.schemas.subjects import EvictedOut
from memory.states import ItemStatus

State = Literal["", "pinned", "any", "over_cap", "expired", "superseded", "forgotten"]


class ItemIn(BecauseIn):
    """One statement. Nearly the same as a known one becomes a revision of that one."""

    subject: str = Field(min_length=1, description=SUBJECT, examples=["user:4411"])
    text: str = Field(description="At most 2 KiB.", examples=["Wants mail in German."])
    kind: Kind = "semantic"
    namespace: str = Field("", max_length=NAME_CHARS_MAX, examples=["preferences/contact"])
    attribute: str = Field("", max_length=NAME_CHARS_MAX, description="What it is about; two of one contradict.")
    fact_kind: str = Field("", max_length=60, description="The shape of `facts`.", examples=["preference"])
    facts: dict[str, Any] | None = Field(None, examples=[{"about": "language", "value": "German"}])
    importance: float = Field(0.5, ge=0, le=1)
    pinned: bool = Field(False, description="In every context, and never expired or evicted.")
    valid_from: datetime | None = Field(None, strict=False, description="True in the world since; left out: now.")
    valid_to: datetime | None = Field(None, strict=False)
    expires_at: datetime | None = Field(None, strict=False, description="Left out: the tenant's number of days.")


class ItemPatch(BecauseIn):
    """Fields left out stay as they are; a null empties `facts` and `valid_to`, and renews `expires_at`."""

    text: str | None = None
    facts: dict[str, Any] | None = None
    importance: float | None = Field(None, ge=0, le=1)
    valid_from: datetime | None = Field(None, strict=False)
    valid_to: datetime | None = Field(None, strict=False)
    expires_at: datetime | None = Field(None, strict=False)


class RestoreIn(BecauseIn):
    version: int = Field(ge=1, description="The revision whose words it gets back, as a new one.")


class ItemQuery(SizedQuery):
    subject: str = Field("", max_length=NAME_CHARS_MAX, description=SUBJECT + " Left out: all subjects, newest first.")
    kind: Literal["", "semantic", "episodic", "procedural"] = ""
    namespace: str = Field("", max_length=NAME_CHARS_MAX)
    state: State = Field("", description="Left out: active ones.")


class ItemOut(Out):
    item_id: str
    subject_id: str
    text: str
    facts: Any = None
    kind: str
    namespace: str
    fact_kind: str
    status: str = one_of(ItemStatus)
    pinned: bool
    importance: float
    version: int = Field(description="Send it as If-Match with a change; also the ETag.")
    bytes: int = Field(description="Of its text and facts: what it takes of the cap.")
    tokens: int
    origin: str = one_of(("said", "memory", "prompt"))
    valid_from: datetime
    valid_to: datetime | None
    expires_at: datetime | None = Field(description="Null while pinned.")
    superseded_by: str | None
    run_id: str | None = Field(description="The run it was learned in.")
    step_seq: int | None
    message_ids: list[str] = Field(description="The messages it was learned from.")
    created_at: datetime
    updated_at: datetime


class RevisionOut(Out):
    version: int
    change: str
    text: str
    facts: Any = None
    reason: str
    status: str = one_of(ItemStatus)
    pinned: bool
    importance: float
    restored_from: int | None
    actor_kind: str = one_of(("user", "key", "worker", "system"))
    actor_name: str
    run_id: str | None
    created_at: datetime


class UsesOut(Out):
    """Where it was put before a model."""

    runs: int = Field(description="Distinct runs.")
    run_ids: list[str] = Field(description="The newest of them, at most 200.")
    last_at: datetime | None


class ItemFullOut(ItemOut):
    revisions: list[RevisionOut] = Field(description="The newest first, at most 100.")
    uses: UsesOut


class ItemPageOut(Out):
    items: list[ItemOut]
    next: str = Field(description="Cursor of the next page; empty on the last.")


class AsOfQuery(SizedQuery):
    as_of: AwareDatetime = Field(description="What was true then. ISO 8601 with a zone.")
    known: Literal["then", "now"] = Field("then", description="By what was known at that moment, or is known today.")
    kind: Literal["", "semantic", "episodic", "procedural"] = ""
    namespace: str = Field("", max_length=NAME_CHARS_MAX)
    state: Literal["", "pinned"] = Field("", description="As they stood.")


class KnownOut(Out):
    """An item as it stood."""

    item_id: str
    version: int = Field(description="The one that was known; GET the item for its revisions.")
    kind: str
    namespace: str
    text: str
    facts: Any = None
    pinned: bool
    importance: float
    valid_from: datetime
    valid_to: datetime | None
    known_since: datetime = Field(description="When it came to be known in these words.")
    version_now: int
    status_now: str = one_of(ItemStatus)


class KnownPageOut(Out):
    items: list[KnownOut] = Field(description="Pinned ones first, then what was learned last.")
    next: str = Field(description="Cursor of the next page; empty on the last.")


class KeptOut(Out):
    """What became of a statement."""

    change: str = one_of(("created", "merged", "duplicate", "refused"))
    item: ItemOut | None = Field(description="Null when it was refused.")
    refused: str = Field(description="Which sentences were not stored, and why: text of ours that came back.")
    evicted: list[EvictedOut]
    contradicts: list[str] = Field(description="Ids of items that say otherwise.")
