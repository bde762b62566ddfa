"""The scratchpad stays inside its budget, keeps what is important, loses nothing, and is summarised once."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import agentstate as st
from agentstate.core import tokens
from agentstate.core.limits import SCRATCHPAD_BYTES_MAX, SCRATCHPAD_ENTRIES_MAX, SUMMARISE_AT_SHARE, SUMMARISE_TO_SHARE
from agentstate.sdk import summaries, window
from agentstate.sdk.notes import Notebook
from agentstate.sdk.store import Claim, Entry
from agentstate.testing import Crashing, Killed, MemoryStore, Row, drive_once, run_agent

BUDGET = 2_000
WORDS = [f"word{number}" for number in range(500)]
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()


def verbose(number: int, words: int = 120) -> str:
    """About 330 tokens, and one line that says what it is."""
    return f"Search {number} answered.\n" + " ".join(random.Random(number).choices(WORDS, k=words))


@st.step
def search(number: int) -> int:
    st.note(verbose(number), kind="result")
    return number


@st.tool(effect="destructive")
def pay(number: int) -> int:
    for part in range(12):
        st.note(verbose(number * 100 + part), kind="result")
    CALLS.append("paid")
    return number


def summaries_of(store: MemoryStore, run_id: str) -> list[Row]:
    return [row for row in store.runs[run_id].all_rows() if row.kind == "summary"]


def refolded(store: MemoryStore, run_id: str) -> list[Entry]:
    """The window as the whole trace gives it."""
    return window.folded([], store.runs[run_id].entries)


@pytest.fixture
def peak(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(tokens of the window, tokens of the entry) after every change of a window."""
    seen: list[tuple[int, int]] = []
    fold = Notebook._fold

    def watched(self: Notebook, entry: Entry) -> None:
        fold(self, entry)
        assert self._size == window.size_of(*self._window)
        seen.append((self._size.tokens, entry.tokens))

    monkeypatch.setattr(Notebook, "_fold", watched)
    return seen


@st.agent("pad-long", context_budget_tokens=BUDGET, tools=[search])
def long_run(searches: int) -> str:
    for number in range(searches):
        st.note(f"Next is {number}, because {number * 3} was found.", kind="reasoning", important=number % 100 == 7)
        search(number)
    return str(st.scratchpad())


@pytest.mark.filterwarnings("ignore:.*steps in one generation")
def test_two_thousand_verbose_steps_stay_in_the_budget(peak: list[tuple[int, int]]) -> None:
    store = MemoryStore()
    info = run_agent(long_run, {"searches": 1_999}, store=store)  # the read of the scratchpad is a step as well
    assert info.status == "succeeded", info.failure
    run = store.runs[info.run_id]
    assert max(size - entry for size, entry in peak) <= BUDGET
    assert len([entry for entry in run.entries if entry.kind == "result"]) == 1_999
    assert [entry.n for entry in run.entries] == list(range(1, len(run.entries) + 1))
    assert run.window == refolded(store, info.run_id)
    important = [entry for entry in run.entries if entry.important]
    assert len(important) == 20
    assert len(summaries_of(store, info.run_id)) > 100  # and none of them counts as one of the two thousand
    assert [entry for entry in run.window if entry.important] == important
    assert all(entry.text in str(info.output) for entry in important)


def test_masks_come_first_and_the_newest_stays(peak: list[tuple[int, int]]) -> None:
    store = MemoryStore()
    info = run_agent(long_run, {"searches": 7}, store=store)
    [row] = summaries_of(store, info.run_id)
    assert row.output["method"] == "extract"
    assert row.output["masked"]
    assert row.output["replaced"] == []
    assert row.output["tokens_before"] > SUMMARISE_AT_SHARE * BUDGET
    assert row.output["tokens_after"] <= SUMMARISE_TO_SHARE * BUDGET
    run = store.runs[info.run_id]
    lines = [entry for entry in run.window if entry.masked]
    assert [entry.n for entry in lines] == row.output["masked"]
    assert all("masked: Search" in entry.text and entry.tokens < 60 for entry in lines)
    assert not run.window[-1].masked
    full = {entry.n: entry.text for entry in run.entries}
    assert all(full[entry.n].startswith("Search") and len(full[entry.n]) > 500 for entry in lines)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_turn_the_window_is_the_same_and_nothing_is_summarised_twice(when: Any) -> None:
    whole = MemoryStore()
    straight = run_agent(long_run, {"searches": 12}, store=whole)
    turns = whole.turns
    for at in range(1, turns + 1):
        store = Crashing(MemoryStore(), at=at, when=when)
        info = run_agent(long_run, {"searches": 12}, store=store)
        run = store.store.runs[info.run_id]
        assert info.status == "succeeded", (at, info.failure)
        assert run.window == refolded(store.store, info.run_id), at
        entries = [row.output["entry"] for row in summaries_of(store.store, info.run_id)]
        summed = [entry.n for entry in run.entries if entry.kind == "summary"]
        assert sorted(entries) == summed, at  # each summary has its step, each step its summary
        replaced = [n for entry in run.entries for n in entry.replaces]
        assert len(replaced) == len(set(replaced)), at
        reasoning = [entry.text for entry in run.entries if entry.kind == "reasoning"]
        assert reasoning == list(dict.fromkeys(reasoning)), at
    assert straight.status == "succeeded"


def test_one_claim_per_step_gives_the_same_scratchpad() -> None:
    found = []
    for suspend_always in (False, True):
        store = MemoryStore()
        info = run_agent(long_run, {"searches": 12}, store=store, suspend_always=suspend_always)
        found.append([(entry.n, entry.kind, entry.text) for entry in store.runs[info.run_id].entries])
    assert [text for _, kind, text in found[0] if kind != "summary"] == [
        text for _, kind, text in found[1] if kind != "summary"
    ]


def test_inside_an_effect_it_waits_until_the_body_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened = []
    shorten = Notebook.shorten

    def watched(self: Notebook, **more: Any) -> None:
        shortened.append(list(CALLS))
        shorten(self, **more)

    monkeypatch.setattr(Notebook, "shorten", watched)

    @st.agent("pad-effect", context_budget_tokens=BUDGET, tools=[pay])
    def main() -> str:
        pay(1)
        return str(st.scratchpad())

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert shortened == [["paid"]]
    assert tokens.count(info.output) <= BUDGET
    assert len(summaries_of(store, info.run_id)) == 1
    assert [row.kind for row in store.steps(info.run_id)].index("summary") == 1


def test_notes_of_a_gather_are_all_kept_and_numbered(peak: list[tuple[int, int]]) -> None:
    def branch(name: str) -> None:
        for number in range(40):
            st.note(f"{name} {number} " + "x y z " * 20)

    @st.agent("pad-gather", context_budget_tokens=BUDGET)
    def main() -> None:
        st.gather(*[functools.partial(branch, name) for name in "abcdefgh"])

    store = MemoryStore()
    info = run_agent(main, store=store)
    run = store.runs[info.run_id]
    said = [entry.text.split()[:2] for entry in run.entries if entry.kind == "note"]
    assert sorted(said) == sorted([name, str(number)] for name in "abcdefgh" for number in range(40))
    assert [entry.n for entry in run.entries] == list(range(1, len(run.entries) + 1))
    assert run.window == refolded(store, info.run_id)
    assert max(size - entry for size, entry in peak) <= BUDGET


def test_an_async_agent_is_summarised_too() -> None:
    async def summarise(text: str, tokens_max: int) -> str:
        await asyncio.sleep(0)
        CALLS.append("asked")
        st.usage(model="small-1", tokens_in=900, tokens_out=20, cost=0.002)
        return "What was found so far is of no use."

    @st.step
    async def think(number: int) -> int:
        st.note(f"Thought {number}: " + verbose(number), kind="reasoning")
        return number

    @st.agent("pad-async", context_budget_tokens=BUDGET, summarise=summarise)
    async def main() -> str:
        for number in range(12):
            await think(number)
        await st.gather(think(100), think(101), think(102))
        return str(st.scratchpad())

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.status == "succeeded", info.failure
    rows = summaries_of(store, info.run_id)
    by_model = [row for row in rows if row.output["method"] == "model"]
    assert len(by_model) == len(CALLS) > 0
    assert store.runs[info.run_id].cost == pytest.approx(0.002 * len(CALLS))
    assert "What was found so far" in info.output
    assert store.runs[info.run_id].window == refolded(store, info.run_id)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda text, most: "much longer " * 4_000, "tokens for"),
        (lambda text, most: "", "answered nothing"),
        (lambda text, most: None, "answered nothing"),
        (lambda text, most: 1 / 0, "ZeroDivisionError"),
        (lambda text, most: search(1), "is a leaf"),
    ],
)
def test_a_model_that_fails_is_replaced_by_extracts_and_that_is_said(answer: Any, why: str) -> None:
    @st.agent("pad-failing", context_budget_tokens=BUDGET, summarise=answer)
    def main() -> str:
        for number in range(8):
            st.note(f"Thought {number}: " + verbose(number), kind="reasoning")
        return str(st.scratchpad())

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.status == "succeeded", info.failure
    rows = summaries_of(store, info.run_id)
    assert rows
    assert all(row.output["method"] == "extract" and why in row.output["why"] for row in rows)
    assert tokens.count(info.output) <= BUDGET


def test_a_summary_that_is_too_long_is_shortened() -> None:
    @st.agent("pad-wordy", context_budget_tokens=BUDGET, summarise=lambda text, most: text[: len(text) * 9 // 10])
    def main() -> None:
        for number in range(8):
            st.note(f"Thought {number}: " + verbose(number), kind="reasoning")

    store = MemoryStore()
    info = run_agent(main, store=store)
    row = summaries_of(store, info.run_id)[0]
    assert (row.output["method"], "were shortened" in row.output["why"]) == ("model", True)
    assert row.output["tokens_after"] <= SUMMARISE_TO_SHARE * BUDGET + 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_the_model_its_answer_is_recorded_once(when: Any) -> None:
    def summarise(text: str, tokens_max: int) -> str:
        CALLS.append("asked")
        return f"Answer {len(CALLS)}."

    @st.agent("pad-model", context_budget_tokens=BUDGET, summarise=summarise, tools=[search])
    def main() -> str:
        for number in range(7):
            st.note(f"Thought {number}: " + verbose(number), kind="reasoning")
            search(number)
        return str(st.scratchpad())

    whole = MemoryStore()
    run_agent(main, store=whole)
    for at in range(1, whole.turns + 1):
        CALLS.clear()
        store = Crashing(MemoryStore(), at=at, when=when)
        info = run_agent(main, store=store)
        assert info.status == "succeeded", (at, info.failure)
        run = store.store.runs[info.run_id]
        rows = summaries_of(store.store, info.run_id)
        assert {row.status for row in rows} == {"done"}, at
        assert run.window == refolded(store.store, info.run_id), at
        entries = [row.output["entry"] for row in rows if "entry" in row.output]
        assert sorted(entries) == [entry.n for entry in run.entries if entry.kind == "summary"], at
        assert len(CALLS) <= len(rows) + 1, at


def test_killed_inside_the_model_the_summary_is_made_by_the_next() -> None:
    def summarise(text: str, tokens_max: int) -> str:
        CALLS.append("asked")
        if len(CALLS) == 1:
            raise Killed
        return "Short."

    @st.agent("pad-killed", context_budget_tokens=BUDGET, summarise=summarise)
    def main() -> None:
        for number in range(8):
            st.note(f"Thought {number}: " + verbose(number), kind="reasoning")

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.status == "succeeded", info.failure
    row = summaries_of(store, info.run_id)[0]
    assert (row.status, row.attempt, row.output["method"]) == ("done", 2, "model")


def test_important_entries_over_the_budget_stay_word_for_word_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @st.agent("pad-important", context_budget_tokens=BUDGET)
    def main() -> None:
        for number in range(12):
            st.note(verbose(number), kind="result", important=True)
        for number in range(100):
            st.note(f"Small thing {number}, of no weight.")

    store = MemoryStore()
    with caplog.at_level(logging.WARNING, logger="agentstate.sdk"):
        info = run_agent(main, store=store)
    kept = [entry.text for entry in store.runs[info.run_id].window if entry.important]
    assert kept == [verbose(number) for number in range(12)]
    assert len([record for record in caplog.records if "word for word" in record.getMessage()]) == 1
    assert len(summaries_of(store, info.run_id)) < 20  # one per tenth of the budget, not one per note


def test_a_budget_smaller_than_one_entry() -> None:
    @st.agent("pad-tiny", context_budget_tokens=20)
    def main() -> str:
        for number in range(30):
            st.note(verbose(number), kind="result")
        return str(st.scratchpad())

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.status == "succeeded", info.failure
    run = store.runs[info.run_id]
    assert sum(entry.tokens for entry in run.window) <= 20 + 40
    assert len([entry for entry in run.entries if entry.kind == "result"]) == 30
    assert len(summaries_of(store, info.run_id)) <= 30


def test_the_budget_of_the_run_counts_before_the_agents_and_may_change_between_claims() -> None:
    store = MemoryStore()
    store.register(long_run.spec())
    run_id = store.admit("pad-long", {"searches": 12}, context_budget_tokens=100_000).run_id
    store.runs[run_id].fence = 0
    info = run_agent(long_run, run_id=run_id, store=Crashing(store, at=10), controls=store)
    assert not summaries_of(store, info.run_id)
    smaller = store.admit("pad-long", {"searches": 12}, context_budget_tokens=100_000).run_id
    crashing = Crashing(store, at=10)
    with pytest.raises(Killed):
        drive_once(long_run, smaller, store=crashing)
    store.runs[smaller].context_budget_tokens = 600
    store.expire_lease(smaller)
    info = run_agent(long_run, run_id=smaller, store=store)
    assert info.status == "succeeded", info.failure
    assert sum(entry.tokens for entry in store.runs[smaller].window) <= 600
    assert summaries_of(store, smaller)[0].output["budget_tokens"] == 600


def test_a_snapshot_agent_counts_its_notes_anew_in_each_generation() -> None:
    @st.agent("pad-snapshot", mode="snapshot", context_budget_tokens=BUDGET, tools=[search])
    def main(state: dict[str, int]) -> Any:
        st.note(f"turn {state['at']}")
        search(state["at"])
        st.note(f"after {state['at']}")
        return st.Done(str(st.scratchpad())) if state["at"] == 14 else {"at": state["at"] + 1}

    for suspend_always in (False, True):
        store = MemoryStore()
        info = run_agent(main, {"at": 0}, store=store, suspend_always=suspend_always)
        assert info.status == "succeeded", info.failure
        run = store.runs[info.run_id]
        said = [entry.text for entry in run.entries if entry.kind == "note"]
        assert said == [f"{word} {number}" for number in range(15) for word in ("turn", "after")]
        assert run.window == refolded(store, info.run_id)
        assert len(summaries_of(store, info.run_id)) > 1


def test_what_an_agent_reads_of_its_scratchpad_is_the_same_in_every_replay() -> None:
    seen: list[str] = []

    @st.agent("pad-read", context_budget_tokens=BUDGET, tools=[search])
    def main() -> None:
        for number in range(6):
            search(number)
            pad = st.scratchpad()
            seen.append(str(pad))
            assert pad.tokens <= pad.budget_tokens == BUDGET
        st.sleep(60)

    store = MemoryStore()
    run_agent(main, store=store, suspend_always=True)
    assert len(seen) > 6
    assert len(set(seen)) == 6


def test_a_pause_does_not_part_a_summary_from_its_step() -> None:
    store = MemoryStore()

    @st.agent("pad-paused", context_budget_tokens=BUDGET, tools=[search])
    def main() -> None:
        for number in range(6):
            if number == 4 and not CALLS:
                CALLS.append("paused")
                store.pause(next(iter(store.runs)))
            search(number)

    info = run_agent(main, store=store)
    assert info.status == "paused"
    store.resume(info.run_id)
    info = run_agent(main, run_id=info.run_id, store=store)
    assert info.status == "succeeded", info.failure
    run = store.runs[info.run_id]
    entries = [row.output["entry"] for row in summaries_of(store, info.run_id)]
    assert entries == [entry.n for entry in run.entries if entry.kind == "summary"]


entries = some.builds(
    lambda kind, text, important: (kind, text, important),
    some.sampled_from(["note", "result", "tool", "reasoning", "model"]),
    some.text(max_size=400) | some.just("row of words " * 80),
    some.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(wanted=some.lists(entries, min_size=1, max_size=60), budget=some.integers(1, 1_500))
def test_whatever_is_noted_the_plan_keeps_its_promises(wanted: list[Any], budget: int) -> None:
    noted = [window.counted(Entry(n + 1, kind, text, important=imp)) for n, (kind, text, imp) in enumerate(wanted)]
    before = window.folded([], noted)
    plan = summaries.plan(before, budget_tokens=budget)
    touched = {entry.n for entry in (*plan.masks, *plan.replaces)}
    assert not touched & {entry.n for entry in before if entry.important}
    assert not {entry.n for entry in plan.masks} & {entry.n for entry in plan.replaces}
    if not plan:
        return
    entry = window.counted(summaries.entry_of(plan, len(noted) + 1, summaries.extracted(plan)))
    after = window.folded(before, [entry])
    assert window.folded(after, [entry]) == after
    assert window.folded([], [*noted, entry]) == after
    assert window.size_of(*after).share(budget) < window.size_of(*before).share(budget)
    assert [each for each in after if each.important] == [each for each in before if each.important]


def test_what_nobody_summarises_leaves_the_window_and_not_the_important() -> None:
    claim = Claim("run_1", "a", 1, 5.0)
    many = [Entry(n, "note", "x" * 1_000, important=n <= 5) for n in range(1, 2_000)]
    found = window.folded(claim.entries, many)
    size = window.size_of(*found)
    assert size.entries <= SCRATCHPAD_ENTRIES_MAX
    assert size.bytes <= SCRATCHPAD_BYTES_MAX
    assert [entry.n for entry in found[:5]] == [1, 2, 3, 4, 5]
    assert found[-1].n == 1_999
