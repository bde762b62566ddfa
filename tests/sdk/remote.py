"""A MemoryStore of the test's process, reached by worker processes over a socket; and the worker to start.

`python -m tests.sdk.remote <socket>` hosts the agents below, with two children.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import agentstate as st
from agentstate.sdk.store import UNCHANGED, Claim, Turn, TurnReply
from agentstate.testing import MemoryStore

_UNCHANGED = "the state has not changed"  # the marker itself does not survive the way between processes


class RemoteStore:
    """A RunStore; a connection per call, so that it may cross forks and threads."""

    def __init__(self, address: str) -> None:
        self._address = address

    def turn(self, claim: Claim, turn: Turn) -> TurnReply:
        turn = replace(turn, state=_UNCHANGED) if turn.state is UNCHANGED else turn
        reply: TurnReply = self._call("turn", claim, turn)
        return reply

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self._call(name, *args, **options)

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        with Client(self._address) as connection:
            connection.send((name, args, options))
            is_fine, answer = connection.recv()
        if not is_fine:
            raise answer
        return answer


@contextmanager
def served(store: MemoryStore, address: str) -> Iterator[None]:
    listener = Listener(address)
    threading.Thread(target=_accept, args=(listener, store), daemon=True).start()
    yield
    listener.close()


def _accept(listener: Listener, store: MemoryStore) -> None:
    while True:
        try:
            connection = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, store), daemon=True).start()


def _answer(connection: Connection, store: MemoryStore) -> None:
    try:
        name, args, options = connection.recv()
        args = tuple(
            replace(arg, state=UNCHANGED) if isinstance(arg, Turn) and arg.state == _UNCHANGED else arg for arg in args
        )
        try:
            connection.send((True, getattr(store, name)(*args, **options)))
        except Exception as error:
            connection.send((False, error))
    except (EOFError, OSError):
        pass  # the worker was killed in the middle


@st.step
def pid(n: int) -> int:
    time.sleep(0.02)
    return os.getpid()


@st.agent("counting", tools=[pid])
def counting(steps: int) -> list[int]:
    return [pid(n) for n in range(steps)]


@st.tool(effect="destructive", timeout=0.2)
def hang(path: str) -> None:
    with open(path, "a") as ledger:  # noqa: PTH123
        ledger.write("called\n")
    time.sleep(60)


@st.agent("hanging", tools=[hang])
def hanging(path: str) -> None:
    hang(path)


if __name__ == "__main__":
    st.worker(counting, hanging, store=RemoteStore(sys.argv[1]), concurrency=2)
