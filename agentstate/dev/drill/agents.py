"""The drill's agent: pure steps around one effect of each class, against the sandbox, under each timing; or around
writes and reads of memory.

The tools hit failpoints around their send, so that a process can also die with a call on its way.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import agentstate as st
from agentstate.core.failpoints import hit, register
from agentstate.dev.demo import other_side
from agentstate.dev.drill.cases import TIMINGS
from agentstate.dev.drill.pace import PAUSE_S, SETTLES_WITHIN_S, TIMEOUT_S, UNDER_WAY_S
from agentstate.dev.sandbox import ledger
from agentstate.sdk.memory_acts import Role

Json = Any  # what json.loads gives

register("call.before", "the before-row of an effect / its send")
register("call.under_way", "the send / its answer")
register("call.answered", "the answer / the turn that records it")

RETRIES = 2
NOTE_BYTES = 16_000  # hex: quickly counted, and of no use to a compressor beyond half
NOTES = 80  # together more than the scratchpad keeps, what is not durable yet included


def _send(tool: str, case: str, *, key: str) -> Json:
    hit("call.before")
    over = threading.Event()
    threading.Thread(target=_pass_under_way, args=(key, _accepted(key), over), daemon=True).start()
    try:
        result = other_side.act(f"/acts/{tool}", {"case": case}, key=key)
    finally:
        over.set()
    hit("call.answered")
    return result


def _pass_under_way(key: str, before: int, over: threading.Event) -> None:
    """Not before the call is over there: on a busy machine it leaves late, and nothing can hold back a process that
    stood still between its check and its send."""
    while not over.wait(UNDER_WAY_S):
        if _accepted(key) > before:
            hit("call.under_way")
            return


def _accepted(key: str) -> int:
    """How many calls of this process the other side has taken under this key."""
    lines = ledger.read(Path(os.environ["AGENTSTATE_DRILL_LEDGER"]))
    ours = ("accepted", key, os.getpid())
    return sum((line["phase"], line["key"], line.get("pid")) == ours for line in lines)


def _keyed(tool: str, case: str, *, idempotency_key: str = "") -> Json:
    """Downstream knows the key again."""
    return _send(tool, case, key=idempotency_key)


def _probe(tool: str, key: str) -> st.Happened | st.NotHappened | st.Unknown:
    return other_side.ask_by_key(f"/acts/{tool}/by-key/{key}")


def _make(effect: str, timing: str) -> Any:
    name = f"{effect}.{timing}"

    def act(case: str, *, idempotency_key: str = "") -> Json:
        return _send(name, case, key=idempotency_key)

    common: dict[str, Any] = {"name": name, "timeout": TIMEOUT_S, "retries": RETRIES}
    more: dict[str, dict[str, Any]] = {
        "keyed": {"effect": "keyed", "window": 3_600},
        "probed": {"effect": "probed", "probe": partial(_probe, name), "settles_within": SETTLES_WITHIN_S},
        "destructive": {"effect": "destructive"},
        "approved": {"effect": "destructive", "approve": "always"},
    }
    return st.tool(**common, **more[effect])(act)


TOOLS: dict[str, Callable[..., Json]] = {
    f"{effect}.{timing}": _make(effect, timing)
    for effect in ("keyed", "probed", "destructive", "approved")
    for timing in TIMINGS
}


# What the agent says and keeps about a case: the oracle knows it, too.
def said(case: str) -> list[tuple[Role, str]]:
    """In this order; the second one waits in the buffer for a while."""
    return [
        ("user", f"{case} asks when the green lamp will come."),
        ("user", f"{case} rings twice at the door."),
        ("assistant", f"The lamp of {case} comes on Tuesday."),
    ]


def kept(case: str) -> list[str]:
    return [f"{case} ordered a green lamp.", f"{case} opens the door in the afternoon only."]


def proposed(case: str) -> str:
    return f"{case} pays by invoice."


def _remember(case: str) -> Json:
    """What is read is read before the rest is said: who reads it again is given other words."""
    asked, waiting, answered = said(case)
    early, late = kept(case)
    session = st.memory.session(case)
    session.say(*asked)
    st.memory.remember(early)
    session.say(*waiting, persistence="batched")
    st.memory.propose(proposed(case))
    given = session.context("Which lamp was ordered?")
    found = st.memory.recall("green lamp")
    session.say(*answered)
    st.memory.remember(late)
    return {"given": given.text, "found": list(found.texts)}


@st.step
def prepare(case: str) -> dict[str, Any]:
    return {"case": case, "pid": os.getpid()}


@st.step
def conclude(case: str, found: Json) -> Json:
    return {"case": case, "found": found}


@st.agent("drill", version="1", on_code_change="continue")
def drill(case: str, effect: str, timing: str) -> Json:
    prepare(case)
    st.note(f"{case}: prepared", kind="reasoning")
    st.now()
    found = None
    if effect == "notes":
        for text in [Random(number).randbytes(NOTE_BYTES // 2).hex() for number in range(NOTES)]:  # noqa: S311
            st.note(text, important=True)  # or it would be summarised
        time.sleep(PAUSE_S)  # they are shown, and no turn has made them durable yet
    elif effect == "memory":
        found = _remember(case)
    elif effect != "pure":
        found = TOOLS[f"{effect}.{timing}"](case)
    concluded = conclude(case, found)
    time.sleep(0.05)
    return concluded
