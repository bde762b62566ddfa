"""Several waits are one wait; what a person asks for is obeyed at the next boundary and cannot be swallowed."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

import agentstate as st
from agentstate.sdk.signals import Waiting, merged
from agentstate.sdk.store import Budget, Park
from agentstate.testing import MemoryStore, drive_once, run_agent

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()


@st.step
def look(name: str) -> str:
    CALLS.append(name)
    return name


@st.tool(effect="destructive", approve="always", expires_in="1h", use_within="30m")
def pay(name: str) -> str:
    CALLS.append(f"pay {name}")
    return name


def test_the_gravest_reason_and_the_earliest_time_win() -> None:
    waits = [Waiting(Park("timer", due_s=5)), Waiting(Park("in_doubt")), Waiting(Park("approval", due_s=60))]
    assert merged(waits).park == Park("in_doubt", due_s=5)


@st.agent("three", tools=[pay, look])
def three() -> Any:
    return st.gather(functools.partial(pay, "a"), lambda: pay(look("b")), functools.partial(pay, "c"))


@st.agent("three", tools=[pay, look])
async def three_async() -> Any:
    def second() -> str:
        return pay(look("b"))

    return await st.gather(functools.partial(pay, "a"), second, functools.partial(pay, "c"))


@pytest.mark.parametrize("main", [three, three_async], ids=["threads", "tasks"])
def test_all_questions_are_asked_before_the_run_waits_once(main: Any) -> None:
    store = MemoryStore()
    info = run_agent(main, store=store)
    assert (info.status, CALLS) == ("waiting", ["b"])
    assert store.runs[info.run_id].claims == 1
    approvals = store.open_approvals()
    assert sorted(approval.args["name"] for approval in approvals) == ["a", "b", "c"]
    for approval in approvals:
        store.decide(approval.id, "approve")
    info = run_agent(main, run_id=info.run_id, store=store)
    assert info.output == ["a", "b", "c"]
    assert sorted(CALLS) == ["b", "pay a", "pay b", "pay c"]


def test_what_is_approved_first_is_done_while_the_others_wait() -> None:
    store = MemoryStore()
    info = run_agent(three, store=store)
    first = next(approval for approval in store.open_approvals() if approval.args["name"] == "c")
    store.decide(first.id, "approve")
    info = run_agent(three, run_id=info.run_id, store=store)
    assert (info.status, CALLS) == ("waiting", ["b", "pay c"])


@st.agent("one", tools=[pay, look])
def one() -> str:
    try:
        return pay("x")
    except st.NotApproved as error:
        return type(error).__name__


def test_an_expired_question_is_not_a_rejection() -> None:
    store = MemoryStore()
    info = run_agent(one, store=store)
    assert info.status == "waiting"
    store.advance(3_601)
    assert run_agent(one, run_id=info.run_id, store=store).output == "Expired"
    assert CALLS == []


def test_an_approval_is_used_in_time_or_asked_for_again() -> None:
    store = MemoryStore()
    info = run_agent(one, store=store)
    store.decide(store.open_approvals()[0].id, "approve")
    store.advance(1_801)
    info = run_agent(one, run_id=info.run_id, store=store)
    assert (info.status, CALLS) == ("waiting", [])
    store.decide(store.open_approvals()[0].id, "approve")
    assert run_agent(one, run_id=info.run_id, store=store).output == "x"
    assert CALLS == ["pay x"]


def test_a_withdrawn_question_is_an_exception_of_its_own() -> None:
    store = MemoryStore()
    store.register(one.spec())
    run_id = store.admit("one", {}).run_id
    drive_once(one, run_id, store=store)
    store.decide(store.open_approvals()[0].id, "withdraw")
    assert run_agent(one, run_id=run_id, store=store).output == "Withdrawn"


def test_an_agent_that_swallows_a_wait_gets_no_further() -> None:
    @st.agent("swallows", tools=[pay, look])
    def main() -> str:
        try:
            pay("x")
        except BaseException:
            CALLS.append("swallowed")
        try:
            return look("after")
        except BaseException:
            return "done"

    store = MemoryStore()
    store.register(main.spec())
    run_id = store.admit("swallows", {}).run_id
    result = drive_once(main, run_id, store=store)
    assert result is not None
    assert (result.status, CALLS) == ("waiting", ["swallowed"])


def test_a_question_becomes_what_its_schema_says() -> None:
    @st.agent("typed")
    def main() -> Any:
        answer = st.ask("When?", schema=int)
        return answer + 1

    store = MemoryStore()
    info = run_agent(main, store=store)
    approval = store.open_approvals()[0]
    assert approval.question.schema == {"type": "integer"}
    store.decide(approval.id, "respond", args=41)
    assert run_agent(main, run_id=info.run_id, store=store).output == 42


def test_timers_in_a_gather_and_async_sleep() -> None:
    @st.agent("timers", tools=[look])
    async def main() -> Any:
        async def nap(s: int) -> str:
            await st.sleep(s)
            return f"slept {s}"

        return await st.gather(nap(30), nap(20), asyncio.to_thread(look, "x"))

    store = MemoryStore()
    began_at = store.now()
    info = run_agent(main, store=store)
    assert info.output == ["slept 30", "slept 20", "x"]
    assert 30 <= store.now() - began_at < 40
    assert CALLS == ["x"]


# Control


@pytest.mark.parametrize(("control", "status"), [("pause", "paused"), ("cancel", "cancelled"), ("stop", "queued")])
def test_control_is_obeyed_before_the_next_step(control: str, status: str) -> None:
    @st.agent("controlled", tools=[look])
    def main() -> str:
        look("one")
        run_id = next(iter(store.runs))
        store.stop("controlled") if control == "stop" else getattr(store, control)(run_id)
        try:
            look("two")
        except BaseException:
            CALLS.append("swallowed")
        return "done"

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert (info.status, CALLS) == (status, ["one", "swallowed"])
    if control == "pause":
        store.resume(info.run_id)
        assert run_agent(main, run_id=info.run_id, store=store).status == "paused"  # it pauses itself again
        assert CALLS.count("one") == 1


def test_a_snapshot_agent_without_steps_is_stopped_between_its_turns() -> None:
    @st.agent("endless", mode="snapshot")
    def main(state: dict[str, int]) -> dict[str, int]:
        if state["n"] == 3:
            store.pause(next(iter(store.runs)))
        return {"n": state["n"] + 1}

    store = MemoryStore()
    info = run_agent(main, {"n": 0}, store=store)
    assert (info.status, store.runs[info.run_id].base) == ("paused", {"n": 4})


def test_a_budget_that_is_used_up_asks_a_person() -> None:
    @st.agent("spender", tools=[look])
    def main() -> int:
        for number in range(5):
            look(str(number))
        return 5

    store = MemoryStore()
    store.register(main.spec())
    run_id = store.admit("spender", {}, budget=Budget(steps=3)).run_id
    assert run_agent(main, run_id=run_id, store=store).status == "waiting"
    assert CALLS == ["0", "1", "2"]
    (approval,) = store.open_approvals()
    assert approval.kind == "budget"
    store.decide(approval.id, "approve")
    assert run_agent(main, run_id=run_id, store=store).output == 5


def test_a_resumed_failed_run_tries_the_step_it_failed_by_once_more() -> None:
    @st.step
    def broken() -> str:
        CALLS.append("broken")
        if len(CALLS) == 1:
            raise ValueError("not yet")
        return "mended"

    @st.agent("mended", tools=[broken])
    def main() -> str:
        return broken()

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.failure is not None
    assert (info.status, info.failure.type) == ("failed", "ValueError")
    store.resume(info.run_id)
    assert run_agent(main, run_id=info.run_id, store=store).output == "mended"


def test_a_resume_takes_back_the_failure_of_a_step_and_of_its_parents_and_of_nothing_else() -> None:
    broken: list[bool] = [True]

    @st.step
    def handled() -> str:
        CALLS.append("handled")
        raise ValueError("always")

    @st.step
    def inner() -> str:
        CALLS.append("inner")
        if broken:
            raise ValueError("always")
        return "mended"

    @st.step
    def outer() -> str:
        CALLS.append("outer")
        return str(st.gather(lambda: inner())[0])

    @st.agent("mended", tools=[handled, inner, outer])
    def main() -> str:
        try:
            handled()
        except st.StepFailed as error:
            first = error.type
        try:
            return first + outer()
        except st.StepFailed as error:
            raise RuntimeError("cannot go on") from error

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.failure is not None
    assert info.failure.type == "RuntimeError"
    broken.clear()
    CALLS.clear()
    store.resume(info.run_id)
    assert run_agent(main, run_id=info.run_id, store=store).output == "ValueErrormended"
    assert CALLS == ["outer", "inner"]


def test_a_resume_after_a_mistake_of_main_itself_calls_nothing_again() -> None:
    bugs = ["bug"]

    @st.step
    def handled() -> str:
        CALLS.append("handled")
        raise ValueError("always")

    @st.agent("buggy", tools=[handled])
    def main() -> str:
        try:
            handled()
        except st.StepFailed:
            if bugs:
                raise KeyError(bugs.pop()) from None
        return "end"

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.status == "failed"
    store.resume(info.run_id)
    assert run_agent(main, run_id=info.run_id, store=store).output == "end"
    assert CALLS == ["handled"]


def test_notes_are_written_once_however_often_main_runs() -> None:
    @st.agent("notes", tools=[look])
    def main() -> None:
        st.note("before")
        look("one")
        st.note("between")
        st.sleep(60)
        st.note("between")
        look("two")
        st.note("after", important=True)

    for suspend_always in (False, True):
        store = MemoryStore()
        info = run_agent(main, store=store, suspend_always=suspend_always)
        entries = store.runs[info.run_id].entries
        assert [entry.text for entry in entries] == ["before", "between", "between", "after"]
        assert [entry.n for entry in entries] == [1, 2, 3, 4]
