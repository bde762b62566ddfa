"""The window of the scratchpad on every store: folded as it was recorded, with its budget, whatever dies in between."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest

import agentstate as st
from agentstate.core.errors import Invalid
from agentstate.core.limits import CONTEXT_BUDGET_TOKENS, CONTEXT_BUDGET_TOKENS_MAX
from agentstate.sdk.store import Continue, Entry, Park, StepFinish, StepStart
from agentstate.sdk.window import SUMMARISE
from agentstate.testing import run_agent
from tests.conformance.turns import SPEC, WORKER, Bench
from tests.conformance.worlds import World

LONG = "The whole of the result, word for word. " * 20


def noted(bench: Bench) -> Any:
    """A claim whose durable entries are a note, a result, an important note and a thought."""
    claim = bench.admit()
    entries = [
        Entry(1, "note", "began", identity="#1"),
        Entry(2, "result", LONG, step_seq=7),
        Entry(3, "note", "never forget", important=True, identity="#2"),
        Entry(4, "reasoning", "so it goes on", identity="gather#1.2#1"),
    ]
    bench.turn(claim, entries=entries)
    return claim


def summary(n: int = 5, **more: Any) -> Entry:
    return Entry(n, "summary", "Summary of entries 1 to 4:\nit goes on", place=1, replaces=[1, 4], masks=[2], **more)


def summarised(n: int = 5) -> StepStart:
    result = StepFinish(0, output={"entry": n, "replaced": [1, 4], "masked": [2]})
    return StepStart(f"{SUMMARISE}:{n}", SUMMARISE, "summary", attempt=1, result=result)


def test_a_summary_stands_where_it_replaces_and_masks_leave_a_line(bench: Bench) -> None:
    claim = noted(bench)
    bench.turn(claim, entries=[summary(), Entry(6, "note", "later")], start=[summarised()])
    taken = bench.retake(claim)
    assert [entry.n for entry in taken.entries] == [5, 2, 3, 6]
    assert [entry.text for entry in taken.entries][2] == "never forget"
    masked = taken.entries[1]
    assert (masked.masked, masked.important, taken.entry_next) == (True, False, 7)
    assert masked.text.startswith("result of step 7, ")
    assert "masked: The whole of the result" in masked.text
    assert masked.tokens < 60
    again = bench.retake(taken)
    assert [(entry.n, entry.text) for entry in again.entries] == [(entry.n, entry.text) for entry in taken.entries]


def test_a_turn_with_a_summary_sent_twice_is_one(bench: Bench) -> None:
    claim = noted(bench)
    for _ in range(2):
        bench.turn(claim, entries=[summary()], start=[summarised()])
    taken = bench.retake(claim)
    assert [entry.n for entry in taken.entries] == [5, 2, 3]
    assert [record.name for record in taken.history] == [SUMMARISE]


def test_a_summary_of_summaries(bench: Bench) -> None:
    claim = noted(bench)
    bench.turn(claim, entries=[summary()], start=[summarised()])
    second = Entry(6, "summary", "Summary of entries 1 to 5:\nall in all", place=1, replaces=[5, 2])
    bench.turn(claim, entries=[second], start=[summarised(6)])
    assert [(entry.n, entry.text[-10:]) for entry in bench.retake(claim).entries] == [
        (6, "all in all"),
        (3, "ver forget"),
    ]


def test_an_entry_that_only_masks_says_nothing_of_its_own(bench: Bench) -> None:
    claim = noted(bench)
    bench.turn(claim, entries=[Entry(5, "summary", "1 result masked", masks=[2])], start=[summarised()])
    taken = bench.retake(claim)
    assert [(entry.n, entry.masked) for entry in taken.entries] == [(1, False), (2, True), (3, False), (4, False)]
    assert taken.entry_next == 6


def test_what_main_has_written_is_counted_per_scope_until_the_generation_ends(bench: Bench) -> None:
    claim = noted(bench)
    bench.turn(claim, entries=[summary()], start=[summarised()])
    taken = bench.retake(claim)
    assert dict(taken.noted) == {"": 2, "gather#1.2": 1}
    bench.turn(taken, then=Continue({"at": 2}))
    later = bench.retake(taken)
    assert dict(later.noted) == {}
    assert [entry.n for entry in later.entries] == [5, 2, 3]


def test_a_summary_is_recorded_with_its_step_even_when_nothing_new_may_begin(bench: Bench) -> None:
    claim = noted(bench)
    bench.world.pause(claim.run_id)
    wanted = [summarised(), StepStart("look#1", "look", attempt=1)]
    reply = bench.turn(claim, entries=[summary()], start=wanted)
    assert reply.control == "pause"
    assert [begun.action for begun in reply.begun] == ["replay"]
    bench.turn(claim, then=Park("pause"))
    bench.world.resume(claim.run_id)
    taken = bench.take(claim.run_id)
    assert [record.name for record in taken.history] == [SUMMARISE]
    assert [entry.n for entry in taken.entries] == [5, 2, 3]


def test_the_budget_is_the_runs_else_the_agents_else_the_default(bench: Bench) -> None:
    store = bench.store
    assert bench.admit().context_budget_tokens == CONTEXT_BUDGET_TOKENS
    assert bench.admit(context_budget_tokens=5_000).context_budget_tokens == 5_000
    spec = replace(SPEC, context_budget_tokens=9_000)
    store.register(spec)
    for own, expected in ((None, 9_000), (700, 700)):
        run_id = store.admit(SPEC.name, {}, context_budget_tokens=own).run_id
        claim = store.claim(WORKER, agents={SPEC.name: spec}, run_id=run_id)
        assert claim is not None and claim.context_budget_tokens == expected


@pytest.mark.parametrize("tokens", [0, -1, CONTEXT_BUDGET_TOKENS_MAX + 1])
def test_a_budget_that_nobody_can_mean_is_refused(bench: Bench, tokens: int) -> None:
    with pytest.raises(Invalid) as refusal:
        bench.store.admit(SPEC.name, {}, context_budget_tokens=tokens)
    assert refusal.value.field == "/context_budget_tokens"


@st.step
def fetch(number: int) -> int:
    st.note(f"Page {number} was fetched.\n" + f"line of page {number} " * 60, kind="result")
    return number


@st.agent("conformance-pad", context_budget_tokens=1_500)
def reader(pages: int) -> list[str]:
    seen = []
    st.note("The goal is page 4711.", important=True)
    for number in range(pages):
        st.note(f"Next comes page {number}.", kind="reasoning")
        fetch(number)
    seen.append(str(st.scratchpad()))
    st.gather(*[functools.partial(fetch, pages + number) for number in range(4)])
    st.sleep("2h")
    return [*seen, str(st.scratchpad())]


@pytest.mark.parametrize("suspend_always", [False, True])
def test_an_agent_is_summarised_alike_on_every_store(world: World, suspend_always: bool) -> None:
    """One claim per step or one for all of them: each note once, the important one whole, all inside the budget."""
    info = run_agent(reader, {"pages": 12}, store=world.store, controls=world, suspend_always=suspend_always)
    assert info.status == "succeeded", info.failure
    for pad in info.output:
        assert "The goal is page 4711." in pad
        assert "masked: Page" in pad
        assert "Next comes page 11." in pad
        assert pad.count("Next comes page 11.") == 1


def test_a_model_summarises_on_every_store(world: World) -> None:
    asked: list[int] = []

    def summarise(text: str, tokens_max: int) -> str:
        asked.append(tokens_max)
        st.usage(model="small-1", tokens_in=100, tokens_out=10, cost=0.001)
        return "In short: nothing."

    @st.agent("conformance-pad-model", context_budget_tokens=1_500, summarise=summarise)
    async def main(thoughts: int) -> str:
        for number in range(thoughts):
            st.note(f"Thought {number}: " + "and so it went on and on. " * 20, kind="reasoning")
            await st.sleep(0)
        return str(st.scratchpad())

    info = run_agent(main, {"thoughts": 14}, store=world.store, controls=world)
    assert info.status == "succeeded", info.failure
    assert asked
    assert "In short: nothing." in info.output
