"""Named places between two durable writes, where a test or a drill can kill, stop, delay or break this process.

AGENTSTATE_FAILPOINTS="runs.turn.sent=kill@3,runs.claim=sleep:0.5" arms them when the process starts. Actions: kill
(SIGKILL), stop (SIGSTOP until SIGCONT), raise, exit (orderly), sleep:<seconds>; "@3" means the third hit only.
AGENTSTATE_FAILPOINT_TRACE names a file to which every hit appends its name.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NAMES: dict[str, str] = {}  # name -> what stands on either side
HITS: Counter[str] = Counter()  # of this process


class FailpointReached(RuntimeError):
    """Raised by the action "raise"."""


@dataclass(frozen=True, slots=True)
class _Action:
    verb: str
    nth: int = 0  # 0: every hit
    seconds: float = 0.0


_armed: dict[str, _Action] = {}
_trace = os.environ.get("AGENTSTATE_FAILPOINT_TRACE", "")


def register(name: str, between: str) -> str:
    """Declare a failpoint at import of the module that hits it. `between` says what stands on either side."""
    assert NAMES.get(name, between) == between, f"two failpoints are named {name}"
    NAMES[name] = between
    return name


def hit(name: str) -> None:
    """Do what this failpoint is armed with; nothing in production."""
    assert name in NAMES, f"failpoint {name} is hit but not registered"
    HITS[name] += 1
    if _trace:
        _append(name)
    action = _armed.get(name)
    if action and action.nth in (0, HITS[name]):
        _act(name, action)


@contextmanager
def armed(spec: str) -> Iterator[None]:
    """Arm failpoints in this process for a while; "@3" counts from here. `spec` is written like the variable."""
    global _armed
    before = _armed
    _armed = parse(spec)
    for name in _armed:
        HITS[name] = 0
    try:
        yield
    finally:
        _armed = before


def parse(spec: str) -> dict[str, _Action]:
    """Raises: ValueError for an unknown action, because a drill that arms nothing proves nothing."""
    return dict(_parse_one(part.strip()) for part in spec.split(",") if part.strip())


def _parse_one(text: str) -> tuple[str, _Action]:
    name, _, action = text.partition("=")
    action, _, nth = action.partition("@")
    verb, _, seconds = action.partition(":")
    if verb not in {"kill", "stop", "raise", "exit", "sleep"}:
        raise ValueError(
            f"{text!r} is no failpoint: use name=kill, stop, raise, exit or sleep:<seconds>, then maybe @n"
        )
    return name, _Action(verb, int(nth or 0), float(seconds or 0))


def _act(name: str, action: _Action) -> None:
    if action.verb == "sleep":
        time.sleep(action.seconds)
    elif action.verb == "raise":
        raise FailpointReached(name)
    elif action.verb == "exit":
        raise SystemExit(70)
    else:
        os.kill(os.getpid(), signal.SIGKILL if action.verb == "kill" else signal.SIGSTOP)


def _append(name: str) -> None:
    # One write with O_APPEND: lines of several processes do not mix, and nothing is lost when the next act kills us.
    target = os.open(_trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(target, f"{name}\n".encode())
    finally:
        os.close(target)


_armed = parse(os.environ.get("AGENTSTATE_FAILPOINTS", ""))
