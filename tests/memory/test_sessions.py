"""Sessions: opened once by their key, closed, expired, opened again; by subject and by time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection

from agentstate.core import clock
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from agentstate.core.ids import new_id
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.models import Session, Subject
from memory.selectors import sessions as reads
from memory.services import messages, policies, sessions
from memory.services.messages import NewMessage
from memory.states import SessionStatus


def open_(subject: Subject, by: Actor, key: str = "ticket-1", **more: str) -> Session:
    return sessions.open(key, subject_id=subject.id, actor=by, **more)


def age(session: Session, **by: float) -> None:
    """Let time pass for it: its moments lie further back."""
    back = timedelta(**by)
    row = Session.objects.get(id=session.id)
    row.last_active_at -= back
    row.due_at = row.due_at - back if row.due_at else None
    row.expires_at = row.expires_at - back if row.expires_at else None
    row.save(update_fields=["last_active_at", "due_at", "expires_at"])


def test_the_same_key_opens_the_same_session_once(scope: None, subject: Subject, agent: Actor) -> None:
    first, second = open_(subject, agent, title="A refund"), open_(subject, agent)
    assert first.id == second.id and Session.objects.count() == 1
    assert Subject.objects.get(id=subject.id).session_count == 1
    assert reads.by_key("ticket-1").title == "A refund"
    assert b"A refund" not in bytes(Session.objects.get().title)


def test_two_who_open_at_once_get_one_session(
    committed_db: None, tenant: Tenant, subject: Subject, agent: Actor
) -> None:
    found: list[UUID] = []
    start = threading.Barrier(4)

    def opening() -> None:
        try:
            start.wait(timeout=10)
            with tenant_scope(tenant.id):
                found.append(open_(subject, agent).id)
        finally:
            connection.close()

    everyone = [threading.Thread(target=opening) for _ in range(4)]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(timeout=30)
    assert len(found) == 4 and len(set(found)) == 1
    with tenant_scope(tenant.id):
        assert Subject.objects.get(id=subject.id).session_count == 1


def test_a_key_belongs_to_one_subject(
    scope: None, subject: Subject, agent: Actor, new_subject: Callable[[str], Subject]
) -> None:
    open_(subject, agent)
    with pytest.raises(Conflict, match="new key"):
        open_(new_subject("bert"), agent)


@pytest.mark.parametrize(
    ("key", "error"),
    [("", Invalid), ("  ", Invalid), ("a\0b", Invalid), ("\ud800", Invalid), ("k" * 201, TooLarge)],
)
def test_a_bad_key_is_refused_by_name(
    scope: None, subject: Subject, agent: Actor, key: str, error: type[Invalid]
) -> None:
    with pytest.raises(error) as refusal:
        open_(subject, agent, key)
    assert refusal.value.field == "/session"
    assert not Session.objects.exists()


def test_nobody_opens_without_the_right_or_about_nobody(
    scope: None, tenant: Tenant, subject: Subject, agent: Actor, victor: Actor
) -> None:
    with pytest.raises(Forbidden):
        open_(subject, victor)
    with pytest.raises(NotFound):
        sessions.open("k", subject_id=new_id(), actor=agent)


def test_another_tenants_session_does_not_exist(
    tenant: Tenant, other_tenant: Tenant, subject: Subject, agent: Actor
) -> None:
    with tenant_scope(tenant.id):
        mine = open_(subject, agent)
    with tenant_scope(other_tenant.id):
        for act in (
            lambda: reads.get(mine.id),
            lambda: sessions.close(mine.id, actor=agent),
            lambda: messages.append(mine.id, [NewMessage("user", "hi")], actor=agent),
            lambda: messages.append(mine.id, [NewMessage("user", "hi")], persistence="batched", actor=agent),
            lambda: messages.undo(mine.id, last_n=1, expected_version=1, reason="", actor=agent),
        ):
            with pytest.raises(NotFound):
                act()


def test_closing_twice_is_closing_once(scope: None, subject: Subject, agent: Actor) -> None:
    session = open_(subject, agent)
    first = sessions.close(session.id, actor=agent, reason="done")
    second = sessions.close(session.id, actor=agent)
    assert first.status == second.status == SessionStatus.CLOSED and first.audit_seq == second.audit_seq
    with pytest.raises(Conflict, match="was closed"):
        messages.append(session.id, [NewMessage("user", "anybody?")], actor=agent)


def test_opening_an_ended_session_opens_it_again(scope: None, subject: Subject, agent: Actor) -> None:
    session = open_(subject, agent)
    sessions.close(session.id, actor=agent)
    again = open_(subject, agent)
    assert again.id == session.id and again.status == SessionStatus.OPEN
    assert again.ended_at is None and again.due_at is not None
    assert Subject.objects.get(id=subject.id).session_count == 1


def test_a_policy_may_keep_ended_sessions_closed(scope: None, subject: Subject, agent: Actor, alice: Actor) -> None:
    policies.set_for_agent("desk", {"reopen": False}, actor=alice)
    session = open_(subject, agent, agent="desk")
    sessions.close(session.id, actor=agent)
    with pytest.raises(Conflict, match="under a new key"):
        open_(subject, agent, agent="desk")


def test_a_session_expires_when_idle_and_not_before(scope: None, subject: Subject, agent: Actor, alice: Actor) -> None:
    policies.set_for_agent("desk", {"idle_s": 600}, actor=alice)
    session = open_(subject, agent, agent="desk")
    age(session, seconds=590)
    assert sessions.expire_due() == 0
    messages.append(session.id, [NewMessage("user", "still here")], actor=agent)
    age(session, seconds=590)
    assert sessions.expire_due() == 0, "a message counts as activity"
    age(session, seconds=20)
    assert sessions.expire_due() == 1 and sessions.expire_due() == 0
    assert reads.get(session.id).status == SessionStatus.EXPIRED


def test_a_session_expires_at_its_end_however_busy(scope: None, subject: Subject, agent: Actor, alice: Actor) -> None:
    policies.set_for_agent("desk", {"idle_s": None, "lifetime_s": 3_600}, actor=alice)
    session = open_(subject, agent, agent="desk")
    age(session, seconds=3_590)
    messages.append(session.id, [NewMessage("user", "still here")], actor=agent)
    age(session, seconds=20)
    assert sessions.expire_due() == 1


def test_what_is_due_has_ended_before_any_sweep(scope: None, subject: Subject, agent: Actor) -> None:
    session = open_(subject, agent)
    age(session, days=2)
    with pytest.raises(Conflict, match="has expired"):
        messages.append(session.id, [NewMessage("user", "anybody?")], actor=agent)
    again = open_(subject, agent)
    assert again.status == SessionStatus.OPEN and again.due_at is not None and again.due_at > clock.now()


def test_a_session_without_limits_never_expires(scope: None, subject: Subject, agent: Actor, alice: Actor) -> None:
    policies.set_for_agent("desk", {"idle_s": None}, actor=alice)
    session = open_(subject, agent, agent="desk")
    assert session.due_at is None
    age(session, days=1_000)
    assert sessions.expire_due() == 0


def test_expiry_goes_in_batches(scope: None, subject: Subject, agent: Actor) -> None:
    for number in range(5):
        age(open_(subject, agent, f"k{number}"), days=2)
    assert [sessions.expire_due(limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_sessions_are_listed_by_subject_and_by_time(
    scope: None, subject: Subject, agent: Actor, new_subject: Callable[[str], Subject]
) -> None:
    bert = new_subject("bert")
    mine = [open_(subject, agent, f"k{number}").id for number in range(5)]
    other = open_(bert, agent, "other", agent="clerk").id
    first = reads.of_subject(subject.id, rows_max=3)
    rest = reads.of_subject(subject.id, after=first.after, rows_max=3)
    assert [row.id for row in first.rows + rest.rows] == mine[::-1] and not rest.after
    assert [row.id for row in reads.latest(agent="clerk").rows] == [other]
    assert reads.latest(since=clock.now() + timedelta(seconds=5)).rows == []
    with pytest.raises(Invalid):
        reads.of_subject(bert.id, after=first.after)
