"""Names of steps do not depend on time, only on the order of calling within a scope."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import agentstate as st
from agentstate.core.errors import Invalid
from agentstate.sdk.identity import Scope, check_name, scope_of
from agentstate.testing import MemoryStore, run_agent

NAMES = ("a", "b", "c")


@given(some.lists(some.sampled_from(NAMES), max_size=40))
def test_ordinals_count_per_name_from_one(names: Sequence[str]) -> None:
    scope, counts = Scope("p#1", parent="p#1"), dict.fromkeys(NAMES, 0)
    for name in names:
        counts[name] += 1
        assert scope.reserve(name) == f"p#1/{name}#{counts[name]}"


@given(some.text(max_size=300), some.text(max_size=300))
def test_two_keys_never_share_a_name_and_never_break_the_path(one: str, other: str) -> None:
    scope = Scope()
    paths = [scope.reserve("call", key=key) for key in (one, other) if key]
    assert all(scope_of(path) == "" and "#" not in path.partition(":")[2] for path in paths if ":" in path)
    if one and other:
        assert (paths[0] == paths[1]) == (one == other)


@pytest.mark.parametrize("name", ["", "a/b", "a#1", "a:b", "x" * 201, "a\nb"])
def test_a_name_that_would_make_paths_ambiguous_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no usable name"):
        check_name(name)


def test_a_path_that_grows_too_long_is_refused_by_its_length() -> None:
    with pytest.raises(Invalid, match="at most 1000"):
        Scope("x" * 990).reserve("a-long-name")


# A tree of calls: a leaf is a step, a list runs in order, a set of branches runs side by side.
Tree = Any
TREES = some.recursive(
    some.sampled_from(NAMES),
    lambda inner: some.tuples(
        some.sampled_from(["order", "gather", "nested"]), some.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


@st.step(name="a")
def step_a(path: str) -> str:
    time.sleep(random.random() / 2_000)
    return path


@st.step(name="b")
def step_b(path: str) -> str:
    return path


@st.step(name="c")
def step_c(path: str) -> str:
    time.sleep(0.0005)
    return path


@st.step(kind="group")
def nested(trees: list[Any], path: str) -> None:
    walk(("order", trees), path)


STEPS = {"a": step_a, "b": step_b, "c": step_c}


def walk(tree: Tree, path: str) -> None:
    if isinstance(tree, str):
        STEPS[tree](path)
        return
    kind, trees = tree
    if kind == "order":
        for index, inner in enumerate(trees):
            walk(inner, f"{path}.{index}")
    elif kind == "nested":
        nested(trees, path)
    else:
        st.gather(*(branch(inner, f"{path}.{index}") for index, inner in enumerate(trees)))


def branch(tree: Tree, path: str) -> Any:
    return functools.partial(STEPS[tree], path) if isinstance(tree, str) else lambda: walk(tree, path)


@st.agent("tree", tools=[step_a, step_b, step_c, nested])
def tree_agent(tree: Any) -> str:
    walk(tree, "0")
    return "end"


def paths(tree: Tree, *, suspend_always: bool) -> dict[str, Any]:
    """identity -> where in the tree that step was called."""
    store = MemoryStore()
    info = run_agent(tree_agent, {"tree": tree}, store=store, suspend_always=suspend_always)
    assert info.status == "succeeded", info
    return {row.identity: row.payload["path"] for row in store.steps(info.run_id)}


@settings(max_examples=25, deadline=None)
@given(TREES)
def test_any_tree_of_calls_has_the_same_names_however_it_is_timed(tree: Tree) -> None:
    """The model: the same names for the same places, straight through or in as many claims as there are steps."""
    straight = paths(tree, suspend_always=False)
    assert paths(tree, suspend_always=False) == straight
    assert paths(tree, suspend_always=True) == straight


def test_siblings_are_named_before_the_first_of_them_starts() -> None:
    gate = threading.Barrier(2, timeout=5)

    @st.step
    def meet(name: str) -> str:
        if name == "slow":
            time.sleep(0.05)
        gate.wait()
        return name

    @st.agent("meet", tools=[meet])
    def main() -> Any:
        return st.gather(functools.partial(meet, "slow"), functools.partial(meet, "fast"))

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert info.output == ["slow", "fast"]
    assert {row.identity: row.payload["name"] for row in store.steps(info.run_id)} == {
        "meet#1": "slow",
        "meet#2": "fast",
    }


def test_a_key_names_a_call_instead_of_its_ordinal() -> None:
    @st.step(key="{call_id}")
    def ask_model(call_id: str) -> str:
        return call_id

    @st.step
    def plain(n: int) -> int:
        return n

    @st.agent("keys", tools=[ask_model, plain])
    def main() -> None:
        ask_model("call_7")
        plain.keyed("tool/1")(1)
        plain(2)

    store = MemoryStore()
    info = run_agent(main, store=store)
    assert [row.identity for row in store.steps(info.run_id)] == ["ask_model:call_7", "plain:tool%2F1", "plain#1"]
