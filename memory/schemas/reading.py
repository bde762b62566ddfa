"""Recall, the preview of a context, and the injection ledger as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from agentstate.core.limits import CONTEXT_TOKENS_MAX, CONTEXT_TOKENS_MIN, NAME_CHARS_MAX, SUBJECT_RECALL_MAX
from agentstate.http.schemas import Out, Strict
from memory.schemas.items import UsesOut
from memory.schemas.parts import SUBJECT, CursorQuery, UnitKind


class RecallIn(Strict):
    """Asks and changes nothing; nothing is recorded."""

    subject: str = Field(min_length=1, description=SUBJECT)
    question: str = Field(min_length=1, description="Its first 4,000 characters are asked.")
    k: int = Field(10, ge=1, le=SUBJECT_RECALL_MAX, description="Messages and items to recall.")
    kinds: list[UnitKind] = Field(["message", "item"], min_length=1, max_length=2)
    session: str = Field("", description="Public id: only this session.")
    authors: list[str] = Field([], max_length=20)
    after: datetime | None = Field(None, strict=False)
    before: datetime | None = Field(None, strict=False)
    at: datetime | None = Field(None, strict=False, description="Only what was known at this time, and held true then.")
    namespace: str = Field("", max_length=NAME_CHARS_MAX, description="Items of it and of those below it.")
    explain: bool = Field(False, description="Also the matched words and the figures before they were scaled.")


class HitOut(Out):
    id: str
    kind: str
    text: str
    version: int
    score: float
    scores: dict[str, float] = Field(description="Parts that add up to the score.")
    session_id: str | None
    author: str
    at: datetime
    matched: list[str] = Field([], description="explain: words of the question that it holds.")
    raw: dict[str, float] = Field({}, description="explain: figures before they were scaled.")


class RecallOut(Out):
    hits: list[HitOut]
    rung: str = Field(description="bits, sentence or words: how it was searched.")
    degraded_because: str = Field(description="Why not better; empty when all is well.")
    units: int = Field(description="How many were compared.")
    took_ms: dict[str, float]


class ContextIn(Strict):
    """What a call of this agent would be given; nothing is recorded."""

    session: str = Field(min_length=1, description="Public id, or the session's key.")
    question: str = ""
    agent: str = Field("", max_length=NAME_CHARS_MAX, description="Whose policy and prompt; left out: the session's.")
    budget_tokens: int | None = Field(None, ge=CONTEXT_TOKENS_MIN, le=CONTEXT_TOKENS_MAX)
    strategy: Literal["window", "summary", "hierarchical", "importance"] | None = None


class BlockOut(Out):
    part: str
    source: str
    source_id: str
    version: int
    text: str
    tokens: int
    score: float | None
    scores: dict[str, float]
    masked: bool


class LeftOutOut(Out):
    """One source, or `count` messages or summaries from `from_seq` to `to_seq`."""

    part: str
    source_id: str | None
    tokens: int
    why: str
    count: int
    from_seq: int
    to_seq: int


class ContextOut(Out):
    text: str
    blocks: list[BlockOut]
    budget_tokens: int
    used_tokens: int = Field(description="At most budget_tokens; headings and labels count.")
    strategy: str
    left_out: list[LeftOutOut]


class InjectedQuery(CursorQuery):
    run_id: str = Field(min_length=1)
    step_seq: int = Field(ge=1, le=2**31 - 1)


class LineOut(Out):
    """One text that a call was given. `gone` says why its words cannot be shown."""

    position: int
    part: str
    source: str
    source_id: str
    version: int
    text: str
    gone: str
    tokens: int
    score: float | None
    scores: dict[str, float]
    masked: bool


class InjectedOut(Out):
    lines: list[LineOut]


class CallOut(Out):
    call_id: str
    run_id: str | None
    step_seq: int | None
    at: datetime
    lines: list[LineOut]


class CallPageOut(Out):
    calls: list[CallOut]
    next: str = Field(description="Send it as `cursor` for older calls; empty when there are none.")


class SourceUsesOut(UsesOut):
    source_id: str
