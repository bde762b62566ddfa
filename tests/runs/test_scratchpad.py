"""The scratchpad on Postgres and Valkey: inside its budget at every moment, in the trace, reduced after a loss."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

import agentstate as st
from agentstate.core.failpoints import FailpointReached, armed
from agentstate.core.ids import parse_id
from agentstate.sdk.store import Claim, End, Entry, Park, StepFinish, StepStart, Turn, TurnReply, Usage
from agentstate.sdk.window import SUMMARISE
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from agentstate.testing import drive_once, run_agent
from checkpoints import keys
from runs import scratchpad, sealing
from runs.engine import rehearsal
from runs.engine.store import LocalStore
from runs.models import Event, Step
from runs.selectors import budgets, pads, story
from tests.conformance.served import ServedWorld
from tests.runs.conftest import Desk

BUDGET = 2_000
WORDS = [f"word{number}" for number in range(500)]


def verbose(number: int) -> str:
    return f"Search {number} answered.\n" + " ".join(random.Random(number).choices(WORDS, k=100))


@st.step
def search(number: int) -> int:
    st.note(verbose(number), kind="result")
    return number


@st.agent("pad-served", context_budget_tokens=BUDGET, tools=[search])
def long_run(searches: int) -> str:
    for number in range(searches):
        st.note(f"Next is {number}.", kind="reasoning", important=number % 200 == 7)
        search(number)
    return str(st.scratchpad())


class Watched(LocalStore):
    """Looks at the run's windows after every turn, in the session and in Redis."""

    def __init__(self, actor: Actor, *, every: int) -> None:
        super().__init__(actor, lease_s=30.0, shared=True)
        self.every, self.turns, self.claims = every, 0, 0
        self.peak_tokens = self.peak_live_tokens = 0
        self.misfortune: Any = None

    def claim(self, *args: Any, **more: Any) -> Claim | None:
        found = super().claim(*args, **more)
        self.claims += found is not None
        return found

    def turn(self, claim: Claim, turn: Turn) -> TurnReply:
        reply = super().turn(claim, turn)
        self.turns += 1
        session = self.session_of(claim.run_id, claim.fence) if reply.status == "running" else None
        if session is not None:
            self.peak_tokens = max(self.peak_tokens, sum(item["tokens"] for item in session.window))
        if session is not None and self.turns % self.every == 0:
            live = scratchpad.read(session.tenant_id, session.run_id, session.key) or []
            durable = [item for item in live if item["n"] <= session.entry_seq]
            assert durable == session.window
            self.peak_live_tokens = max(self.peak_live_tokens, sum(item["tokens"] for item in live))
        if self.misfortune is not None:
            self.misfortune(self)
        return reply


def traced(actor: Actor, run_id: str) -> list[dict[str, Any]]:
    """All entries of a run, opened, in their order."""
    run, tenant_id = parse_id("run", run_id), actors.tenant_of(actor)
    with tenant_scope(tenant_id):
        key = keys.existing(run)
        events = Event.objects.filter(run_id=run, kind="entry").order_by("seq").values_list("detail", "body")
        return [
            sealing.open_entry(key, tenant_id, run, detail["n"], body) for detail, body in events if detail and body
        ]


def summaries(actor: Actor, run_id: str) -> int:
    with tenant_scope(actors.tenant_of(actor)):
        return Step.objects.filter(run_id=parse_id("run", run_id), kind="summary", status="done").count()


@pytest.mark.filterwarnings("ignore:.*steps in one generation")
def test_two_thousand_verbose_steps_stay_in_the_budget(alice: Actor, redis: Any) -> None:
    store = Watched(alice, every=25)
    info = run_agent(long_run, {"searches": 1_999}, store=store, controls=ServedWorld(alice, store))
    assert info.status == "succeeded", info.failure
    entries = traced(alice, info.run_id)
    one = max(entry["tokens"] for entry in entries)
    assert 0 < store.peak_tokens <= BUDGET + one
    assert 0 < store.peak_live_tokens <= BUDGET + one
    results = [entry["text"] for entry in entries if entry["kind"] == "result"]
    assert results == [verbose(number) for number in range(1_999)]
    assert [entry["n"] for entry in entries] == list(range(1, len(entries) + 1))
    important = [entry["text"] for entry in entries if entry["important"]]
    assert len(important) == 10
    assert all(text in str(info.output) for text in important)
    assert summaries(alice, info.run_id) == sum(entry["kind"] == "summary" for entry in entries) > 100


def test_redis_wiped_in_the_middle_has_the_reduced_window_again(alice: Actor, redis: Any) -> None:
    store = Watched(alice, every=1)

    def wipe(watched: Watched) -> None:
        if watched.turns % 7 == 0:
            redis.flushall()
            watched.turns += 1  # what Redis has is looked at after the next write only

    store.misfortune = wipe
    info = run_agent(long_run, {"searches": 60}, store=store, controls=ServedWorld(alice, store))
    assert info.status == "succeeded", info.failure
    entries = traced(alice, info.run_id)
    assert [entry["text"] for entry in entries if entry["kind"] == "result"] == [verbose(n) for n in range(60)]
    assert summaries(alice, info.run_id) == sum(entry["kind"] == "summary" for entry in entries) > 3


def test_one_claim_per_step_takes_the_reduced_window_over(alice: Actor, redis: Any) -> None:
    store = Watched(alice, every=1)
    world = ServedWorld(alice, store)
    info = run_agent(long_run, {"searches": 25}, store=store, controls=world, suspend_always=True)
    assert info.status == "succeeded", info.failure
    assert store.claims > 25
    entries = traced(alice, info.run_id)
    texts = [entry["text"] for entry in entries if entry["kind"] != "summary"]
    assert len(texts) == len(set(texts)) == 50
    replaced = [n for entry in entries for n in entry.get("replaces", [])]
    assert len(replaced) == len(set(replaced))
    assert summaries(alice, info.run_id) == sum(entry["kind"] == "summary" for entry in entries) > 1


def _summarised(desk: Desk, claim: Claim) -> list[Entry]:
    """Entries 1 to 3, and a summary of the first two with its step, all in one turn."""
    entries = [Entry(1, "note", "first"), Entry(2, "note", "second"), Entry(3, "note", "third", important=True)]
    desk.store.note(claim, entries)
    summary = Entry(4, "summary", "Summary of entries 1 to 2:\nboth", place=1, replaces=[1, 2])
    step = StepStart(f"{SUMMARISE}:4", SUMMARISE, "summary", attempt=1, result=StepFinish(0, output={"entry": 4}))
    desk.store.turn(claim, Turn(start=[step], entries=[*entries, summary]))
    return [*entries, summary]


def test_killed_after_the_commit_the_next_claim_writes_the_reduced_window_to_redis(desk: Desk, redis: Any) -> None:
    claim = desk.start()
    with pytest.raises(FailpointReached), armed("turn.scratchpad=raise"):
        _summarised(desk, claim)
    session = desk.store.session_of(claim.run_id, claim.fence)
    old = scratchpad.read(desk.tenant_id, session.run_id, session.key)
    assert old is not None and [item["n"] for item in old] == [1, 2, 3]
    taken = desk.retake(claim)
    assert [entry.n for entry in taken.entries] == [4, 3]
    live = scratchpad.read(desk.tenant_id, session.run_id, session.key)
    assert live is not None and [item["n"] for item in live] == [4, 3]
    assert [record.name for record in taken.history] == [SUMMARISE]


def test_what_was_only_shown_is_folded_at_the_takeover(desk: Desk) -> None:
    claim = desk.start()
    _summarised(desk, claim)
    desk.store.note(claim, [Entry(5, "note", "shown", identity="#7")])
    taken = desk.retake(claim)
    assert [entry.n for entry in taken.entries] == [4, 3, 5]
    assert dict(taken.noted) == {"": 7}
    again = desk.retake(taken)  # no frame has entry 5 yet; the trace has
    assert [entry.n for entry in again.entries] == [4, 3, 5]
    assert dict(again.noted) == {"": 7}


def test_a_rehearsal_sees_the_same_window_and_summarises_nothing(alice: Actor) -> None:
    asked: list[str] = []
    windows: list[str] = []

    def summarise(text: str, tokens_max: int) -> str:
        asked.append(text)
        return "In short: nothing."

    @st.agent("pad-rehearsed", context_budget_tokens=BUDGET, summarise=summarise, tools=[search])
    def main() -> None:
        for number in range(6):
            st.note(f"Thought {number}: " + verbose(number), kind="reasoning")
            search(number)
        windows.append(str(st.scratchpad()))
        st.sleep("2h")

    store = LocalStore(alice, lease_s=30.0, shared=True)
    store.register(main.spec())
    run_id = store.admit(main.name, {}).run_id
    drive_once(main, run_id, store=store)
    calls, before = len(asked), traced(alice, run_id)
    assert calls > 0
    found = rehearsal.rehearse(store.tenant_id, parse_id("run", run_id), main)
    assert found.problems == []
    assert len(asked) == calls
    assert traced(alice, run_id) == before
    assert len(set(windows)) == 1 < len(windows)


def test_an_entry_costs_one_command_and_no_statement_and_rides_for_nothing(desk: Desk, redis: Any) -> None:
    claim = desk.start()
    desk.begin(claim, "warm")

    def cost(act: Any) -> tuple[int, int]:
        """(SQL statements, Lua scripts)"""
        redis.config_resetstat()
        with CaptureQueriesContext(connection) as seen:
            act()
        return len(seen), redis.info("commandstats").get("cmdstat_eval", {}).get("calls", 0)

    assert cost(lambda: desk.store.note(claim, [Entry(1, "note", "shown")])) == (0, 1)
    many = [Entry(n, "note", f"shown {n}") for n in range(2, 12)]
    assert cost(lambda: desk.store.note(claim, many)) == (0, 1)
    bare = cost(lambda: desk.store.turn(claim, Turn(start=[StepStart("a#1", "a")])))
    carried = [Entry(1, "note", "shown"), *many]
    with_entries = cost(lambda: desk.store.turn(claim, Turn(start=[StepStart("b#1", "b")], entries=carried)))
    assert with_entries == (bare[0], bare[1] + 1)
    summary = Entry(12, "summary", "Summary of entries 1 to 3:\nshown", place=1, replaces=[1, 2, 3])
    with_summary = cost(lambda: desk.store.turn(claim, Turn(start=[StepStart("c#1", "c")], entries=[summary])))
    assert with_summary == with_entries


def test_the_budget_comes_from_run_agent_model_or_default(desk: Desk) -> None:
    def budget(claim: Claim) -> tuple[int, str]:
        with tenant_scope(desk.tenant_id):
            found = budgets.context(parse_id("run", claim.run_id))
        return found.tokens, found.source

    claim = desk.start()
    assert budget(claim) == (32_000, "default")
    seq = desk.begin(claim, "ask", kind="model").seq
    desk.finish(claim, seq, output=1, usage=Usage("gpt-4o", 1, 1, 0.0))
    assert budget(claim) == (128_000, "model")
    assert desk.retake(claim).context_budget_tokens == 128_000
    own = desk.start(context_budget_tokens=3_000)
    assert budget(own) == (3_000, "run")
    assert own.context_budget_tokens == 3_000


def test_two_thousand_steps_and_their_summaries_fit_into_a_generation(desk: Desk) -> None:
    claim = desk.start()
    session = desk.store.session_of(claim.run_id, claim.fence)
    desk.begin(claim, "first")
    for n in range(1, 30):
        step = StepStart(f"{SUMMARISE}:{n}", SUMMARISE, "summary", attempt=1, result=StepFinish(0, output={}))
        desk.store.turn(claim, Turn(start=[step]))
    assert session.steps_counted([]) == 29
    assert len(desk.retake(claim).history) == 30


def test_an_agent_that_never_summarises_is_bounded_all_the_same(desk: Desk) -> None:
    claim = desk.start()
    for at in range(0, 60, 10):
        entries = [Entry(n, "note", "x" * 9_000, important=n == 2) for n in range(at + 1, at + 11)]
        desk.store.turn(claim, Turn(entries=entries))
    window = desk.retake(claim).entries
    assert sum(len(entry.text) for entry in window) <= 256 * 1024
    assert (window[0].n, window[-1].n) == (2, 60)
    desk.store.turn(desk.retake(claim), Turn(then=Park("pause")))


def test_a_run_that_ended_keeps_its_last_window_in_the_checkpoint(desk: Desk, redis: Any) -> None:
    claim = desk.start()
    _summarised(desk, claim)
    desk.store.turn(claim, Turn(then=End("succeeded", output=None)))
    with tenant_scope(desk.tenant_id):
        pad = pads.read(story.find(claim.run_id))
    assert not pad.live
    assert [item["n"] for item in pad.entries] == [4, 3]
