"""Sessions and messages as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from agentstate.core.limits import MESSAGES_APPENDED_MAX, NAME_CHARS_MAX, UNDO_MESSAGES_MAX
from agentstate.http.schemas import Out, Strict, one_of
from memory.schemas.parts import SUBJECT, BecauseIn, SizedQuery
from memory.states import SessionStatus

Role = Literal["user", "assistant", "system", "tool"]
Importance = Literal["decision", "commitment", "fact", "routine"]
Origin = Literal["said", "memory", "prompt"]


class SessionIn(Strict):
    """The session of this key, made when there is none; one that ended opens again if the agent's policy allows."""

    key: str = Field(min_length=1, max_length=NAME_CHARS_MAX, description="The `session` of its runs.")
    subject: str = Field(min_length=1, description=SUBJECT)
    agent: str = Field("", max_length=NAME_CHARS_MAX, description="Whose policy holds for it.")
    title: str = Field("", max_length=NAME_CHARS_MAX)


class SessionQuery(SizedQuery):
    subject: str = Field("", max_length=NAME_CHARS_MAX, description=SUBJECT)
    agent: str = Field("", max_length=NAME_CHARS_MAX)
    status: Literal["", "open", "closed", "expired"] = ""
    since: datetime | None = Field(None, alias="from", description="Active at or after this time.")
    until: datetime | None = Field(None, alias="to", description="Active before this time.")


class SessionOut(Out):
    session_id: str
    subject_id: str
    key: str
    agent: str
    title: str
    status: str = one_of(SessionStatus)
    version: int = Field(description="Grows with every undo; send it as If-Match with one. Also the ETag.")
    last_seq: int = Field(description="Number of the last message.")
    turns: int = Field(description="Messages of role user that stand.")
    messages: int = Field(description="That stand.")
    tokens: int = Field(description="Of those.")
    created_at: datetime
    last_active_at: datetime
    due_at: datetime | None = Field(description="When it expires, unless something is said before.")
    ended_at: datetime | None


class SessionPageOut(Out):
    sessions: list[SessionOut]
    next: str = Field(description="Cursor of the next page; empty on the last.")


class UndoMessagesIn(BecauseIn):
    last_n: int = Field(ge=1, le=UNDO_MESSAGES_MAX, description="Messages to take back, from the end.")


class UndoneOut(Out):
    session_id: str
    version: int
    message_ids: list[str]


class MessageIn(Strict):
    role: Role
    text: str = Field(description="At most 256 KiB.")
    author: str = Field("", max_length=NAME_CHARS_MAX)
    importance: Importance = "routine"
    outcome: str = Field("", max_length=40, description="What became of it.", examples=["answered"])
    sent_at: datetime | None = Field(None, strict=False, description="Left out: now.")
    client_id: str | None = Field(
        None, min_length=1, max_length=NAME_CHARS_MAX, description="Your own id of it: sent twice, kept once."
    )
    origin: Origin = Field("said", description="memory, prompt: our own text come back; nothing is learned from it.")


class AppendIn(Strict):
    messages: list[MessageIn] = Field(min_length=1, max_length=MESSAGES_APPENDED_MAX)
    persistence: Literal["", "sync", "batched", "periodic"] = Field(
        "sync", description="Empty: as the agent's policy says. What is batched may be lost with Redis; see `at_risk`."
    )


class AppendedOut(Out):
    message_id: str
    seq: int | None = Field(description="Null while it waits in the buffer.")


class AtRiskOut(Out):
    """What a loss of Redis takes at most."""

    messages: int
    seconds: float


class AppendOut(Out):
    messages: list[AppendedOut] = Field(description="In the order they were sent.")
    durable: bool
    at_risk: AtRiskOut | None = None


class MessageQuery(SizedQuery):
    order: Literal["newest", "oldest"] = "newest"
    with_undone: bool = Field(False, description="Also those that were taken back.")
    from_seq: int = Field(0, ge=0, description="With `to_seq`: this range instead of a page, at most 1,000 messages.")
    to_seq: int = Field(0, ge=0)


class TimeQuery(SizedQuery):
    since: datetime | None = Field(None, alias="from", description="Sent at or after this time.")
    until: datetime | None = Field(None, alias="to", description="Sent before this time.")
    with_undone: bool = False


class MessageOut(Out):
    message_id: str
    session_id: str
    seq: int
    role: str
    author: str
    text: str
    tokens: int
    importance: str
    origin: str
    outcome: str
    client_id: str | None
    run_id: str | None
    step_seq: int | None
    sent_at: datetime
    undone_in: int | None = Field(description="The session's version that took it back; null while it stands.")


class MessagePageOut(Out):
    messages: list[MessageOut]
    next: str = Field(description="Cursor of the next page; empty on the last.")
