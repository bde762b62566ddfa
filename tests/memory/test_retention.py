"""Retention: what is kept no longer goes whole, once, and leaves what open runs, counts and erasures need."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from agentstate.audit import verification
from agentstate.audit.models import AuditEntry
from agentstate.core import clock, failpoints
from agentstate.core.errors import NotFound
from agentstate.core.ids import first_at, new_id, public_id
from agentstate.db import sql
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import standing, tasks
from memory.models import Injection, Message, Removed, Session, Subject, Summary, Unit, Upkeep
from memory.selectors import erasure
from memory.services import ledger, messages, policies, retention, sessions, summaries, upkeep
from memory.services.ledger import Injected
from memory.services.messages import NewMessage
from memory.sources import Source
from memory.standing import RunStanding

OLD = timedelta(days=400)


class Archive:
    """Sessions of one subject that ended at a given time, and what calls were given of them."""

    def __init__(self, tenant: Tenant, subject: Subject, agent: Actor, alice: Actor) -> None:
        self.tenant, self.subject, self.agent, self.alice = tenant, subject, agent, alice

    def talk(self, key: str, *, ago: timedelta = OLD, count: int = 6, run_id: UUID | None = None) -> Session:
        """A session of this many messages, summarised, that ended so long ago."""
        session = sessions.open(key, subject_id=self.subject.id, agent="desk", actor=self.agent)
        new = [NewMessage("user", f"About {key}, number {number}.", author="Ada") for number in range(count)]
        messages.append(session.id, new, actor=self.agent, source=Source(run_id, 1) if run_id else Source())
        sessions.close(session.id, actor=self.agent, reason=f"{key} is done")
        work = summaries.work_on(Session.objects.get(id=session.id), policies.for_agent("desk"))
        assert work is not None and work.to_seq == count and summaries.keep(work, summaries.tell(work))
        Session.objects.filter(id=session.id).update(ended_at=clock.now() - ago)
        return Session.objects.get(id=session.id)

    def give(self, *message_ids: UUID, ago: timedelta = OLD, run_id: UUID | None = None) -> UUID:
        """A call that was given these messages so long ago; its id."""
        call_id, at = new_id(), clock.now() - ago
        for place, message_id in enumerate(message_ids, start=1):
            Injection.objects.create(
                id=UUID(int=first_at(at).int + (call_id.int % 2**40 << 8) + place),
                call_id=call_id,
                run_id=run_id,
                subject_id=self.subject.id,
                part="tail",
                source="message",
                source_id=message_id,
                position=place,
                tokens=5,
                at=at,
            )
        return call_id

    def keep(self, **fields: int | None) -> None:
        for field, value in fields.items():
            policies.set_for_tenant(field, value, actor=self.alice)

    def counts(self) -> tuple[int, int]:
        row = Subject.objects.get(id=self.subject.id)
        return row.session_count, row.message_count

    def counted(self) -> tuple[int, int]:
        mine = Session.objects.filter(subject=self.subject)
        return mine.count(), Message.objects.filter(subject_id=self.subject.id, undone_in=None).count()


@pytest.fixture
def archive(scope: None, tenant: Tenant, subject: Subject, agent: Actor, alice: Actor) -> Archive:
    return Archive(tenant, subject, agent, alice)


@pytest.fixture
def open_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Any]]:
    """Ids of runs, and keys of sessions, under which a run is open."""
    found: set[Any] = set()

    def lookup(run_ids: Any) -> list[RunStanding]:
        return [RunStanding(run_id, "desk", "running", run_id in found, False) for run_id in run_ids]

    monkeypatch.setattr(standing, "_lookups", [lookup])
    monkeypatch.setattr(standing, "_open_sessions", [lambda keys: found & set(keys)])
    yield found


def over(work: Callable[[str], upkeep.Progressed], *, batches_max: int = 20) -> int:
    """Batches until the round is over; how much it removed."""
    done, cursor = 0, ""
    for _ in range(batches_max):
        progressed = work(cursor)
        done, cursor = done + progressed.done, progressed.cursor
        if progressed.is_over:
            return done
    raise AssertionError("it does not come to an end")


def rows_of(session: Session) -> dict[str, int]:
    columns = {"memory_message": "session_id", "memory_summary": "session_id", "memory_unit": "session_id"}
    columns["memory_session"] = "id"
    return {
        table: sql.rows(f"SELECT count(*) FROM {table} WHERE {column} = %s", [session.id])[0][0]
        for table, column in columns.items()
    }


def test_a_session_goes_whole_and_the_others_stay(archive: Archive) -> None:
    gone, kept = archive.talk("old"), archive.talk("young", ago=timedelta(days=300))
    current = sessions.open("open", subject_id=archive.subject.id, agent="desk", actor=archive.agent)
    messages.append(current.id, [NewMessage("user", "Still here.")], actor=archive.agent)
    before = rows_of(kept)
    assert rows_of(gone)["memory_unit"] == 6 and rows_of(gone)["memory_summary"] > 0
    assert over(retention.remove_sessions) == 1
    assert set(rows_of(gone).values()) == {0}
    assert rows_of(kept) == before and rows_of(current)["memory_message"] == 1
    assert archive.counts() == archive.counted() == (2, 7)
    assert over(retention.remove_sessions) == 0


def test_a_removed_session_says_goodbye_with_its_numbers(archive: Archive) -> None:
    gone = archive.talk("old")
    over(retention.remove_sessions)
    last = AuditEntry.objects.filter(object_id=gone.id).order_by("-object_seq")[0]
    assert (last.action, last.actor_kind, last.detail["messages"]) == ("removed", "system", 6)
    reasons = sql.rows("SELECT n.wrapped FROM audit_note n JOIN audit_entry e ON e.note_id = n.id")
    assert [wrapped for (wrapped,) in reasons] == [None], "the reason of its closing does not open any more"


def test_what_its_sessions_came_to_is_told_without_it(archive: Archive) -> None:
    archive.talk("old")
    archive.talk("young", ago=timedelta(days=1))
    told = Summary.objects.filter(subject_id=archive.subject.id, level="subject")
    assert told.filter(stale=True).exists(), "a former telling, over the old session alone"
    over(retention.remove_sessions)
    (left,) = told
    mine = Summary.objects.filter(id__in=left.source_ids).values_list("session__key", flat=True)
    assert not left.stale and set(mine) == {"young"}
    Session.objects.update(ended_at=clock.now() - OLD)
    over(retention.remove_sessions)
    assert not Summary.objects.exists() and archive.counts() == (0, 0)


def test_none_keeps_for_ever_and_a_shorter_time_takes_more(archive: Archive) -> None:
    archive.talk("old")
    archive.talk("young", ago=timedelta(days=20))
    archive.give(*Message.objects.values_list("id", flat=True)[:2])
    archive.keep(session_keep_days=None, ledger_keep_days=None)
    assert over(retention.remove_sessions) == over(retention.remove_lines) == 0
    assert retention.rounds(archive.tenant.id) == []
    archive.keep(session_keep_days=10)
    assert [name for name, _, _ in retention.rounds(archive.tenant.id)] == [retention.SESSIONS]
    assert over(retention.remove_sessions) == 2 and Injection.objects.count() == 2


@pytest.mark.parametrize("how", ["said", "given", "given_summary", "in_session", "by_key", "own_session"])
def test_what_an_open_run_refers_to_stays_until_it_is_over(archive: Archive, open_runs: set[Any], how: str) -> None:
    run_id = new_id()
    key = public_id("run", run_id) if how == "own_session" else "old"
    session = archive.talk(key, run_id=run_id if how == "said" else None)
    other = archive.talk("other")
    if how == "given":
        archive.give(Message.objects.filter(session=session).values_list("id", flat=True)[0], run_id=run_id)
    if how == "given_summary":
        told = Summary.objects.filter(session=session, level="session")[0]
        ledger.record([Injected("summary", "summary", told.id, 5)], source=Source(run_id, 1))
    if how == "in_session":
        ledger.record([Injected("pinned", "item", new_id(), 5)], source=Source(run_id, 1), session_id=session.id)
    open_runs.add("old" if how == "by_key" else run_id)
    assert over(retention.remove_sessions) == 1
    assert set(rows_of(other).values()) == {0} and rows_of(session)["memory_message"] == 6
    open_runs.clear()
    assert over(retention.remove_sessions) == 1
    assert set(rows_of(session).values()) == {0}


def test_an_erasure_still_reaches_the_runs_of_what_is_gone(archive: Archive, new_subject: Any) -> None:
    said_in, given_to, shared = new_id(), new_id(), new_id()
    session = archive.talk("old", run_id=said_in)
    ids = list(Message.objects.filter(session=session).values_list("id", flat=True)[:2])
    archive.give(*ids, run_id=given_to)
    archive.give(*ids, run_id=shared)
    before = erasure.reach(archive.subject.id)
    assert set(before.run_ids) == {said_in, given_to, shared} and before.session_keys == ["old"]
    over(retention.remove_lines)
    over(retention.remove_sessions)
    assert not Message.objects.exists() and not Injection.objects.exists()
    assert erasure.reach(archive.subject.id) == before
    ben = new_subject("ben")
    assert erasure.shared(ben.id, [shared, said_in]) == sorted([shared, said_in])
    assert erasure.shared(archive.subject.id, [shared]) == []
    assert erasure.counts(archive.subject.id)["memory_removed"] == 4


def test_the_ledger_goes_by_its_age_and_stays_for_open_runs(archive: Archive, open_runs: set[Any]) -> None:
    session, run_id = archive.talk("young", ago=timedelta(days=1)), new_id()
    ids = list(Message.objects.filter(session=session).values_list("id", flat=True))
    archive.give(*ids[:3])
    held = archive.give(*ids[:2], run_id=run_id)
    young = archive.give(*ids[:2], ago=timedelta(days=364))
    open_runs.add(run_id)
    assert over(retention.remove_lines) == 3
    assert set(Injection.objects.values_list("call_id", flat=True)) == {held, young}
    assert AuditEntry.objects.get(action="ledger_removed").detail["lines"] == 3
    open_runs.clear()
    assert over(retention.remove_lines) == 2


def test_batches_are_bounded_and_pass_by_what_stays(
    archive: Archive, open_runs: set[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays at the head of the queue must neither end the round nor hold it for ever."""
    monkeypatch.setattr(retention, "BATCH_SESSIONS", 2)
    monkeypatch.setattr(retention, "BATCH_MESSAGES", 4)
    monkeypatch.setattr(retention, "BATCH_LINES", 3)
    for number in range(5):
        archive.talk(f"talk-{number}", ago=OLD - timedelta(days=number), count=2 + number % 2)
    ids = list(Message.objects.filter(session__key="talk-1").values_list("id", flat=True))
    run_id = new_id()
    calls = [archive.give(*ids[:2], ago=OLD - timedelta(days=n), run_id=run_id if n < 2 else None) for n in range(5)]
    open_runs.update({"talk-0", run_id})
    first = retention.remove_sessions("")
    assert (first.done, first.is_over) == (0, False) and first.cursor
    assert over(retention.remove_sessions) == 3
    assert over(retention.remove_lines) == 6
    assert set(Injection.objects.values_list("call_id", flat=True)) == set(calls[:2])
    assert set(Session.objects.values_list("key", flat=True)) == {"talk-0", "talk-1"}


def test_a_subject_that_is_being_erased_is_left_to_its_erasure(archive: Archive) -> None:
    archive.talk("old")
    Subject.objects.update(status="erasing")
    assert over(retention.remove_sessions) == 0 and Session.objects.count() == 1


def test_a_key_begins_a_new_session_after_its_own_is_gone(archive: Archive) -> None:
    former = archive.talk("old")
    over(retention.remove_sessions)
    again = sessions.open("old", subject_id=archive.subject.id, agent="desk", actor=archive.agent)
    assert again.id != former.id and again.last_seq == 0
    with pytest.raises(NotFound):
        messages.append(former.id, [NewMessage("user", "x")], actor=archive.agent)


def test_the_command_says_what_it_would_remove(archive: Archive, open_runs: set[Any]) -> None:
    for key in ("old", "older", "kept"):
        archive.talk(key)
    archive.give(*Message.objects.values_list("id", flat=True)[:1])
    archive.keep(ledger_keep_days=None)
    open_runs.add("kept")
    said = io.StringIO()
    call_command("memory_retention", "--dry-run", "--tenant", archive.tenant.slug, stdout=said)
    sessions_line, ledger_line = said.getvalue().splitlines()
    assert "would remove 2 sessions with 12 messages, from before" in sessions_line
    assert "1 stay, because a run is open" in sessions_line
    assert "would remove 0 lines of the ledger, all are kept" in ledger_line
    assert Session.objects.count() == 3
    with pytest.raises(CommandError, match="no tenant"):
        call_command("memory_retention", "--tenant", "nobody")


@pytest.fixture
def committed(committed_db: None, tenant: Tenant, subject: Subject, agent: Actor, alice: Actor) -> Archive:
    archive = Archive(tenant, subject, agent, alice)
    with tenant_scope(tenant.id):
        for number in range(4):
            archive.talk(f"talk-{number}", ago=OLD - timedelta(days=number), count=2, run_id=new_id())
    return archive


def sessions_left(archive: Archive) -> list[str]:
    """Their keys; each of them is whole."""
    with tenant_scope(archive.tenant.id):
        assert archive.counts() == archive.counted()
        assert Unit.objects.filter(kind="message").count() == Message.objects.count()
        for session in Session.objects.all():
            assert Message.objects.filter(session=session).count() == session.last_seq
        return sorted(Session.objects.values_list("key", flat=True))


@pytest.mark.parametrize("failpoint", ["memory.upkeep.worked", "memory.upkeep.between"])
def test_killed_in_the_middle_it_goes_on_and_removes_each_once(
    committed: Archive, monkeypatch: pytest.MonkeyPatch, failpoint: str
) -> None:
    monkeypatch.setattr(retention, "BATCH_SESSIONS", 1)
    (name, work, target), _ = retention.rounds(committed.tenant.id)
    with failpoints.armed(f"{failpoint}=raise@2"), pytest.raises(failpoints.FailpointReached):
        upkeep.drive(committed.tenant.id, name, work, target=target)
    gone = 1 if failpoint.endswith("worked") else 2
    assert sessions_left(committed) == [f"talk-{number}" for number in range(gone, 4)]
    call_command("memory_retention", stdout=io.StringIO())
    assert sessions_left(committed) == []
    with tenant_scope(committed.tenant.id):
        assert AuditEntry.objects.filter(action="removed", object_type="session").count() == 4
        assert Removed.objects.count() == 8
        assert {row.name: row.state for row in Upkeep.objects.all()} == {
            retention.SESSIONS: "idle",
            retention.LINES: "idle",
        }
    assert verification.verify(committed.tenant.id) == []


def test_two_rounds_at_once_remove_each_once(committed: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_SESSIONS", 1)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            tasks.retain()
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    both = [threading.Thread(target=work) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert not failed and not any(each.is_alive() for each in both)
    tasks.retain()
    assert sessions_left(committed) == []
    with tenant_scope(committed.tenant.id):
        assert AuditEntry.objects.filter(action="removed", object_type="session").count() == 4


def test_a_session_that_is_opened_meanwhile_is_passed_by_and_opens_as_it_was(committed: Archive) -> None:
    def work() -> None:
        tasks.retain()
        connection.close()

    with tenant_scope(committed.tenant.id):
        opened = sessions.open("talk-1", subject_id=committed.subject.id, agent="desk", actor=committed.agent)
        worker = threading.Thread(target=work)
        worker.start()
        worker.join(60)
        assert not worker.is_alive()
        messages.append(opened.id, [NewMessage("user", "I am back.")], actor=committed.agent)
    assert sessions_left(committed) == ["talk-1"]
    with tenant_scope(committed.tenant.id):
        assert Session.objects.get().last_seq == 3


def test_nobody_waits_while_the_rows_of_a_session_are_deleted(
    committed: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then is its subject's row taken: a session may be long."""
    seen, execute = list[tuple[int, int]](), sql.execute

    def speak() -> None:
        with tenant_scope(committed.tenant.id):
            opened = sessions.open("today", subject_id=committed.subject.id, agent="desk", actor=committed.agent)
            messages.append(opened.id, [NewMessage("user", "Meanwhile.")], actor=committed.agent)
            left = Session.objects.get(key="talk-0")
            seen.append((left.last_seq, Message.objects.filter(session=left).count()))
        connection.close()

    def last_delete(statement: str, args: Any = ()) -> int:
        touched = execute(statement, args)
        if statement == retention.REMOVE[-1] and not seen:
            speaker = threading.Thread(target=speak)
            speaker.start()
            speaker.join(30)
        return touched

    monkeypatch.setattr(sql, "execute", last_delete)
    tasks.retain()
    assert seen == [(2, 2)]
    assert sessions_left(committed) == ["today"]


def test_a_round_that_came_to_its_end_is_not_begun_again_the_same_day(committed: Archive) -> None:
    def moved() -> dict[str, Any]:
        tasks.retain()
        with tenant_scope(committed.tenant.id):
            return {row.name: row.moved_at for row in Upkeep.objects.all()}

    first = moved()
    assert set(first) == {retention.SESSIONS, retention.LINES} and moved() == first
    with tenant_scope(committed.tenant.id):
        committed.keep(session_keep_days=30)
    after = moved()
    assert after[retention.LINES] == first[retention.LINES] and after[retention.SESSIONS] > first[retention.SESSIONS]
