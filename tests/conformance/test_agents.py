"""Whole agents on every store, driven straight through and, to find what is not recorded, one step per claim."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest

import agentstate as st
from agentstate.sdk.store import RunInfo
from agentstate.testing import Killed, run_agent
from tests.conformance.worlds import World

CALLS: Counter[str] = Counter()
KEYS: list[str] = []
DIE_IN: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()
    KEYS.clear()
    DIE_IN.clear()


@pytest.fixture(params=["straight", "suspending"])
def drive(request: pytest.FixtureRequest, world: World) -> Any:
    """run_agent on this world."""
    return functools.partial(run_agent, store=world.store, controls=world, suspend_always=request.param == "suspending")


def called(name: str) -> None:
    """The world outside: counts each call, and kills the process in it when the test says so."""
    CALLS[name] += 1
    if name in DIE_IN:
        DIE_IN.remove(name)
        raise Killed


@st.step
def search(query: str) -> list[str]:
    called(f"search {query}")
    st.state["searched"] = [*st.state.get("searched", []), query]
    return [query, query.upper()]


@st.step(kind="group")
def compare(left: str, right: str) -> dict[str, Any]:
    called("compare")
    return {"left": search(left), "right": search(right)}


@st.tool(effect="keyed", window="24h")
def mail(to: str, *, idempotency_key: str = "") -> str:
    KEYS.append(idempotency_key)
    called("mail")
    return f"sent to {to}"


@st.tool(effect="destructive")
def delete(path: str) -> str:
    called("delete")
    return path


@st.tool(effect="destructive", approve="always", locked=("order",), title="Refund {amount} of {order}?")
def refund(order: str, amount: int, *, idempotency_key: str = "") -> dict[str, Any]:
    KEYS.append(idempotency_key)
    called("refund")
    return {"order": order, "amount": amount}


@st.agent("conformance-all")
def everything(query: str) -> dict[str, Any]:
    began = st.now()
    token = st.uuid()
    pair = st.gather(functools.partial(search, query), lambda: search("lambda")[0], functools.partial(search, "third"))
    both = compare("a", "b")
    st.note("compared")
    st.sleep("2h")
    chance = st.random()
    sent = mail("ann@example.com")
    return {
        "pair": pair,
        "both": both,
        "sent": sent,
        "fixed": [began == st.now() or began < st.now(), str(token) != str(st.uuid()), 0 <= chance < 1],
    }


def test_an_agent_ends_with_every_step_called_once(world: World, drive: Any) -> None:
    info = drive(everything, {"query": "q"})
    assert info.status == "succeeded", info
    assert info.output == {
        "pair": [["q", "Q"], "lambda", ["third", "THIRD"]],
        "both": {"left": ["a", "A"], "right": ["b", "B"]},
        "sent": "sent to ann@example.com",
        "fixed": [True, True, True],
    }
    assert {name: count for name, count in CALLS.items() if name != "compare" and count != 1} == {}


@pytest.mark.parametrize("where", ["search q", "search lambda", "compare", "search b", "mail"])
def test_an_agent_killed_in_a_call_goes_on(world: World, drive: Any, where: str) -> None:
    DIE_IN.append(where)
    info = drive(everything, {"query": "q"})
    assert info.status == "succeeded", info
    assert CALLS[where] >= 2
    assert len(set(KEYS)) == 1


@st.agent("conformance-delete")
def deleter(path: str) -> str:
    search(path)
    return delete(path)


def test_an_agent_killed_in_a_destructive_call_is_in_doubt_and_never_calls_again(world: World, drive: Any) -> None:
    DIE_IN.append("delete")
    info = drive(deleter, {"path": "/x"})
    assert (info.status, CALLS["delete"]) == ("in_doubt", 1)
    world.settle(info.run_id, "delete#1", "happened", output="/x")
    info = drive(deleter, run_id=info.run_id)
    assert (info.status, info.output, CALLS["delete"]) == ("succeeded", "/x", 1)


def test_a_call_that_did_not_happen_is_made_once_more(world: World, drive: Any) -> None:
    DIE_IN.append("delete")
    info = drive(deleter, {"path": "/x"})
    world.age(info.run_id, 3_600)
    world.settle(info.run_id, "delete#1", "not_happened")
    info = drive(deleter, run_id=info.run_id)
    assert (info.status, CALLS["delete"]) == ("succeeded", 2)


@st.agent("conformance-refund")
def refunder(order: str) -> dict[str, Any]:
    found = search(order)
    try:
        return refund.because("it broke", evidence=[search])(order, 5)
    except st.Rejected as error:
        return {"rejected": error.reason, "found": found}
    except st.Answered as answer:
        return {"answered": answer.message}


def waiting(world: World, drive: Any) -> RunInfo:
    info: RunInfo = drive(refunder, {"order": "A1"})
    assert (info.status, CALLS["refund"]) == ("waiting", 0)
    return info


def test_an_approved_call_is_made_once_with_the_edited_arguments(world: World, drive: Any) -> None:
    info = waiting(world, drive)
    world.decide(world.open_approval(info.run_id), "edit", args={"order": "A1", "amount": 3})
    info = drive(refunder, run_id=info.run_id)
    assert (info.status, info.output) == ("succeeded", {"order": "A1", "amount": 3})
    assert (CALLS["refund"], CALLS["search A1"]) == (1, 1)
    assert len(KEYS[0]) == 64


def test_a_rejection_is_an_exception_the_agent_handles(world: World, drive: Any) -> None:
    info = waiting(world, drive)
    world.decide(world.open_approval(info.run_id), "reject", message="too much")
    info = drive(refunder, run_id=info.run_id)
    assert (info.status, info.output) == ("succeeded", {"rejected": "too much", "found": ["A1", "A1"]})
    assert CALLS["refund"] == 0


def test_a_reply_in_words_is_another_exception(world: World, drive: Any) -> None:
    info = waiting(world, drive)
    world.decide(world.open_approval(info.run_id), "respond", message="ask for the invoice")
    info = drive(refunder, run_id=info.run_id)
    assert (info.status, info.output) == ("succeeded", {"answered": "ask for the invoice"})


@st.agent("conformance-ask")
def asker() -> list[str]:
    answer = st.ask("Which size?", schema={"type": "string", "enum": ["s", "l"]})
    return [answer, search(answer)[0]]


def test_a_free_question_waits_and_goes_on_with_the_answer(world: World, drive: Any) -> None:
    info = drive(asker, {})
    assert info.status == "waiting"
    world.decide(world.open_approval(info.run_id), "respond", args="l")
    info = drive(asker, run_id=info.run_id)
    assert (info.status, info.output) == ("succeeded", ["l", "l"])


@st.step
def count_page(page: int) -> int:
    called(f"page {page}")
    st.state["pages"] = st.state.get("pages", 0) + 1
    return page


@st.agent("conformance-pages")
def pages(total: int) -> dict[str, Any]:
    """A new generation every three pages."""
    first = st.state.get("next", 1)
    done = st.state.get("pages", 0)
    for page in range(first, total + 1):
        if page - first == 3:
            st.continue_from({"next": page, "pages": done + 3})
        count_page(page)
    return {"first": first, "pages": done}


def test_generations_follow_each_other_and_nothing_before_runs_again(world: World, drive: Any) -> None:
    info = drive(pages, {"total": 8})
    assert (info.status, info.output) == ("succeeded", {"first": 7, "pages": 6})
    assert all(CALLS[f"page {page}"] == 1 for page in range(1, 9))


@st.step
def number(page: int) -> tuple[int, str]:
    called(f"page {page}")
    return page, "a pair in every replay"


@st.agent("conformance-snapshot", mode="snapshot")
def counter(state: dict[str, Any]) -> Any:
    if state["n"] >= 4:
        return st.Done({"n": state["n"], "seen": state.get("seen", [])})
    (page, _) = number(state["n"])
    return {"n": state["n"] + 1, "seen": [*state.get("seen", []), page]}


def test_a_snapshot_agent_goes_from_state_to_state(world: World, drive: Any) -> None:
    info = drive(counter, {"n": 1})
    assert (info.status, info.output) == ("succeeded", {"n": 4, "seen": [1, 2, 3]})
    assert all(CALLS[f"page {page}"] == 1 for page in range(1, 4))


@st.step(retries=2)
def flaky() -> str:
    called("flaky")
    if CALLS["flaky"] < 3:
        raise ConnectionResetError("again")
    return "ok"


@st.agent("conformance-flaky")
def retrier() -> str:
    return flaky()


def test_a_step_is_tried_again_as_often_as_declared(world: World, drive: Any) -> None:
    info = drive(retrier, {})
    assert (info.status, info.output, CALLS["flaky"]) == ("succeeded", "ok", 3)


@st.agent("conformance-fails")
def failing() -> str:
    try:
        return broken()
    except st.StepFailed as error:
        return f"{error.type}: {error.message} {search('after')[0]}"


@st.step
def broken() -> str:
    called("broken")
    raise KeyError("x")


def test_a_failed_step_is_the_same_exception_in_every_replay(world: World, drive: Any) -> None:
    info = drive(failing, {})
    assert (info.status, info.output) == ("succeeded", "KeyError: 'x' after")
    assert CALLS["broken"] == 1
