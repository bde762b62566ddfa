"""Summaries: shorter than what they tell, the same each time, keeping what matters; made again after an undo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from agentstate.core import clock, tokens
from agentstate.core.ids import new_id
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.models import Session, Subject, Summary
from memory.selectors import sessions as session_reads
from memory.selectors import summaries as reads
from memory.selectors.messages import OpenedMessage
from memory.services import folding, messages, policies, sessions, summaries, turns, upkeep
from memory.services.messages import NewMessage

TOPICS = ("the parcel to Graz", "a refund of 30 EUR", "the login page", "the meeting with Bert", "invoice 2291")


def talk(count: int, start: int = 1) -> list[NewMessage]:
    """Turns of two messages; every seventh message is a decision."""
    made = []
    for number in range(start, start + count):
        topic = TOPICS[number % len(TOPICS)]
        text = (
            f"Message {number} is about {topic}. " + f"It goes on about {topic} at some length, number {number}. " * 2
        )
        kind = "decision" if number % 7 == 0 else "routine"
        made.append(NewMessage("user" if number % 2 else "assistant", text, importance=kind))
    return made


class Desk:
    def __init__(self, tenant: Tenant, subject: Subject, agent: Actor) -> None:
        self.tenant, self.subject, self.agent = tenant, subject, agent

    def open(self, key: str = "talk", policy_of: str = "desk") -> Session:
        with tenant_scope(self.tenant.id):
            return sessions.open(key, subject_id=self.subject.id, agent=policy_of, actor=self.agent)

    def say(self, session: Session, new: Sequence[NewMessage]) -> None:
        with tenant_scope(self.tenant.id):
            messages.append(session.id, new, actor=self.agent)

    def undo(self, session: Session, last_n: int) -> None:
        with tenant_scope(self.tenant.id):
            version = session_reads.get(session.id).version
            messages.undo(session.id, last_n=last_n, expected_version=version, reason="", actor=self.agent)

    def close(self, session: Session) -> None:
        with tenant_scope(self.tenant.id):
            sessions.close(session.id, actor=self.agent)

    def summarise(self, for_s: float = 60.0) -> int:
        return summaries.summarise_due(self.tenant.id, until_s=time.monotonic() + for_s)

    def running(self, session: Session) -> reads.OpenedSummary | None:
        with tenant_scope(self.tenant.id):
            return reads.running(session.id)

    def parts(self, session: Session, level: str = "segment") -> list[reads.OpenedSummary]:
        with tenant_scope(self.tenant.id):
            return reads.parts(session.id, level)

    def policy(self, alice: Actor, **fields: object) -> None:
        with tenant_scope(self.tenant.id):
            policies.set_for_agent("desk", fields, actor=alice)


@pytest.fixture
def desk(committed_db: None, tenant: Tenant, subject: Subject, agent: Actor, alice: Actor) -> Desk:
    made = Desk(tenant, subject, agent)
    made.policy(alice, summarise_at_messages=10, summary_tokens=200)
    return made


def test_a_segment_is_told_when_its_messages_are_there_and_not_before(desk: Desk) -> None:
    session = desk.open()
    desk.say(session, talk(9))
    assert desk.summarise() == 0 and desk.running(session) is None
    desk.say(session, talk(1, start=10))
    assert desk.summarise() == 1 and desk.summarise() == 0
    running = desk.running(session)
    assert running is not None and running.from_seq == 1 and running.to_seq in (8, 9, 10)
    with tenant_scope(desk.tenant.id):
        assert session_reads.get(session.id).summarised_seq == running.to_seq


def test_segments_turns_and_the_session_cover_every_message_once(desk: Desk) -> None:
    session = desk.open()
    desk.say(session, talk(57))
    desk.close(session)
    desk.summarise()
    for level in ("turn", "segment"):
        covered = [seq for part in desk.parts(session, level) for seq in range(part.from_seq, part.to_seq + 1)]
        assert covered == list(range(1, 58)), level
    running = desk.running(session)
    assert running is not None and (running.from_seq, running.to_seq) == (1, 57)


def test_what_was_decided_is_kept_word_for_word(desk: Desk, alice: Actor) -> None:
    desk.policy(alice, summarise_at_messages=10, summary_tokens=800)
    session = desk.open()
    decision = NewMessage("user", "We ship invoice 2291 on the 3rd.\nNot before!", author="Ada", importance="decision")
    promise = NewMessage("assistant", "I will call Bert tomorrow.", importance="commitment")
    desk.say(session, [*talk(4), decision, *talk(6, start=8), promise, *talk(30, start=15)])
    desk.close(session)
    desk.summarise()
    running = desk.running(session)
    assert running is not None
    lines = folding.lines_of(running.text)
    assert "[decision] Ada: We ship invoice 2291 on the 3rd.\n  Not before!" in lines
    assert "[commitment] assistant: I will call Bert tomorrow." in lines


def test_more_decisions_than_fit_leave_the_newest_whole_and_the_bound_kept(desk: Desk) -> None:
    session = desk.open()
    desk.say(
        session,
        [
            NewMessage("user", f"We decide number {n}: {TOPICS[n % 5]} it is.", importance="decision")
            for n in range(100)
        ],
    )
    desk.close(session)
    desk.summarise()
    running = desk.running(session)
    assert running is not None and running.tokens <= 200
    assert "[decision] user: We decide number 99: invoice 2291 it is." in running.text


def test_a_running_summary_stays_bounded_however_long_the_session(desk: Desk) -> None:
    session = desk.open()
    for start in range(1, 400, 100):
        desk.say(session, talk(100, start=start))
    desk.summarise()
    running = desk.running(session)
    assert running is not None and running.tokens <= 200 and running.to_seq >= 380


def test_a_summary_is_the_same_however_the_rounds_were_cut(desk: Desk) -> None:
    at_once, in_steps = desk.open("a"), desk.open("b")
    desk.say(at_once, talk(60))
    for start in range(1, 61, 5):
        desk.say(in_steps, talk(5, start=start))
        desk.summarise()
    desk.summarise()
    first, second = desk.running(at_once), desk.running(in_steps)
    assert first is not None and second is not None and first.text == second.text
    assert [part.text for part in desk.parts(at_once)] == [part.text for part in desk.parts(in_steps)]


def same(desk: Desk, one: Session, other: Session) -> bool:
    desk.close(one)
    desk.close(other)
    desk.summarise()
    first, second = desk.running(one), desk.running(other)
    assert first is not None and second is not None
    return first.text == second.text


def test_an_undo_makes_summaries_again_as_if_nothing_had_been_said(desk: Desk) -> None:
    undone, plain = desk.open("undone"), desk.open("plain")
    desk.say(undone, talk(50))
    desk.summarise()
    before = desk.running(undone)
    desk.undo(undone, 26)
    after = desk.running(undone)
    assert before is not None and after is not None and after.to_seq <= 24 < before.to_seq
    with tenant_scope(desk.tenant.id):
        assert Summary.objects.get(id=before.id).stale
    desk.say(plain, talk(24))
    assert same(desk, undone, plain)


def test_an_undo_before_any_summary_and_of_everything(desk: Desk) -> None:
    session = desk.open()
    desk.say(session, talk(12))
    desk.summarise()
    desk.undo(session, 12)
    assert desk.running(session) is None and desk.parts(session) == [] == desk.parts(session, "turn")
    desk.close(session)
    desk.summarise()
    assert desk.running(session) is None
    with tenant_scope(desk.tenant.id):
        row = session_reads.get(session.id)
    assert row.summarised_seq == row.last_seq, "nothing is left to look at"


def test_an_undo_does_not_bring_back_what_an_earlier_undo_took(desk: Desk) -> None:
    twice, plain = desk.open("twice"), desk.open("plain")
    desk.say(twice, talk(30))
    desk.summarise()
    desk.undo(twice, 15)
    desk.say(twice, talk(20, start=100))
    desk.summarise()
    desk.undo(twice, 12)
    desk.say(plain, [*talk(15), *talk(8, start=100)])
    assert same(desk, twice, plain)
    running = desk.running(twice)
    assert running is not None and "Message 20 " not in running.text and "Message 110 " not in running.text


def test_an_undo_of_what_was_not_summarised_leaves_summaries_alone(desk: Desk) -> None:
    session = desk.open()
    desk.say(session, talk(14))
    desk.summarise()
    before = desk.running(session)
    desk.undo(session, 2)
    assert desk.running(session) == before


def test_a_subject_is_told_from_its_sessions(desk: Desk) -> None:
    for key in ("a", "b"):
        session = desk.open(key)
        desk.say(session, [NewMessage("user", f"We decided on plan {key}.", importance="decision"), *talk(15)])
        desk.close(session)
    desk.summarise()
    with tenant_scope(desk.tenant.id):
        told = reads.of_subject(desk.subject.id)
    assert told is not None and "plan a" in told.text and "plan b" in told.text
    assert len(told.source_ids) == 2


def test_an_undo_reaches_the_subjects_summary(desk: Desk) -> None:
    session = desk.open()
    desk.say(session, talk(12))
    desk.close(session)
    desk.summarise()
    again = desk.open()
    desk.undo(again, 12)
    with tenant_scope(desk.tenant.id):
        assert reads.of_subject(desk.subject.id) is None


def test_nothing_of_a_summary_lies_open(desk: Desk) -> None:
    session = desk.open()
    desk.say(session, talk(20))
    desk.summarise()
    with tenant_scope(desk.tenant.id):
        assert all(b"Message" not in bytes(row.text) for row in Summary.objects.all()) and Summary.objects.exists()


def test_a_round_that_runs_out_of_time_goes_on_where_it_was(desk: Desk) -> None:
    every = [desk.open(f"s{number}") for number in range(5)]
    for session in every:
        desk.say(session, talk(20))
    rounds = [summaries.summarise_due(desk.tenant.id, until_s=time.monotonic() + 0.03) for _ in range(40)]
    assert sum(rounds) + desk.summarise() == 10
    assert all(desk.running(session) is not None for session in every)
    with tenant_scope(desk.tenant.id):
        assert [row.name for row in upkeep.standing()] == [summaries.NAME]


def test_sessions_that_are_not_due_hide_nobody_behind_them(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "LOOKED_MAX", 2)
    monkeypatch.setattr(summaries, "BATCH_SESSIONS", 1)
    for number in range(5):
        desk.say(desk.open(f"short{number}"), talk(5))
    long = [desk.open(f"long{number}") for number in range(3)]
    for session in long:
        desk.say(session, talk(10))
    assert desk.summarise() == 3 and all(desk.running(session) for session in long)


def test_two_rounds_at_once_tell_each_segment_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_take", lambda *_, **__: True)  # as without Redis
    for number in range(4):
        desk.say(desk.open(f"s{number}"), talk(40))
    start = threading.Barrier(3)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            start.wait(timeout=10)
            desk.summarise()
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    everyone = [threading.Thread(target=work) for _ in range(3)]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(timeout=60)
    assert not failed
    desk.summarise()
    with tenant_scope(desk.tenant.id):
        for level in ("turn", "segment"):
            ranges = list(Summary.objects.filter(level=level).values_list("session_id", "from_seq"))
            assert len(ranges) == len(set(ranges)) > 0
        assert Summary.objects.filter(level="session", stale=False).count() == 4


def test_a_second_round_leaves_the_first_alone(desk: Desk) -> None:
    desk.say(desk.open(), talk(20))
    with turns.taken(desk.tenant.id, summaries.NAME, for_s=5) as is_ours:
        assert is_ours
        assert desk.summarise() == 0
    assert desk.summarise() == 2


ALONE = """
import sys, time, django
django.setup()
from uuid import UUID
from memory.services import summaries
summaries.summarise_due(UUID(sys.argv[1]), until_s=time.monotonic() + 30)
"""


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("failpoint", ["memory.summarise.told", "memory.upkeep.worked"])
def test_killed_anywhere_it_goes_on_to_the_same_summaries(desk: Desk, failpoint: str, nth: int) -> None:
    killed, plain = desk.open("killed"), desk.open("plain")
    desk.say(killed, talk(60))
    environment = {**os.environ, "AGENTSTATE_FAILPOINTS": f"{failpoint}=kill@{nth}", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", ALONE, str(desk.tenant.id)]
    done = subprocess.run(command, env=environment, timeout=60, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    turns._end(f"as:{desk.tenant.id}:turn:{summaries.NAME}")  # its mark in Redis ends by itself
    desk.say(plain, talk(60))
    assert same(desk, killed, plain)
    with tenant_scope(desk.tenant.id):
        ranges = list(Summary.objects.filter(level="segment").values_list("session_id", "from_seq"))
    assert len(ranges) == len(set(ranges))


TEXTS = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300
).filter(lambda text: not text.isspace())


def opened(seq: int, role: str, text: str, importance: str) -> OpenedMessage:
    return OpenedMessage(
        id=UUID(int=seq),
        session_id=UUID(int=0),
        subject_id=UUID(int=0),
        seq=seq,
        role=role,
        author="",
        text=text,
        tokens=tokens.count(text),
        importance=importance,
        origin="said",
        outcome="",
        client_id=None,
        run_id=None,
        step_seq=None,
        sent_at=clock.now() - timedelta(seconds=1),
        undone_in=None,
    )


@given(
    said=st.lists(
        st.tuples(
            st.sampled_from(["user", "assistant", "tool"]), TEXTS, st.sampled_from(["routine", "decision", "fact"])
        ),
        min_size=1,
        max_size=12,
    ),
    tokens_max=st.integers(50, 300),
)
def test_no_summary_is_longer_than_its_source_or_its_bound(said: list[tuple[str, str, str]], tokens_max: int) -> None:
    every = [opened(seq, *one) for seq, one in enumerate(said, start=1)]
    source = tokens.count("\n".join(map(folding.spoken, every)))
    turns = [folding.turn(part) for part in folding.turns_of(every)]
    assert [m.seq for part in folding.turns_of(every) for m in part] == [m.seq for m in every]
    segment = folding.segment(every, tokens_max=tokens_max, by="extractive")
    running = folding.session(None, segment, tokens_max=tokens_max, by="extractive")
    assert all(tokens.count(told.text) == told.tokens for told in [*turns, segment, running])
    assert all(turn.tokens <= folding.TURN_TOKENS_MAX for turn in turns)
    assert running.tokens <= segment.tokens <= min(source, tokens_max)
    assert folding.segment(every, tokens_max=tokens_max, by="extractive") == segment


def test_a_session_without_an_id_has_no_summary(scope: None) -> None:
    assert reads.running(new_id()) is None and reads.of_subject(new_id()) is None
