"""Killed at every turn, before it is sent and after it is committed: nothing destructive is ever called twice."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any, Literal

import pytest

import agentstate as st
from agentstate.sdk.store import RunInfo
from agentstate.testing import Crashing, Killed, MemoryStore, run_agent

WORLD: list[tuple[str, str]] = []  # what the other side saw: (tool, key), in order
REMEMBERED: dict[str, Any] = {}
TURNS_MAX = 25
When = Literal["before", "after"]


@pytest.fixture(autouse=True)
def clean_world() -> None:
    clean()


def clean() -> None:
    WORLD.clear()
    REMEMBERED.clear()


@st.step
def plan(n: int) -> list[int]:
    WORLD.append(("plan", str(n)))
    return list(range(n))


def booked(item: int, key: str) -> str:
    WORLD.append(("book", key))
    return str(REMEMBERED.setdefault(key, f"booking {item}"))


@st.tool(effect="keyed", window="24h")
def book(item: int, *, idempotency_key: str = "") -> str:
    return booked(item, idempotency_key)


def seen(key: str) -> Any:
    return st.Happened(REMEMBERED[key]) if key in REMEMBERED else st.NotHappened()


@st.tool(effect="probed", probe=seen, settles_within=5)
def send(text: str, *, idempotency_key: str = "") -> str:
    WORLD.append(("send", idempotency_key))
    REMEMBERED[idempotency_key] = f"sent {text}"
    return f"sent {text}"


@st.tool(effect="destructive")
def delete(path: str) -> str:
    WORLD.append(("delete", path))
    return path


@st.agent("mixed")
def mixed(n: int) -> dict[str, Any]:
    token = str(st.uuid())
    items = plan(n)
    bookings = st.gather(*(functools.partial(book, item) for item in items))
    sent = send(f"{len(bookings)} for {len(token)}")
    gone = delete("/tmp/x")
    return {"booked": bookings, "sent": sent, "gone": gone, "at": isinstance(st.now().isoformat(), str)}


@st.tool(effect="keyed", window="24h", name="book")
async def book_async(item: int, *, idempotency_key: str = "") -> str:
    return booked(item, idempotency_key)


@st.tool(effect="destructive", name="delete")
async def delete_async(path: str) -> str:
    WORLD.append(("delete", path))
    return path


@st.agent("mixed")
async def mixed_async(n: int) -> dict[str, Any]:
    token = str(st.uuid())
    items = plan(n)
    bookings = await st.gather(*(book_async(item) for item in items))
    sent = send(f"{len(bookings)} for {len(token)}")
    gone = await delete_async("/tmp/x")
    return {"booked": bookings, "sent": sent, "gone": gone, "at": isinstance(st.now().isoformat(), str)}


AGENTS = {"sync": mixed, "async": mixed_async}
EXPECTED = {"booked": ["booking 0", "booking 1"], "sent": "sent 2 for 36", "gone": "/tmp/x", "at": True}


def drive(main: st.Agent, store: Any, memory: MemoryStore, *, suspend_always: bool = False) -> RunInfo:
    """To the end; a person answers for a call in doubt by looking at the other side's own book."""
    info = run_agent(main, {"n": 2}, store=store, suspend_always=suspend_always)
    while info.status == "in_doubt":
        (row,) = [row for row in memory.steps(info.run_id) if row.status == "in_doubt"]
        assert row.name == "delete"
        memory.advance(3_600)
        if ("delete", "/tmp/x") in WORLD:
            memory.settle(info.run_id, row.identity, "happened", output="/tmp/x")
        else:
            memory.settle(info.run_id, row.identity, "not_happened")
        info = run_agent(main, run_id=info.run_id, store=store, suspend_always=suspend_always)
    return info


def judge(info: RunInfo) -> None:
    calls = Counter(WORLD)
    assert (info.status, info.output) == ("succeeded", EXPECTED), info
    assert calls["delete", "/tmp/x"] == 1
    assert len({key for tool, key in WORLD if tool == "book"}) == 2
    assert len([1 for tool, _ in WORLD if tool == "send"]) == len({key for tool, key in WORLD if tool == "send"}) == 1


def test_who_takes_over_and_cannot_send_keeps_the_key_of_the_lost_call() -> None:
    keys: list[str] = []

    @st.tool(effect="keyed", window="24h")
    def pay(*, idempotency_key: str = "") -> str:
        keys.append(idempotency_key)
        if len(keys) == 2:
            raise ConnectionRefusedError
        return booked(1, idempotency_key)

    @st.agent("payer", tools=[pay])
    def payer() -> str:
        return pay()

    memory = MemoryStore()
    killed = run_agent(payer, {}, store=Crashing(memory, at=2, when="before"))
    assert (killed.status, len(keys), len(set(keys))) == ("succeeded", 3, 1)


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("suspend_always", [False, True], ids=["straight", "suspending"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_at_any_turn_repeats_nothing_destructive(when: When, suspend_always: bool, kind: str) -> None:
    for at in range(1, TURNS_MAX):
        clean()
        memory = MemoryStore()
        store = Crashing(memory, at=at, when=when)
        judge(drive(AGENTS[kind], store, memory, suspend_always=suspend_always))
        if store.turns < at:
            break
    else:
        raise AssertionError(f"more than {TURNS_MAX} turns")
    assert at > 6


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("victim", ["plan", "book", "send", "delete"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_around_the_call_itself(
    monkeypatch: pytest.MonkeyPatch, victim: str, moment: str, kind: str
) -> None:
    class Dying(list[tuple[str, str]]):
        armed = True

        def append(self, line: tuple[str, str]) -> None:
            if line[0] == victim and self.armed:
                self.armed = False
                if moment == "after":
                    super().append(line)
                    REMEMBERED.setdefault(
                        line[1], "sent 2 for 36" if victim == "send" else f"booking {len(REMEMBERED)}"
                    )
                raise Killed
            super().append(line)

    monkeypatch.setitem(globals(), "WORLD", Dying())
    memory = MemoryStore()
    info = drive(AGENTS[kind], memory, memory)
    calls = Counter(WORLD)
    assert info.status == "succeeded"
    assert calls["delete", "/tmp/x"] == 1
    assert len({key for tool, key in WORLD if tool == "book"}) == 2
    assert len([1 for tool, _ in WORLD if tool == "send"]) == 1
