"""Messages: kept once, in order, at the same cost however long the session; taken back as a new version."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentstate.audit.models import AuditEntry
from agentstate.core import clock, tokens
from agentstate.core.errors import Conflict, Forbidden, Invalid, TooLarge
from agentstate.core.ids import new_id
from agentstate.core.limits import MESSAGE_BYTES_MAX
from agentstate.db import sql
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import keys
from memory.models import Author, Item, Message, Proposal, Session, Subject, Unit
from memory.selectors import messages as reads
from memory.selectors import sessions as session_reads
from memory.selectors.opening import ERASED, Words
from memory.services import items, messages, proposals, sessions
from memory.services.drafts import NewItem
from memory.services.messages import Appended, NewMessage
from memory.sources import Source


@pytest.fixture
def session(scope: None, subject: Subject, agent: Actor) -> Session:
    return sessions.open("ticket-1", subject_id=subject.id, actor=agent)


def said(*lines: str, role: str = "user", **more: Any) -> list[NewMessage]:
    return [NewMessage(role, line, **more) for line in lines]


def standing(session: Session) -> list[str]:
    return [message.text for message in reads.between(session.id, 1, 10**6)]


def test_texts_opened_in_one_go_are_those_opened_one_by_one(session: Session, subject: Subject, agent: Actor) -> None:
    """The damaged one says so in its own place, and the others are not lost with it; nor are those of an erased one."""
    messages.append(session.id, said("one", "two " * 900, "drei 包裹", "four"), actor=agent)
    rows = list(Message.objects.order_by("seq").values_list("id", "text"))
    sealed: list[tuple[UUID | str, Any]] = [(id, bytes(text)) for id, text in rows]
    sealed += [
        (new_id(), sealed[0][1]),
        (sealed[0][0], b""),
        (sealed[0][0], None),
        (sealed[0][0], memoryview(rows[0][1])),
    ]
    sealed[3] = (sealed[3][0], sealed[3][1][:-1] + b"?")
    for key in (keys.existing(subject.id), None):
        words = Words(key)
        alone = [words.text("memory_message", *one) for one in sealed]
        assert words.texts("memory_message", sealed) == alone
        assert alone[0] == ("one" if key else ERASED) and alone[5:7] == ["", ""]
    of_one = [reads.SealedMessage(Words(None), new_id(), subject.id, 1, "user", "", 1, "", None, b"x") for _ in "ab"]
    reads.open_all(of_one)
    assert [one.text for one in of_one] == [ERASED, ERASED]


def test_messages_are_kept_word_for_word_and_counted(session: Session, subject: Subject, agent: Actor) -> None:
    sent_at = clock.now() - timedelta(hours=1)
    first = NewMessage("user", "Wo bleibt mein Paket? 包裹呢?", author="Ada", sent_at=sent_at, outcome="answered")
    second = NewMessage("assistant", "We refund you on Friday.", importance="commitment")
    appended = messages.append(session.id, [first, second], source=Source(run_id=new_id(), step_seq=3), actor=agent)
    assert appended.durable and [seq for _, seq in appended.messages] == [1, 2]
    ada, reply = reads.between(session.id, 1, 9)
    assert (ada.text, ada.author, ada.sent_at, ada.outcome) == (first.text, "Ada", sent_at, "answered")
    assert (reply.author, reply.importance, reply.step_seq) == ("", "commitment", 3)
    row = session_reads.get(session.id)
    assert (row.last_seq, row.turns, row.message_count) == (2, 1, 2)
    assert row.tokens == tokens.count(first.text) + tokens.count(second.text)
    assert Subject.objects.get(id=subject.id).message_count == 2


def test_nothing_of_a_message_lies_open(session: Session, agent: Actor) -> None:
    messages.append(session.id, [NewMessage("user", "the canary sings", author="Canaria")], actor=agent)
    assert b"canary" not in bytes(Message.objects.get().text)
    assert b"Canaria" not in bytes(Author.objects.get().name)


def test_every_message_has_its_unit(session: Session, agent: Actor) -> None:
    appended = messages.append(session.id, said("one", "two"), actor=agent)
    units = Unit.objects.filter(kind="message").order_by("seq")
    assert [(unit.id, unit.seq, unit.in_recall) for unit in units] == [(id, seq, True) for id, seq in appended.messages]


def test_an_author_is_one_row_however_the_name_is_written(session: Session, agent: Actor) -> None:
    for name in ("Ada", "ada ", "ＡＤＡ", "Bert"):
        messages.append(session.id, said("hi", author=name), actor=agent)
    assert sorted(Author.objects.values_list("no", flat=True)) == [1, 2]
    assert [message.author for message in reads.between(session.id, 1, 9)] == ["Ada", "Ada", "Ada", "Bert"]


def test_authors_of_several_sessions_at_once_get_numbers_of_their_own(
    committed_db: None, tenant: Tenant, subject: Subject, agent: Actor
) -> None:
    start = threading.Barrier(4)
    failed: list[BaseException] = []

    def talk(number: int) -> None:
        try:
            with tenant_scope(tenant.id):
                mine = sessions.open(f"s{number}", subject_id=subject.id, actor=agent)
            start.wait(timeout=10)
            for turn in range(5):
                with tenant_scope(tenant.id):
                    messages.append(mine.id, said("hi", author=f"voice {turn}"), actor=agent)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    everyone = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(timeout=60)
    assert not failed
    with tenant_scope(tenant.id):
        assert sorted(Author.objects.values_list("no", flat=True)) == [1, 2, 3, 4, 5]
        assert Subject.objects.get(id=subject.id).message_count == 20


def test_numbers_have_no_holes_under_contention(
    committed_db: None, tenant: Tenant, subject: Subject, agent: Actor
) -> None:
    with tenant_scope(tenant.id):
        session = sessions.open("busy", subject_id=subject.id, actor=agent)
    failed: list[BaseException] = []

    def talk(number: int) -> None:
        try:
            for turn in range(5):
                with tenant_scope(tenant.id):
                    messages.append(session.id, said(f"{number}.{turn}", f"{number}.{turn}b"), actor=agent)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    everyone = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(timeout=60)
    assert not failed
    with tenant_scope(tenant.id):
        assert list(Message.objects.order_by("seq").values_list("seq", flat=True)) == list(range(1, 41))


@pytest.mark.parametrize("persistence", ["sync", "batched"])
def test_a_message_sent_twice_is_kept_once(session: Session, agent: Actor, persistence: Any, redis: Any) -> None:
    new = said("pay 10 EUR", client_id="c-1") + said("and 5", client_id="c-2")
    first = messages.append(session.id, new, persistence=persistence, actor=agent)
    again = messages.append(session.id, new, persistence=persistence, actor=agent)
    assert [id for id, _ in first.messages] == [id for id, _ in again.messages]
    messages.flush(session.id)
    third = messages.append(session.id, new + said("new"), persistence="sync", actor=agent)
    assert [id for id, _ in third.messages][:2] == [id for id, _ in first.messages]
    assert standing(session) == ["pay 10 EUR", "and 5", "new"]
    assert session_reads.get(session.id).message_count == 3


@pytest.mark.parametrize("persistence", ["sync", "batched"])
@pytest.mark.parametrize(
    "other", [NewMessage("user", "pay 99", client_id="c"), NewMessage("tool", "pay", client_id="c")]
)
def test_another_text_under_the_same_client_id_is_refused(
    session: Session, agent: Actor, persistence: Any, other: NewMessage, redis: Any
) -> None:
    messages.append(session.id, said("pay", client_id="c"), persistence=persistence, actor=agent)
    with pytest.raises(Conflict, match="another text"):
        messages.append(session.id, [*said("before"), other], persistence=persistence, actor=agent)
    messages.flush(session.id)
    assert standing(session) == ["pay"], "all of a call or nothing"


def test_a_batched_message_that_stands_already_is_compared_with_its_row(session: Session, agent: Actor) -> None:
    messages.append(session.id, said("pay", client_id="c"), actor=agent)
    with pytest.raises(Conflict, match="another text"):
        messages.append(session.id, said("pay more", client_id="c"), persistence="batched", actor=agent)


@pytest.mark.parametrize("persistence", ["sync", "batched"])
def test_one_call_cannot_say_two_things_under_one_client_id(
    session: Session, agent: Actor, persistence: Any, redis: Any
) -> None:
    new = said("a", client_id="c") + said("b", client_id="c")
    with pytest.raises(Conflict, match="different texts"):
        messages.append(session.id, new, persistence=persistence, actor=agent)
    twice = messages.append(session.id, said("a", "a", client_id="c"), persistence=persistence, actor=agent)
    assert len(twice.messages) == 2 and len({id for id, _ in twice.messages}) == 1
    messages.flush(session.id)
    assert standing(session) == ["a"]


def test_a_replayed_step_writes_once(session: Session, agent: Actor) -> None:
    source = Source(run_id=new_id(), step_seq=1, key="f" * 64)
    first = messages.append(session.id, said("one", "two"), source=source, actor=agent)
    assert messages.append(session.id, said("one", "two"), source=source, actor=agent) == first
    with pytest.raises(Conflict):
        messages.append(session.id, said("one", "three"), source=source, actor=agent)
    assert standing(session) == ["one", "two"]


@pytest.mark.parametrize(
    ("new", "error", "field"),
    [
        (NewMessage("user", ""), Invalid, "text"),
        (NewMessage("user", " \n "), Invalid, "text"),
        (NewMessage("user", "a\0b"), Invalid, "text"),
        (NewMessage("user", "\ud83d"), Invalid, "text"),
        (NewMessage("user", "x" * (20 * 2**20)), TooLarge, "text"),
        (NewMessage("user", "é" * (MESSAGE_BYTES_MAX // 2 + 1)), TooLarge, "text"),
        (NewMessage("user", 7), Invalid, "text"),  # type: ignore[arg-type]
        (NewMessage("narrator", "hi"), Invalid, "role"),
        (NewMessage("user", "hi", importance="huge"), Invalid, "importance"),
        (NewMessage("user", "hi", origin="dream"), Invalid, "origin"),
        (NewMessage("user", "hi", author="a\0"), Invalid, "author"),
        (NewMessage("user", "hi", author="a" * 201), TooLarge, "author"),
        (NewMessage("user", "hi", outcome="o" * 41), TooLarge, "outcome"),
        (NewMessage("user", "hi", client_id=""), Invalid, "client_id"),
        (NewMessage("user", "hi", client_id="c" * 201), TooLarge, "client_id"),
        (NewMessage("user", "hi", sent_at=datetime(2026, 1, 1)), Invalid, "sent_at"),  # noqa: DTZ001
        (NewMessage("user", "hi", sent_at=clock.now() + timedelta(days=400)), Invalid, "sent_at"),
    ],
)
@pytest.mark.parametrize("persistence", ["sync", "batched"])
def test_bad_input_is_refused_by_name_and_nothing_of_its_call_is_kept(
    session: Session, agent: Actor, new: NewMessage, error: type[Invalid], field: str, persistence: Any, redis: Any
) -> None:
    with pytest.raises(error) as refusal:
        messages.append(session.id, [NewMessage("user", "fine"), new], persistence=persistence, actor=agent)
    assert refusal.value.field == f"/messages/1/{field}"
    messages.flush(session.id)
    assert not Message.objects.exists()


@pytest.mark.parametrize("count", [0, 201])
def test_a_call_has_a_bounded_number_of_messages(session: Session, agent: Actor, count: int) -> None:
    with pytest.raises(Invalid) as refusal:
        messages.append(session.id, said(*["hi"] * count), actor=agent)
    assert refusal.value.field == "/messages"


def test_unknown_persistence_is_refused(session: Session, agent: Actor) -> None:
    with pytest.raises(Invalid):
        messages.append(session.id, said("hi"), persistence="someday", actor=agent)  # type: ignore[arg-type]


def test_a_viewer_appends_nothing(session: Session, victor: Actor) -> None:
    with pytest.raises(Forbidden):
        messages.append(session.id, said("hi"), actor=victor)


def test_a_system_message_counts_as_our_own_text(session: Session, agent: Actor) -> None:
    messages.append(session.id, said("You are a desk agent.", role="system"), actor=agent)
    assert reads.between(session.id, 1, 1)[0].origin == "prompt"


def grown(session: Session, to: int, agent: Actor) -> None:
    """A session as long as this, by copies of one row: what they say does not matter here."""
    messages.append(session.id, said("hello there"), actor=agent)
    sql.execute(
        "INSERT INTO memory_message (id, session_id, subject_id, seq, role, author_no, text, tokens, bytes, importance,"
        " origin, outcome, sent_at, recorded_at) SELECT gen_random_uuid(), session_id, subject_id, n, role, author_no,"
        " text, tokens, bytes, importance, origin, outcome, sent_at, recorded_at"
        " FROM memory_message, generate_series(2, %s) n WHERE session_id = %s",
        [to, session.id],
    )
    Session.objects.filter(id=session.id).update(last_seq=to, message_count=to)


def statements(act: Any) -> int:
    with CaptureQueriesContext(connection) as orm, sql.watched() as raw:
        act()
    return len(orm) + len(raw)


def test_appending_costs_the_same_in_a_long_session(session: Session, subject: Subject, agent: Actor) -> None:
    long = sessions.open("long", subject_id=subject.id, actor=agent)
    grown(session, 50, agent)
    grown(long, 50_000, agent)

    def append(where: Session) -> Appended:
        return messages.append(where.id, said("next", client_id=new_id().hex, author="Ada"), actor=agent)

    append(session), append(long)
    assert statements(lambda: append(session)) == statements(lambda: append(long)) <= 12
    assert append(long).messages[0][1] == 50_003


def test_no_statement_of_an_append_reads_a_session_whole(session: Session, agent: Actor) -> None:
    grown(session, 20_000, agent)
    with CaptureQueriesContext(connection) as seen:
        messages.append(session.id, said("next", client_id="c-next"), actor=agent)
    reading = [query["sql"] for query in seen if query["sql"].startswith("SELECT") and "memory_message" in query["sql"]]
    assert reading
    for query in reading:
        plan = "\n".join(row[0] for row in sql.rows("EXPLAIN (ANALYZE, TIMING OFF) " + query.replace("%", "%%")))
        assert "Seq Scan on memory_message" not in plan, plan
        assert "Rows Removed by Filter: 1" not in plan, plan


def test_the_tail_is_the_end_that_fits(session: Session, agent: Actor) -> None:
    messages.append(session.id, said(*[f"message number {n} of them all" for n in range(1, 41)]), actor=agent)
    one = reads.between(session.id, 1, 1)[0].tokens
    tail = reads.tail(session.id, 5 * one + one // 2)
    assert [message.seq for message in tail] == [36, 37, 38, 39, 40]
    assert reads.tail(session.id, one - 1) == [] and reads.tail(session.id, 0) == []
    assert [m.seq for m in reads.tail(session.id, 10**6, rows_max=3)] == [38, 39, 40]


def test_a_page_of_messages_goes_on_where_it_ended(session: Session, agent: Actor) -> None:
    messages.append(session.id, said(*"abcdefg"), actor=agent)
    first = reads.page(session.id, rows_max=3)
    second = reads.page(session.id, rows_max=10, after=first.after)
    assert "".join(row.text for row in first.rows + second.rows) == "gfedcba" and not second.after
    oldest = reads.page(session.id, newest_first=False, rows_max=2)
    assert [row.text for row in oldest.rows] == ["a", "b"]


def test_messages_are_found_by_when_they_were_sent(session: Session, subject: Subject, agent: Actor) -> None:
    now = clock.now()
    for days in (3, 1, 2):
        messages.append(session.id, said(f"{days}", sent_at=now - timedelta(days=days)), actor=agent)
    found = reads.in_time_range(subject.id, since=now - timedelta(days=2, hours=1), until=now - timedelta(hours=1))
    assert [message.text for message in found] == ["2", "1"]


def test_undo_takes_back_the_last_messages_as_a_new_version(session: Session, subject: Subject, agent: Actor) -> None:
    messages.append(session.id, said("a", "b", "c", "d"), actor=agent)
    undone = messages.undo(session.id, last_n=2, expected_version=1, reason="a mistake", actor=agent)
    assert undone.from_seq == 3 and len(undone.message_ids) == 2
    assert standing(session) == ["a", "b"]
    shown = reads.between(session.id, 1, 9, with_undone=True)
    assert [(message.text, message.undone_in) for message in shown] == [("a", None), ("b", None), ("c", 2), ("d", 2)]
    row = session_reads.get(session.id)
    assert (row.version, row.message_count, row.turns, row.last_seq) == (2, 2, 2, 4)
    assert row.tokens == sum(message.tokens for message in shown[:2])
    assert Subject.objects.get(id=subject.id).message_count == 2
    assert sorted(Unit.objects.filter(in_recall=False).values_list("seq", flat=True)) == [3, 4]
    entry = AuditEntry.objects.filter(object_id=session.id).latest("object_seq")
    assert (entry.action, entry.actor_id) == ("undone", agent.id)


def test_a_second_undo_goes_on_behind_the_first(session: Session, agent: Actor) -> None:
    messages.append(session.id, said("a", "b", "c"), actor=agent)
    messages.undo(session.id, last_n=1, expected_version=1, reason="", actor=agent)
    messages.append(session.id, said("d"), actor=agent)
    messages.undo(session.id, last_n=2, expected_version=2, reason="", actor=agent)
    assert standing(session) == ["a"]
    assert [m.undone_in for m in reads.between(session.id, 1, 9, with_undone=True)] == [None, 3, 2, 3]


def test_undo_needs_the_version_that_was_looked_at(session: Session, agent: Actor) -> None:
    messages.append(session.id, said("a", "b"), actor=agent)
    messages.undo(session.id, last_n=1, expected_version=1, reason="", actor=agent)
    with pytest.raises(Conflict) as refusal:
        messages.undo(session.id, last_n=1, expected_version=1, reason="", actor=agent)
    assert refusal.value.data["version"] == 2 and standing(session) == ["a"]


@pytest.mark.parametrize("last_n", [0, -1, 3, 1_001])
def test_undo_takes_no_more_than_stands(session: Session, agent: Actor, last_n: int) -> None:
    messages.append(session.id, said("a", "b"), actor=agent)
    with pytest.raises(Invalid):
        messages.undo(session.id, last_n=last_n, expected_version=1, reason="", actor=agent)
    assert session_reads.get(session.id).version == 1 and standing(session) == ["a", "b"]


def test_a_taken_back_message_is_not_said_again_by_its_client_id(session: Session, agent: Actor) -> None:
    messages.append(session.id, said("a", client_id="c"), actor=agent)
    messages.undo(session.id, last_n=1, expected_version=1, reason="", actor=agent)
    messages.append(session.id, said("a", client_id="c"), actor=agent)
    assert standing(session) == []


def learned_from(subject: Subject, text: str, message_ids: Sequence[UUID], agent: Actor) -> Item:
    source = Source(message_ids=tuple(message_ids))
    kept = items.remember(subject.id, NewItem(text), actor=agent, source=source)
    assert kept.item is not None
    return kept.item


def test_undo_proposes_to_forget_what_was_learned_from_the_messages(
    session: Session, subject: Subject, agent: Actor
) -> None:
    kept, taken = messages.append(session.id, said("a", "b"), actor=agent).messages
    learned_from(subject, "Ada lives in Graz.", [kept[0]], agent)
    item = learned_from(subject, "Ada prefers to be called in the evening.", [kept[0], taken[0]], agent)
    undone = messages.undo(session.id, last_n=1, expected_version=1, reason="", actor=agent)
    assert undone.item_ids == [item.id]
    proposal = Proposal.objects.get()
    assert (proposal.act, proposal.item_id, proposal.status, proposal.method) == ("forget", item.id, "pending", "undo")
    assert Item.objects.get(id=item.id).status == "active", "a person decides"
    proposals.accept(proposal.id, actor=agent)
    assert Item.objects.get(id=item.id).status == "forgotten"
