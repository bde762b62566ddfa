"""Progress documents and prompts as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.http.schemas import Out
from memory.schemas.parts import BecauseIn, SizedQuery

KEY = "The key of a session, or the name of a task."


class ProgressQuery(SizedQuery):
    key: str = Field("", max_length=NAME_CHARS_MAX, description=KEY + " Left out: the list, newest first.")


class ProgressIn(BecauseIn):
    """Give `body` or `sections`."""

    key: str = Field(min_length=1, max_length=NAME_CHARS_MAX, description=KEY)
    body: str = Field(
        "", description="Markdown with the headings Goal, Done, Blocked by, Next, Context, Do not repeat."
    )
    sections: dict[str, str] = Field({}, description="By name: goal, done, blocked_by, next, context, do_not_repeat.")
    agent: str = Field("", max_length=NAME_CHARS_MAX)


class ProgressOut(Out):
    progress_id: str
    key: str
    agent: str
    subject_id: str | None
    version: int = Field(description="Send it as If-Match with a change, 0 for a new one; also the ETag.")
    body: str
    sections: dict[str, str]
    reason: str
    tokens: int
    actor_name: str
    run_id: str | None
    step_seq: int | None
    created_at: datetime
    folded: int = Field(0, description="PUT: oldest lines of Done that were folded to keep it within 16 KiB.")


class ProgressPageOut(Out):
    documents: list[ProgressOut]
    next: str = Field(description="Cursor of the next page; empty on the last.")


class PromptQuery(SizedQuery):
    agent: str = Field("", max_length=NAME_CHARS_MAX, description="Left out: what is in force, of all agents.")
    name: str = Field("", max_length=100)


class PromptIn(BecauseIn):
    agent: str = Field(min_length=1, max_length=NAME_CHARS_MAX)
    name: str = Field("main", min_length=1, max_length=100)
    text: str = Field(description="At most 32 KiB. In force at once.")


class PromptOut(Out):
    prompt_id: str
    agent: str
    name: str
    version: int = Field(description="Send it as If-Match with a change, 0 for a new one; also the ETag.")
    text: str
    reason: str
    tokens: int
    actor_name: str
    created_at: datetime


class PromptListOut(Out):
    prompts: list[PromptOut]
