"""Sessions and their messages."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from agentstate.core.errors import Invalid
from agentstate.core.ids import parse_id, public_id
from agentstate.http import requests
from agentstate.http.schemas import Problem
from agentstate.http.waiting import offloaded
from agentstate.tenants.actors import Actor
from memory.api import acting
from memory.api.acting import named
from memory.schemas.parts import BecauseIn
from memory.schemas.sessions import (
    AppendedOut,
    AppendIn,
    AppendOut,
    AtRiskOut,
    MessageOut,
    MessagePageOut,
    MessageQuery,
    SessionIn,
    SessionOut,
    SessionPageOut,
    SessionQuery,
    UndoMessagesIn,
    UndoneOut,
)
from memory.selectors import messages as message_reads
from memory.selectors import sessions as session_reads
from memory.selectors.messages import OpenedMessage
from memory.selectors.sessions import SessionRow
from memory.services import messages, sessions
from memory.sources import Source

router = Router()
REFUSALS = {(404, 409, 413, 422): Problem}
RANGE_MAX = 1_000  # messages between two numbers


@router.post(
    "/memory/sessions", response={200: SessionOut, **REFUSALS}, operation_id="open_session", openapi_extra=acting.KEYED
)
@offloaded
def open_session(request: HttpRequest, response: HttpResponse, wanted: SessionIn) -> SessionOut:
    """Open it, or find it by its key. 409: the key is another subject's."""
    actor = acting.writer(request)

    def act() -> str:
        subject_id = acting.subject_of(wanted.subject)
        found = sessions.open(wanted.key, subject_id=subject_id, agent=wanted.agent, title=wanted.title, actor=actor)
        return public_id("session", found.id)

    return _one(actor, response, acting.once(request, actor, wanted, act))


@router.get("/memory/sessions", response={200: SessionPageOut, (404, 422): Problem}, operation_id="list_sessions")
@offloaded
def list_sessions(request: HttpRequest, wanted: Query[SessionQuery]) -> SessionPageOut:
    """The latest active first."""
    actor = acting.reader(request)
    acting.only(request, wanted)
    if wanted.subject and (wanted.agent or wanted.status or wanted.since or wanted.until):
        raise Invalid("The sessions of one subject are listed without other filters.", field="subject")

    def read() -> SessionPageOut:
        if wanted.subject:
            subject_id = acting.subject_of(wanted.subject)
            page = session_reads.of_subject(subject_id, after=wanted.cursor, rows_max=wanted.limit)
        else:
            page = session_reads.latest(
                agent=wanted.agent,
                status=wanted.status,
                since=wanted.since,
                until=wanted.until,
                after=wanted.cursor,
                rows_max=wanted.limit,
            )
        return SessionPageOut(sessions=[_shown(row) for row in page.rows], next=page.after)

    return acting.read(actor, read)


@router.get("/memory/sessions/{session_id}", response={200: SessionOut, 404: Problem}, operation_id="get_session")
@offloaded
def get(request: HttpRequest, response: HttpResponse, session_id: str) -> SessionOut:
    """One session. The ETag is its version."""
    return _one(acting.reader(request), response, session_id)


@router.post(
    "/memory/sessions/{session_id}/close",
    response={200: SessionOut, **REFUSALS},
    operation_id="close_session",
    openapi_extra=acting.KEYED,
)
@offloaded
def close(request: HttpRequest, response: HttpResponse, session_id: str, wanted: BecauseIn) -> SessionOut:
    """End it; what waited in its buffer is recorded first. Harmless when it has ended."""
    actor = acting.writer(request)

    def act() -> None:
        sessions.close(parse_id("session", session_id), actor=actor, reason=wanted.reason)

    acting.once(request, actor, wanted, act)
    return _one(actor, response, session_id)


@router.post(
    "/memory/sessions/{session_id}/undo",
    response={200: UndoneOut, **REFUSALS},
    operation_id="undo_messages",
    openapi_extra=acting.BOTH,
)
@offloaded
def undo(request: HttpRequest, response: HttpResponse, session_id: str, wanted: UndoMessagesIn) -> UndoneOut:
    """Take back the last messages: they leave recall and stay readable, marked with the session's new version."""
    actor = acting.writer(request)
    version = requests.expected_version(request)

    def act() -> dict[str, Any]:
        undone = messages.undo(
            parse_id("session", session_id),
            last_n=wanted.last_n,
            expected_version=version,
            reason=wanted.reason,
            actor=actor,
        )
        ids = [public_id("message", each) for each in undone.message_ids]
        return {"session_id": session_id, "version": undone.session.version, "message_ids": ids}

    found = UndoneOut(**acting.once(request, actor, wanted, act))
    acting.versioned(response, found.version)
    return found


@router.post(
    "/memory/sessions/{session_id}/messages",
    response={200: AppendOut, **REFUSALS},
    operation_id="append_messages",
    openapi_extra=acting.KEYED,
)
@offloaded
def append(request: HttpRequest, session_id: str, wanted: AppendIn) -> AppendOut:
    """Append messages in their order. One with a `client_id` that is known already is kept once."""
    actor = acting.writer(request)

    def act() -> dict[str, Any]:
        new = [messages.NewMessage(**each.model_dump()) for each in wanted.messages]
        appended = messages.append(
            parse_id("session", session_id),
            new,
            persistence=wanted.persistence or None,
            source=Source(key=requests.idempotency_key(request) or None),
            actor=actor,
        )
        risk = appended.at_risk
        return {
            "messages": [{"message_id": public_id("message", id), "seq": seq} for id, seq in appended.messages],
            "durable": appended.durable,
            "at_risk": {"messages": risk.messages, "seconds": risk.seconds} if risk else None,
        }

    found = acting.once(request, actor, wanted, act)
    return AppendOut(
        messages=[AppendedOut(**each) for each in found["messages"]],
        durable=found["durable"],
        at_risk=AtRiskOut(**found["at_risk"]) if found["at_risk"] else None,
    )


@router.get(
    "/memory/sessions/{session_id}/messages",
    response={200: MessagePageOut, (404, 422): Problem},
    operation_id="list_messages",
)
@offloaded
def list_messages(request: HttpRequest, session_id: str, wanted: Query[MessageQuery]) -> MessagePageOut:
    """Word for word: a page from either end, or a range of numbers."""
    actor = acting.reader(request)
    acting.only(request, wanted)
    in_range = bool(wanted.from_seq or wanted.to_seq)
    if in_range and not 0 <= wanted.to_seq - wanted.from_seq < RANGE_MAX:
        raise Invalid(f"A range goes up, over at most {RANGE_MAX:,} messages.", field="to_seq")

    def read() -> MessagePageOut:
        found = session_reads.find(session_id)
        if in_range:
            rows = message_reads.between(found.id, wanted.from_seq, wanted.to_seq, with_undone=wanted.with_undone)
            return MessagePageOut(messages=[message(row) for row in rows], next="")
        page = message_reads.page(
            found.id,
            after=wanted.cursor,
            newest_first=wanted.order == "newest",
            with_undone=wanted.with_undone,
            rows_max=wanted.limit,
        )
        return MessagePageOut(messages=[message(row) for row in page.rows], next=page.after)

    return acting.read(actor, read)


def message(row: OpenedMessage) -> MessageOut:
    plain = {name: getattr(row, name) for name in MessageOut.model_fields.keys() - _OWN}
    return MessageOut(
        message_id=row.public_id,
        session_id=public_id("session", row.session_id),
        run_id=named("run", row.run_id),
        **plain,
    )


_OWN = {"message_id", "session_id", "run_id"}


def _one(actor: Actor, response: HttpResponse, session_id: str) -> SessionOut:
    found = acting.read(actor, lambda: _shown(session_reads.find(session_id)))
    acting.versioned(response, found.version)
    return found


def _shown(row: SessionRow) -> SessionOut:
    own = {"session_id", "subject_id", "messages"}
    return SessionOut(
        session_id=row.public_id,
        subject_id=public_id("subject", row.subject_id),
        messages=row.message_count,
        **{name: getattr(row, name) for name in SessionOut.model_fields.keys() - own},
    )
