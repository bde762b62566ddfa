"""st.state: changed by steps, taken over with their results, frozen in main."""

from __future__ import annotations

import functools
from typing import Any

import pytest

import agentstate as st
from agentstate.core.limits import STATE_BYTES_MAX
from agentstate.sdk.store import UNCHANGED, Claim, Turn, TurnReply
from agentstate.testing import Crashing, Killed, MemoryStore, run_agent

FAILS: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    FAILS.clear()


@st.step(retries=1)
def put(key: str, value: Any) -> int:
    st.state[key] = value
    st.state.setdefault("log", []).append(key)
    if key in FAILS:
        FAILS.remove(key)
        raise ValueError("after the change")
    return len(st.state["log"])


@st.step
def drop(key: str) -> None:
    del st.state[key]


def final(main: Any, **options: Any) -> tuple[Any, Any]:
    store = options.pop("store", None) or MemoryStore()
    info = run_agent(main, store=store, **options)
    memory = getattr(store, "store", store)
    return info, memory.runs[info.run_id].state


def test_steps_change_the_state_in_order() -> None:
    @st.agent("state", tools=[put, drop])
    def main() -> Any:
        put("a", [1])
        put("b", {"x": None})
        drop("a")
        return dict(st.state)

    for suspend_always in (False, True):
        info, state = final(main, suspend_always=suspend_always)
        assert info.output == {}
        assert state == {"b": {"x": None}, "log": ["a", "b"]}


def test_the_state_rides_only_in_turns_that_change_it() -> None:
    sent: list[bool] = []

    class Watching(MemoryStore):
        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            sent.append(turn.state is not UNCHANGED)
            return super().turn(claim, turn)

    @st.step
    def look() -> None:
        st.state.get("a")

    @st.agent("quiet", tools=[put, look])
    def main() -> None:
        look()
        put("a", 1)
        look()
        look()

    final(main, store=Watching())
    assert sent == [False, False, True, False, False]


def test_main_cannot_change_it() -> None:
    @st.agent("frozen", tools=[put])
    def main() -> Any:
        st.state["x"] = 1

    info, _ = final(main)
    assert (info.status, info.failure.type) == ("failed", "TypeError")
    assert "changed inside steps only" in info.failure.message


def test_what_a_failed_attempt_changed_is_forgotten() -> None:
    FAILS.append("a")

    @st.agent("failing", tools=[put])
    def main() -> int:
        return put("a", 1)

    info, state = final(main)
    assert (info.output, state) == (1, {"a": 1, "log": ["a"]})


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_never_leaves_half_of_a_step_in_the_state(when: Any) -> None:
    @st.agent("crashing", tools=[put])
    def main() -> int:
        for number in range(4):
            put(f"k{number}", number)
        return 4

    for at in range(1, 7):
        _, state = final(main, store=Crashing(MemoryStore(), at=at, when=when))
        assert state == {"k0": 0, "k1": 1, "k2": 2, "k3": 3, "log": ["k0", "k1", "k2", "k3"]}


def test_a_parent_sees_what_its_children_changed_and_adds_to_it() -> None:
    died: list[str] = []

    @st.step
    def parent() -> list[str]:
        st.state["parent"] = "began"
        put("child", 1)
        seen = sorted(st.state)
        if not died:
            died.append("x")
            raise Killed
        return seen

    @st.agent("nested-state", tools=[parent, put])
    def main() -> list[str]:
        return parent()

    info, state = final(main)
    assert info.output == ["child", "log", "parent"]
    assert state == {"child": 1, "log": ["child"], "parent": "began"}


def test_siblings_keep_each_others_keys() -> None:
    @st.step
    def own(key: str) -> None:
        st.state[key] = key

    @st.agent("siblings", tools=[own])
    def main() -> None:
        st.gather(*(functools.partial(own, f"k{n}") for n in range(8)))

    _, state = final(main)
    assert state == {f"k{n}": f"k{n}" for n in range(8)}


def test_a_state_that_grows_too_large_is_refused_naming_its_largest_key() -> None:
    @st.agent("large", tools=[put])
    def main() -> Any:
        return put("blob", "x" * STATE_BYTES_MAX)

    info, state = final(main)
    assert info.failure.type == "TooLarge"
    assert "blob (" in info.failure.message
    assert state is None


def test_an_effect_that_made_the_state_too_large_is_done_and_the_run_ends() -> None:
    @st.tool(effect="destructive")
    def post() -> str:
        st.state["blob"] = "x" * STATE_BYTES_MAX
        return "sent"

    @st.agent("large-effect", tools=[post])
    def main() -> Any:
        return post()

    store = MemoryStore()
    info, _ = final(main, store=store)
    assert (info.status, info.failure.type) == ("failed", "TooLarge")
    assert [(row.status, row.output) for row in store.steps(info.run_id)] == [("done", "sent")]


def test_a_snapshot_agent_has_no_second_state() -> None:
    @st.agent("snapshot", mode="snapshot", tools=[put])
    def main(state: dict[str, Any]) -> Any:
        return st.Done(put("a", 1))

    info, _ = final(main, input={})
    assert info.failure.type == "TypeError"
    assert "argument of its main" in info.failure.message


def test_continue_from_takes_a_mapping_of_json() -> None:
    @st.agent("continued", tools=[put])
    def main() -> Any:
        st.continue_from([1])

    info, _ = final(main)
    assert info.failure.type == "TypeError"
