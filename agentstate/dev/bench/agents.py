"""Agents that the bench's workers host. They tell the time at which they were called; all clocks are this machine's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import agentstate as st

STAYS_S = 120.0  # longer than any takeover: only death ends the first call


@st.step
def moment() -> float:
    return time.time()


@st.tool(effect="keyed", window="24h", approve="always")
def sign(page: int) -> float:
    return time.time()


def stay(mark: str) -> float:
    """The first call of a mark writes down who it is and stays; a later one comes back at once."""
    path = Path(mark)
    is_first = not path.exists()
    with path.open("a") as file:
        file.write(f"{os.getpid()} {time.time()}\n")
    if is_first:
        time.sleep(STAYS_S)
    return time.time()


@st.step(timeout=STAYS_S)
def stay_pure(mark: str) -> float:
    return stay(mark)


@st.tool(effect="keyed", window="24h", timeout=STAYS_S)
def stay_keyed(mark: str) -> float:
    return stay(mark)


@st.tool(effect="destructive", timeout=STAYS_S)
def stay_destructive(mark: str) -> float:
    return stay(mark)


@st.agent("bench-start")
def bench_start() -> float:
    return moment()


@st.agent("bench-decide")
def bench_decide() -> float:
    return sign(1)


@st.agent("bench-pure")
def bench_pure(mark: str) -> float:
    return stay_pure(mark)


@st.agent("bench-keyed")
def bench_keyed(mark: str) -> float:
    return stay_keyed(mark)


@st.agent("bench-destructive")
def bench_destructive(mark: str) -> float:
    return stay_destructive(mark)
