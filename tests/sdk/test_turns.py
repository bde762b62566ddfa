"""What rides in which turn, and what becomes of a call that takes too long."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import Any, Literal

import pytest

import agentstate as st
from agentstate.testing import MemoryStore, drive_once, run_agent

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()


def driven(main: Any, store: MemoryStore | None = None, **options: Any) -> Any:
    store = store or MemoryStore()
    info = run_agent(main, store=store, **options)
    return info, store


# Turns


def test_plain_results_ride_in_the_next_turn_and_effects_commit_at_once() -> None:
    @st.step
    def look(n: int) -> int:
        return n

    @st.tool(effect="keyed", window=60)
    def post() -> str:
        return "x"

    @st.agent("turns", tools=[look, post])
    def main() -> None:
        for n in range(10):
            look(n)
            st.now()
        post()

    info, store = driven(main)
    assert info.status == "succeeded"
    assert store.turns == 13  # ten steps, the effect, its result, the end


def test_a_result_that_finds_no_turn_is_committed_by_the_heartbeat() -> None:
    seen: list[str] = []

    @st.step
    def look() -> str:
        return "x"

    @st.agent("idle", tools=[look])
    def main() -> None:
        look()
        run_id = next(iter(store.runs))
        assert [row.status for row in store.steps(run_id)] == ["started"]
        ends_at = time.monotonic() + 2
        while store.steps(run_id)[0].status != "done" and time.monotonic() < ends_at:
            time.sleep(0.02)
        seen.append(store.steps(run_id)[0].status)

    store = MemoryStore()
    driven(main, store)
    assert seen == ["done"]


def test_steps_that_begin_at_the_same_time_share_a_turn() -> None:
    class Slow(MemoryStore):
        def turn(self, claim: Any, turn: Any) -> Any:
            time.sleep(0.02)
            return super().turn(claim, turn)

    @st.step
    def look(n: int) -> int:
        return n

    @st.agent("crowd", tools=[look])
    def main() -> Any:
        return st.gather(*(functools.partial(look, n) for n in range(16)))

    store = Slow()
    info, _ = driven(main, store)
    assert info.output == list(range(16))
    assert store.turns < 16, "each began by itself"


def test_usage_is_charged_to_its_step_and_adds_up() -> None:
    @st.step(kind="model")
    def think() -> str:
        st.usage(model="m", tokens_in=10, tokens_out=1, cost=0.5)
        st.usage(model="m", tokens_in=5, tokens_out=2, cost=0.25)
        return "x"

    @st.agent("usage", tools=[think])
    def main() -> None:
        think()
        think()

    info, store = driven(main)
    assert (store.runs[info.run_id].tokens, store.runs[info.run_id].cost) == (36, 1.5)


# Timeouts


def test_a_stuck_tool_is_recorded_as_unknown_and_ends_the_process() -> None:
    release, ended = threading.Event(), threading.Event()

    @st.tool(effect="destructive", timeout=0.1)
    def post() -> str:
        release.wait(10)
        return "late"

    @st.agent("stuck", tools=[post])
    def main() -> str:
        return post()

    store = MemoryStore()
    store.register(main.spec())
    run_id = store.admit("stuck", {}).run_id

    def on_stuck() -> None:
        ended.set()
        release.set()

    result = drive_once(main, run_id, store=store, on_stuck=on_stuck)
    assert ended.is_set()
    assert result is not None
    assert result.then is not None
    (row,) = store.steps(run_id)
    assert (row.status, row.outcome) == ("in_doubt", "unknown")
    assert [late.output for late in store.runs[run_id].late] == ["late"]
    assert run_agent(main, run_id=run_id, store=store).status == "in_doubt"


def test_a_stuck_step_without_effect_fails_and_is_raised_in_the_next_process() -> None:
    release = threading.Event()

    @st.step(timeout=0.1)
    def look() -> str:
        CALLS.append("look")
        release.wait(10)
        return "late"

    @st.agent("stuck-step", tools=[look])
    def main() -> str:
        try:
            return look()
        except st.TimedOut as error:
            return str(error)

    info, _ = driven(main, on_stuck=release.set)
    assert (info.output, CALLS) == ("took longer than 0.1 s", ["look"])


def test_a_call_that_comes_back_after_it_was_given_up_does_not_cost_the_lease() -> None:
    @st.step(timeout=0.1)
    def look() -> str:
        CALLS.append("look")
        time.sleep(0.3 if len(CALLS) == 1 else 0)
        return "x"

    @st.step
    def other() -> str:
        time.sleep(0.25)
        return "y"

    @st.agent("late", tools=[look, other])
    def main() -> Any:
        try:
            return st.gather(look, other)
        except st.TimedOut:
            return "timed out"

    store = MemoryStore()
    store.register(main.spec())
    run_id = store.admit("late", {}).run_id
    result = drive_once(main, run_id, store=store)
    assert result is not None
    assert (result.status, store.get(run_id).status) == ("queued", "queued") or result.status == "waiting"
    assert run_agent(main, run_id=run_id, store=store).output == "timed out"
    assert CALLS == ["look"]


def test_before_a_stuck_process_ends_its_other_calls_may_finish() -> None:
    release, done = threading.Event(), threading.Event()

    @st.tool(effect="destructive", timeout=0.1)
    def stuck() -> None:
        release.wait(10)

    @st.tool(effect="destructive")
    def slow() -> str:
        time.sleep(0.4)
        done.set()
        return "done"

    @st.agent("two-calls", tools=[stuck, slow])
    def main() -> Any:
        return st.gather(stuck, slow)

    seen: list[bool] = []

    def on_stuck() -> None:
        seen.append(done.is_set())
        release.set()

    store = MemoryStore()
    store.register(main.spec())
    run_id = store.admit("two-calls", {}).run_id
    drive_once(main, run_id, store=store, on_stuck=on_stuck)
    assert seen[0] is True
    assert {row.name: row.status for row in store.steps(run_id)} == {"stuck": "in_doubt", "slow": "done"}


@pytest.mark.parametrize("effect", ["destructive", "pure"])
def test_an_async_timeout_cancels_the_call(effect: Literal["destructive", "pure"]) -> None:
    @st.tool(effect=effect, timeout=0.05)
    async def post() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            CALLS.append("cancelled")
            raise
        return "x"

    @st.agent("async-timeout", tools=[post])
    async def main() -> str:
        try:
            return await post()
        except st.TimedOut as error:
            return str(error)

    info, _ = driven(main)
    assert CALLS == ["cancelled"]
    if effect == "destructive":
        assert info.status == "in_doubt"
    else:
        assert info.output == "took longer than 0.05 s"


def test_a_cancelled_effect_is_unknown_and_the_agent_does_not_go_on_without_it() -> None:
    @st.tool(effect="destructive")
    async def post() -> str:
        CALLS.append("post")
        await asyncio.sleep(10)
        return "x"

    @st.agent("cancelled", tools=[post])
    async def main() -> str:
        try:
            async with asyncio.timeout(0.5):
                await post()
        except TimeoutError:
            return "went on"
        return "?"

    info, _ = driven(main)
    assert (info.status, CALLS) == ("in_doubt", ["post"])
