"""Subjects as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from agentstate.core.limits import ALIASES_MAX, EXTERNAL_ID_CHARS_MAX, NAME_CHARS_MAX
from agentstate.http.schemas import Out, Strict, one_of
from memory.schemas.parts import BecauseIn, CursorQuery
from memory.states import SubjectStatus


class AliasIn(Strict):
    kind: str = Field(description="What kind of name it is.", examples=["email"])
    value: str = Field(description="Found again without regard to case and spaces.", examples=["ada@example.com"])


class SubjectIn(Strict):
    """The subject with this id or one of these aliases; made when there is none."""

    external_id: str = Field("", max_length=EXTERNAL_ID_CHARS_MAX, description="Your own id.", examples=["user:4411"])
    aliases: list[AliasIn] = Field([], max_length=ALIASES_MAX)
    name: str = Field("", max_length=NAME_CHARS_MAX, description="Shown to people; sealed with the subject's key.")


class SubjectPatch(BecauseIn):
    """Fields left out stay as they are."""

    name: str | None = Field(None, max_length=NAME_CHARS_MAX, description="Empty: show the external id.")
    cap_bytes: int | None = Field(None, description="Bytes of all its items; null: the tenant's setting.")


class SubjectQuery(CursorQuery):
    named: str = Field(
        "", max_length=1000, description="Public id, external id or alias, exactly; `email:ada@…` names one kind."
    )


class AliasOut(Out):
    alias_id: str
    kind: str
    value: str


class SubjectOut(Out):
    subject_id: str
    external_id: str
    name: str
    status: str = one_of(SubjectStatus)
    items: int = Field(description="Active ones.")
    item_bytes: int = Field(description="Bytes of its active items; at most cap_bytes.")
    pinned_bytes: int
    cap_bytes: int
    own_cap_bytes: int | None = Field(description="Null: the tenant's setting holds.")
    sessions: int
    messages: int
    version: int = Field(description="Of its names and its cap; send it as If-Match with a change. Also the ETag.")
    created_at: datetime
    last_active_at: datetime


class EvictedOut(Out):
    """An item that left recall because of the cap."""

    item_id: str
    bytes: int


class SubjectFullOut(SubjectOut):
    aliases: list[AliasOut]
    evicted: list[EvictedOut] = Field([], description="PATCH: what left recall because of a smaller cap.")


class SubjectPageOut(Out):
    subjects: list[SubjectOut]
    next: str = Field(description="Cursor of the next page; empty on the last.")
