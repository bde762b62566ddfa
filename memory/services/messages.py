"""Messages of a session: appended at once or through its buffer, flushed, taken back.

A message is kept once, however often it is sent. The order of a session is that of acceptance: whatever waits in the
buffer is recorded before anything else of the session is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Literal
from uuid import UUID

import structlog
from django.db import connection, transaction

from agentstate.audit import trail
from agentstate.core import clock
from agentstate.core.errors import Conflict, Corrupt, DomainError, Invalid, NotFound
from agentstate.core.failpoints import hit, register
from agentstate.core.ids import new_id, public_id
from agentstate.core.limits import (
    BUFFER_MESSAGES_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGES_APPENDED_MAX,
    NAME_CHARS_MAX,
    UNDO_MESSAGES_MAX,
)
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant, tenant_scope
from memory import keys, policies, texts
from memory.models import Message, Session
from memory.models.session import IMPORTANCE, ORIGINS, ROLES
from memory.services import buffering, drafts, recording, rights, undoing
from memory.services.recording import Entry
from memory.sources import Source

log = structlog.get_logger(__name__)
register("memory.append.buffered", "messages wait in Redis / the flush that their number asks for")
register("memory.flush.committed", "messages stand in Postgres / they leave the buffer")

Persistence = Literal["sync", "batched", "periodic"]
OUTCOME_CHARS_MAX = 40
CLOCK_SKEW = timedelta(days=1)  # a sender's clock may be ahead by so much
POSTPONE_S = 30.0  # a buffer that cannot be flushed lets others pass for so long


@dataclass(frozen=True, slots=True)
class NewMessage:
    """`client_id`: the sender's own id of it. `origin`: memory or prompt for text that is our own come back."""

    role: str
    text: str
    author: str = ""
    importance: str = "routine"
    outcome: str = ""
    sent_at: datetime | None = None
    client_id: str | None = None
    origin: str = "said"


@dataclass(frozen=True, slots=True)
class AtRisk:
    """What a loss of Redis takes at most. A worker that is killed takes nothing: the buffer is replayed."""

    messages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Appended:
    """Id and number of each message; the number is None while it waits in the buffer."""

    messages: list[tuple[UUID, int | None]]
    durable: bool
    at_risk: AtRisk | None = None


def append(
    session_id: UUID,
    new: Sequence[NewMessage],
    *,
    persistence: Persistence | None = "sync",
    source: Source = Source(),  # noqa: B008 - frozen
    actor: Actor,
) -> Appended:
    """Keep these messages, in this order. `persistence` None: as the agent's policy says.

    sync is durable when the caller's transaction commits. batched and periodic are accepted into the session's buffer
    at once, outside that transaction, and recorded by its number or age; without Redis, or with a full buffer, they
    are recorded at once. Idempotent by client_id, or by the source's key and the message's place.

    Raises: Forbidden, NotFound, Invalid naming the field, TooLarge, Conflict when the session has ended or a client id
    came with another text. Locks: session, subject. The cost does not depend on the session's length.
    """
    rights.require_writing(actor)
    entries = _checked(new, drafts.checked_source(source))
    if persistence != "sync":
        _check_persistence(persistence)
        accepted = _buffered(session_id, entries, persistence)
        if accepted is not None:
            return accepted
    return _recorded(session_id, entries)


def flush(session_id: UUID) -> int:
    """Record what waits in the session's buffer; how many messages. Asserts a transaction.

    They leave the buffer after the commit, by name: killed in between, the next flush finds them recorded. A session
    that has ended takes what was accepted before. Raises: NotFound, Conflict. Locks: session, subject, if any waits.
    """
    if not buffering.waits(session_id):
        return 0
    session = recording.locked(session_id)
    return flush_held(session, keys.existing(session.subject_id))


def flush_held(session: Session, key: bytes) -> int:
    """As flush(), for a session that the caller holds."""
    waiting = buffering.read(session.id, key)
    if not waiting.names:
        return 0
    recording.record(session, waiting.entries, key=key, replayed=True)
    tenant_id, session_id = current_tenant(), session.id

    def leave() -> None:
        hit("memory.flush.committed")
        buffering.remove(tenant_id, session_id, waiting.names)

    transaction.on_commit(leave, robust=True)
    return len(waiting.entries)


def flush_due(tenant_ids: Sequence[UUID], *, until_s: float | None = None, limit: int = 500) -> int:
    """Flush the buffers of these tenants whose time has come; how many messages. Each in a transaction of its own.

    One of each tenant in turn, until the monotonic moment.
    """
    found = buffering.due(tenant_ids, limit=limit)
    flushed = 0
    for round_ in zip_longest(*([(tenant_id, id) for id in ids] for tenant_id, ids in found.items())):
        for due in round_:
            if until_s is not None and time.monotonic() >= until_s:
                return flushed
            flushed += _flushed(*due) if due is not None else 0
    return flushed


def undo(session_id: UUID, *, last_n: int, expected_version: int, reason: str, actor: Actor) -> undoing.Undone:
    """Take back the last n messages that stand: they stay readable, marked with the session's new version.

    They leave recall, summaries over them become stale, and what was learned from them is proposed to be forgotten.
    Raises: Forbidden, NotFound, Invalid, Conflict with the current version. Locks: session, subject.
    """
    rights.require_writing(actor)
    reason = drafts.checked_reason(reason, actor)
    if not 1 <= last_n <= UNDO_MESSAGES_MAX:
        raise Invalid(f"1 to {UNDO_MESSAGES_MAX:,} messages are taken back at once.", field="/last_n")
    session = recording.locked(session_id)
    flush_held(session, keys.in_use(session.subject_id))
    if session.version != expected_version:
        raise Conflict(
            f"{public_id('session', session.id)} is at version {session.version} by now, not {expected_version}: look "
            "at it again before you take messages back.",
            version=session.version,
            expected=expected_version,
        )
    undone = undoing.undo(session, last_n=last_n, actor=actor)
    trail.record(
        session,
        action="undone",
        actor=actor,
        reason=reason,
        detail={"messages": last_n, "from_seq": undone.from_seq, "version": session.version},
    )
    return undone


def _recorded(session_id: UUID, entries: Sequence[Entry]) -> Appended:
    assert connection.in_atomic_block, "a message, its place and its unit are one transaction"
    session = recording.locked(session_id)
    _check_open(session)
    key = keys.in_use(session.subject_id)
    flush_held(session, key)
    return Appended([*recording.record(session, entries, key=key)], durable=True)


def _buffered(session_id: UUID, entries: Sequence[Entry], persistence: str | None) -> Appended | None:
    """None: they must be recorded at once."""
    session = Session.objects.filter(id=session_id).first()
    if session is None:
        raise NotFound("There is no such session.")
    _check_open(session)
    policy = policies.for_agent(session.agent)
    persistence = persistence or policy.persistence
    if persistence == "sync" or _any_known(session, entries):
        return None
    key = keys.in_use(session.subject_id)
    try:
        pushed = buffering.push(session_id, entries, key, age_s=policy.batch_s)
    except buffering.BufferUnavailable:
        return None
    hit("memory.append.buffered")
    if persistence == "batched" and pushed.waiting >= policy.batch_n:
        return _flushed_now(session_id, pushed.ids)
    most = policy.batch_n if persistence == "batched" else BUFFER_MESSAGES_MAX
    return Appended([(id, None) for id in pushed.ids], durable=False, at_risk=AtRisk(most, policy.batch_s))


def _flushed_now(session_id: UUID, ids: Sequence[UUID]) -> Appended:
    flush(session_id)
    seqs = dict(Message.objects.filter(id__in=ids).values_list("id", "seq"))
    return Appended([(id, seqs.get(id)) for id in ids], durable=all(id in seqs for id in ids))


def _any_known(session: Session, entries: Sequence[Entry]) -> bool:
    """Whether one of them stands in Postgres already: then its text is compared there."""
    client_ids = [entry.client_id for entry in entries if entry.client_id is not None]
    return bool(client_ids) and Message.objects.filter(session=session, client_id__in=client_ids).exists()


def _flushed(tenant_id: UUID, session_id: UUID) -> int:
    try:
        with tenant_scope(tenant_id, durable=True):
            session = recording.locked(session_id)
            flushed = flush_held(session, keys.existing(session.subject_id))
        if not flushed:  # its entries have expired, or somebody was first
            buffering.remove(tenant_id, session_id, [])
        return flushed
    except (NotFound, Corrupt) as error:  # deleted, or its subject's key is destroyed: nothing can be recorded any more
        log.warning("memory.buffer_dropped", session=str(session_id), error=error.code)
        buffering.drop(tenant_id, session_id)
    except DomainError as error:
        log.warning("memory.flush_refused", session=str(session_id), error=error.code)
        buffering.postpone(tenant_id, session_id, s=POSTPONE_S)
    return 0


def _check_open(session: Session) -> None:
    now = clock.now()
    if recording.has_ended(session, now):
        how = "was closed" if session.status == "closed" else "has expired"
        raise Conflict(
            f"The session {session.key} {how}. Open it again by its key, or start another one.",
            session=public_id("session", session.id),
            status=session.status,
        )


def _check_persistence(persistence: str | None) -> None:
    if persistence not in (None, "batched", "periodic"):
        raise Invalid("persistence is one of sync, batched, periodic.", field="/persistence")


def _checked(new: Sequence[NewMessage], source: Source) -> list[Entry]:
    if not 1 <= len(new) <= MESSAGES_APPENDED_MAX:
        raise Invalid(f"1 to {MESSAGES_APPENDED_MAX} messages are appended at once.", field="/messages")
    now = clock.now()
    entries = [_entry(message, place, source, now) for place, message in enumerate(new)]
    _check_doubles(entries)
    return entries


def _entry(new: NewMessage, place: int, source: Source, now: datetime) -> Entry:
    at = f"/messages/{place}"
    texts.clean(new.text, field=f"{at}/text", bytes_max=MESSAGE_BYTES_MAX)
    texts.optional(new.author, field=f"{at}/author", bytes_max=NAME_CHARS_MAX)
    texts.optional(new.outcome, field=f"{at}/outcome", bytes_max=OUTCOME_CHARS_MAX)
    _check_choice(new.role, ROLES, f"{at}/role")
    _check_choice(new.importance, IMPORTANCE, f"{at}/importance")
    _check_choice(new.origin, ORIGINS, f"{at}/origin")
    if new.client_id is not None:
        texts.clean(new.client_id, field=f"{at}/client_id", bytes_max=NAME_CHARS_MAX)
    return Entry(
        id=new_id(),
        role=new.role,
        text=new.text,
        author=new.author.strip(),
        importance=new.importance,
        outcome=new.outcome,
        origin="prompt" if new.role == "system" and new.origin == "said" else new.origin,
        sent_at=_moment(new.sent_at, now, f"{at}/sent_at"),
        accepted_at=now,
        client_id=new.client_id or (f"{source.key}:{place}" if source.key else None),
        run_id=source.run_id,
        step_seq=source.step_seq,
    )


def _check_choice(value: str, allowed: Sequence[str], field: str) -> None:
    if value not in allowed:
        raise Invalid(f"{field} is one of {', '.join(allowed)}.", field=field)


def _moment(sent_at: datetime | None, now: datetime, field: str) -> datetime:
    if sent_at is None:
        return now
    if sent_at.tzinfo is None:
        raise Invalid(f"{field} needs a time zone, as in 2026-01-31T09:30:00Z.", field=field)
    if sent_at > now + CLOCK_SKEW:
        raise Invalid(f"{field} lies more than a day ahead of us. Check the sender's clock.", field=field)
    return sent_at


def _check_doubles(entries: Sequence[Entry]) -> None:
    """The same client id twice in one call says the same text twice. Raises: Conflict."""
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.client_id is None:
            continue
        held = first.setdefault(entry.client_id, entry)
        if (held.role, held.text) != (entry.role, entry.text):
            raise Conflict(f"The client_id {entry.client_id} comes twice in this call, with different texts.")
