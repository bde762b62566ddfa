"""Proposals as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.http.schemas import Out, one_of
from memory.schemas.parts import SUBJECT, CursorQuery
from memory.states import ProposalStatus


class ProposalQuery(CursorQuery):
    subject: str = Field("", max_length=NAME_CHARS_MAX, description=SUBJECT)
    decided: bool = Field(False, description="Those that are decided instead of the pending ones.")


class ProposalOut(Out):
    proposal_id: str
    subject_id: str
    act: str = one_of(("add", "update", "supersede", "merge", "forget"))
    status: str = one_of(ProposalStatus)
    item_id: str | None
    expected_version: int | None = Field(description="Of the item, when it was proposed.")
    text: str
    body: dict[str, Any] = Field(description="The new content, in the form of an item.")
    before: str = Field(description="What stands there now.")
    is_stale: bool = Field(description="The item has changed since: accepting withdraws it.")
    why: str
    method: str
    confidence: float
    run_id: str | None
    step_seq: int | None
    message_ids: list[str]
    decided_by: str
    created_at: datetime
    decided_at: datetime | None


class ProposalPageOut(Out):
    proposals: list[ProposalOut]
    next: str = Field(description="Cursor of the next page; empty on the last.")


class DecidedOut(Out):
    proposal: ProposalOut
    item_id: str | None
    why: str = Field(description="withdrawn: what had changed.")
