"""A replay that does not ask for what was recorded stops the run with the difference, and never does something else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

import agentstate as st
from agentstate.core.limits import GENERATION_STEPS_MAX, GENERATION_STEPS_WARN
from agentstate.sdk.store import RunInfo
from agentstate.testing import Killed, MemoryStore, run_agent

CALLS: list[str] = []
SCRIPT: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()


@st.step
def one(n: int = 0) -> str:
    CALLS.append(f"one {n}")
    return "one"


@st.step
def two(n: int = 0) -> str:
    CALLS.append(f"two {n}")
    return "two"


@st.step(kind="group")
def outer(calls: int) -> None:
    for _ in range(calls if not SCRIPT else int(SCRIPT[0])):
        one()
    two()


def twice(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[MemoryStore, RunInfo]:
    """Main is `first` until it waits, and `second` when it is run again."""
    mains = [first, second]

    @st.agent("changing", on_code_change="continue", tools=[one, two, outer])
    def main() -> Any:
        return mains[0]()

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.status == "waiting", info
    store.decide(store.open_approvals()[0].id, "respond", args="yes")
    mains.pop(0)
    return store, run_agent(main, run_id=info.run_id, store=store)


def asked(*steps: Callable[[], Any]) -> Callable[[], Any]:
    def main() -> str:
        for step in steps:
            step()
        return str(st.ask("Go on?"))

    return main


def test_another_argument_is_found() -> None:
    _, info = twice(asked(lambda: one(1)), asked(lambda: one(2)))
    assert info.status == "paused"
    assert "one#1 was recorded with other arguments" in info.waiting_for
    assert CALLS == ["one 1"]


def test_an_unexpected_step_is_found_before_it_runs() -> None:
    _, info = twice(asked(one), asked(two, one))
    assert info.status == "paused"
    assert info.waiting_for == "The agent asks for two#1, but one#1 was recorded at this place."
    assert CALLS == ["one 0"]


def test_a_missing_step_is_found_at_the_end() -> None:
    store, info = twice(asked(one, two), one)
    assert info.status == "paused"
    assert info.waiting_for == "two#1 was recorded, but the agent ended without asking for it."
    assert store.get(info.run_id).output is None


def test_a_step_more_after_all_recorded_ones_is_no_difference() -> None:
    _, info = twice(asked(one), asked(one))
    assert info.status == "succeeded"


@pytest.mark.parametrize("other", [lambda: one(2), st.now, two], ids=["arguments", "read", "step"])
def test_agent_code_cannot_swallow_the_difference(other: Callable[[], Any]) -> None:
    def swallowing() -> str:
        with contextlib.suppress(BaseException):
            other()
        return "done"

    _, info = twice(asked(lambda: one(1)), swallowing)
    assert info.status == "paused"
    assert "one#1 was recorded" in info.waiting_for


def test_a_missing_branch_of_a_gather_is_found() -> None:
    two_branches = asked(lambda: st.gather(lambda: one(1), lambda: two(2)))
    _, info = twice(two_branches, asked(lambda: st.gather(lambda: one(1))))
    assert info.status == "paused"
    assert "gather#1.2/two#1 was recorded" in info.waiting_for


def test_a_changed_read_is_found() -> None:
    _, info = twice(asked(st.now), asked(st.uuid))
    assert info.status == "paused"
    assert "uuid#1, but now#1 was recorded" in info.waiting_for


def test_a_step_that_left_out_a_recorded_child_is_found() -> None:
    SCRIPT.clear()

    @st.step
    def last() -> str:
        CALLS.append("last")
        if CALLS.count("last") == 1:
            raise Killed
        return "last"

    @st.step(kind="group")
    def parent() -> None:
        if CALLS.count("last") == 0:
            one()
        last()

    @st.agent("children", tools=[one, last, parent])
    def main() -> None:
        parent()

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.status == "paused"
    assert "parent#1/last#1, but parent#1/one#1 was recorded" in info.waiting_for


def test_tasks_that_share_a_scope_may_interleave() -> None:
    @st.step
    async def wait(name: str, s: float) -> str:
        CALLS.append(name)
        await asyncio.sleep(s)
        return name

    @st.agent("tasks", tools=[wait])
    async def main() -> str:
        async def walk(name: str, s: float) -> None:
            for number in range(3):
                await wait.keyed(f"{name}{number}")(f"{name}{number}", s)

        await asyncio.gather(walk("a", 0.003), walk("b", 0.001))
        return "end"

    for suspend_always in (False, True):
        info = run_agent(main, store=MemoryStore(), suspend_always=suspend_always)
        assert (info.status, info.output) == ("succeeded", "end")


def test_changed_code_pauses_the_run_before_anything_is_called() -> None:
    @st.agent("deployed", tools=[one])
    def before() -> Any:
        one()
        return st.ask("Go on?")

    @st.agent("deployed", tools=[one])
    def after() -> Any:
        one()
        return [st.ask("Go on?")]

    store = MemoryStore()
    info = run_agent(before, store=store)
    store.decide(store.open_approvals()[0].id, "respond", args="yes")
    info = run_agent(after, run_id=info.run_id, store=store)
    assert (info.status, info.waiting_for) == ("paused", "the agent's code has changed since the run began")
    store.resume(info.run_id)
    assert run_agent(after, run_id=info.run_id, store=store).output == ["yes"]


def test_a_generation_warns_at_a_thousand_steps_and_ends_the_run_at_two_thousand() -> None:
    @st.agent("long", tools=[one])
    def main() -> None:
        for number in range(GENERATION_STEPS_MAX + 1):
            one(number)

    with pytest.warns(UserWarning, match=f"{GENERATION_STEPS_WARN:,} steps in one generation"):
        info = run_agent(main, store=MemoryStore())
    assert info.status == "failed"
    assert info.failure is not None
    assert info.failure.type == "GenerationTooLong"
    assert len(CALLS) == GENERATION_STEPS_MAX
