"""Sessions: opened by their key, closed by whoever is done, expired when idle too long or too old.

A session's key is the session_key of its runs. Whoever changes a session holds its row; the subject's comes after it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import F

from agentstate.audit import trail
from agentstate.core import clock
from agentstate.core.errors import Conflict, DomainError, NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.db import locks
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant
from memory import keys, policies, sealing, texts
from memory.models import Session, Subject
from memory.services import messages, rights
from memory.services.recording import due_at, has_ended, locked
from memory.states import SessionStatus, SubjectStatus

log = structlog.get_logger(__name__)

KEY_BYTES_MAX = NAME_CHARS_MAX  # ASCII names are the rule; longer ones would not fit the column either way


def open(key: str, *, subject_id: UUID, agent: str = "", title: str = "", actor: Actor) -> Session:
    """The session of this key, made when there is none; one that has ended opens again if the agent's policy allows.

    Raises: Forbidden, Invalid, NotFound (subject), Conflict when the key is another subject's, or its session has ended
    for good. Locks: the key, session, subject. Idempotent.
    """
    rights.require_writing(actor)
    _check_names(key, agent, title)
    assert connection.in_atomic_block, "the key is held until the session is there"
    locks.hold("memory.session", current_tenant(), key)
    found = Session.objects.filter(key=key).first()
    if found is None:
        return _make(key, subject_id=subject_id, agent=agent, title=title, actor=actor)
    if found.subject_id != subject_id:
        raise Conflict(
            f"The session {key} is about {public_id('subject', found.subject_id)}. Use a new key for another subject.",
            session=public_id("session", found.id),
        )
    keys.in_use(subject_id)  # refuses a subject that is being erased
    return _reopened(found, actor=actor) if has_ended(found, clock.now()) else found


def close(session_id: UUID, *, actor: Actor, reason: str = "") -> Session:
    """End it; what waited in its buffer is recorded first. Idempotent. Raises: Forbidden, NotFound. Locks: session."""
    rights.require_writing(actor)
    messages.flush(session_id)
    session = locked(session_id)
    if session.status != SessionStatus.OPEN:
        return session
    return trail.transition(
        session, to=SessionStatus.CLOSED, actor=actor, reason=reason, set={"ended_at": clock.now(), "due_at": None}
    )


def expire_due(*, limit: int = 200) -> int:
    """Expire sessions of this tenant that are due; how many. What waited in a buffer counts as activity.

    Two at once are harmless. Locks: each session in the order of its id, skipping those that somebody holds.
    """
    assert connection.in_atomic_block, "a session that is due is held until it has ended"
    actor = actors.system("expiry")
    due = Session.objects.filter(status=SessionStatus.OPEN, due_at__lte=clock.now())
    # Index: memory_session_due.
    held = due.order_by("due_at").select_for_update(no_key=True, skip_locked=True).values_list("id", flat=True)[:limit]
    return sum(_expired(session_id, actor) for session_id in list(held))


def _check_names(key: str, agent: str, title: str) -> None:
    texts.clean(key, field="/session", bytes_max=KEY_BYTES_MAX)
    texts.optional(agent, field="/agent", bytes_max=NAME_CHARS_MAX)
    texts.optional(title, field="/title", bytes_max=NAME_CHARS_MAX)


def _make(key: str, *, subject_id: UUID, agent: str, title: str, actor: Actor) -> Session:
    now, policy = clock.now(), policies.for_agent(agent)
    found = Subject.objects.filter(id=subject_id, status=SubjectStatus.ACTIVE)
    if not found.update(session_count=F("session_count") + 1, last_active_at=now):
        raise NotFound("There is no such subject, or it is being erased.")
    session = Session(
        subject_id=subject_id, key=key, agent=agent, created_at=now, last_active_at=now, idle_s=policy.idle_s
    )
    _start_clock(session, now, policy)
    if title:
        session.title = sealing.seal_text(keys.owner_key(subject_id), "memory_session", session.id, title)
    session.save(force_insert=True)
    return trail.record(session, action="opened", actor=actor)


def _reopened(found: Session, *, actor: Actor) -> Session:
    policy = policies.for_agent(found.agent)
    if not policy.reopen:
        raise Conflict(
            f"The session {found.key} has ended, and the policy of {found.agent or 'its agent'} opens none again. "
            "Start another one under a new key.",
            session=public_id("session", found.id),
            status=found.status,
        )
    session, now = locked(found.id), clock.now()
    if not has_ended(session, now):  # somebody opened it while we waited
        return session
    if session.status == SessionStatus.OPEN:  # its time is over, and no sweep has seen it yet
        trail.transition(session, to=SessionStatus.EXPIRED, actor=actors.system("expiry"), set={"ended_at": now})
    _start_clock(session, now, policy)
    moments = {"idle_s": session.idle_s, "expires_at": session.expires_at, "due_at": session.due_at}
    return trail.transition(
        session,
        to=SessionStatus.OPEN,
        actor=actor,
        action="reopened",
        set={"ended_at": None, "last_active_at": now, **moments},
    )


def _start_clock(session: Session, now: datetime, policy: policies.AgentPolicy) -> None:
    session.idle_s = policy.idle_s
    session.expires_at = now + timedelta(seconds=policy.lifetime_s) if policy.lifetime_s is not None else None
    session.due_at = due_at(last_active_at=now, idle_s=session.idle_s, expires_at=session.expires_at)


def _expired(session_id: UUID, actor: Actor) -> bool:
    try:
        with transaction.atomic():
            return _expire(session_id, actor)
    except DomainError as error:  # one that cannot be ended must not keep the others
        log.warning("memory.expire_refused", session=str(session_id), error=error.code)
        return False


def _expire(session_id: UUID, actor: Actor) -> bool:
    messages.flush(session_id)
    session, now = locked(session_id), clock.now()
    if session.status != SessionStatus.OPEN or not has_ended(session, now):
        return False
    trail.transition(session, to=SessionStatus.EXPIRED, actor=actor, set={"ended_at": now, "due_at": None})
    return True
