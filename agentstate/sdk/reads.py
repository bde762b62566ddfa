"""What an agent reads from outside is recorded: time, chance, and the wait for a later time.

Inside a tool with side effects they are the bare thing: its body is never replayed.
"""

from __future__ import annotations

import datetime as dt
import random as chance
import uuid as uuids
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from agentstate.core import clock
from agentstate.sdk import context
from agentstate.sdk.driving import in_loop
from agentstate.sdk.durations import seconds
from agentstate.sdk.questions import call_of
from agentstate.sdk.steps import Step
from agentstate.sdk.store import Entry, Usage


def now() -> dt.datetime:
    """The time at which the agent first asked; the same in every replay."""
    return dt.datetime.fromisoformat(_read("now", lambda: clock.now().isoformat()))


def uuid() -> uuids.UUID:
    return uuids.UUID(_read("uuid", lambda: str(uuids.uuid4())))


def random() -> float:
    """0 <= x < 1."""
    return float(_read("random", chance.random))


def sleep(duration: str | float) -> Any:
    """Wait, at least so long; the run gives its worker back meanwhile. In async code: `await st.sleep("2h")`."""
    frame = context.require("st.sleep")
    due_s = seconds(duration)
    call = call_of(frame, _SLEEP, payload={"seconds": due_s})
    return frame.executor.perform(call, in_loop=in_loop(), due_s=due_s)


def note(
    text: str,
    *,
    kind: Literal["note", "tool", "result", "reasoning", "model"] = "note",
    important: bool = False,
) -> None:
    """Write into the run's scratchpad. People see it at once; it is durable with the next step."""
    frame = context.require("st.note")
    frame.executor.note(frame, str(text), kind=kind, important=important)


@dataclass(frozen=True, slots=True)
class Scratchpad:
    """The entries in force when it was read: what belongs into a prompt. Masked ones and summaries are short."""

    entries: tuple[Entry, ...]
    budget_tokens: int

    @property
    def tokens(self) -> int:
        return sum(entry.tokens for entry in self.entries)

    def __str__(self) -> str:
        return "\n".join(f"[{entry.kind}] {entry.text}" for entry in self.entries)


def scratchpad() -> Scratchpad:
    """The run's scratchpad as it is now, inside its budget; recorded, so that it is the same in every replay."""
    frame = context.require("st.scratchpad")
    entries = _read("scratchpad", lambda: frame.executor.scratchpad(frame))
    return Scratchpad(tuple(_entry_of(plain) for plain in entries), frame.executor.notebook.budget_tokens)


def usage(*, model: str = "", tokens_in: int = 0, tokens_out: int = 0, cost: float = 0.0) -> None:
    """Charge tokens and cost to the running step; several calls in one step add up. Raises: RuntimeError in main."""
    frame = context.require("st.usage")
    if frame.call is None:
        raise RuntimeError("st.usage belongs inside the step that called the model.")
    frame.usage.append(Usage(model, tokens_in, tokens_out, cost))


def _read(name: str, make: Callable[[], Any]) -> Any:
    frame = context.require(f"st.{name}")
    if frame.in_effect:
        return make()
    return frame.executor.read(frame, name, make)


def _entry_of(plain: dict[str, Any]) -> Entry:
    at = plain["at"] and dt.datetime.fromisoformat(plain["at"])
    return Entry(**{**plain, "at": at})


def _sleep() -> None:
    raise AssertionError("a timer is waited for, never called")


_SLEEP: Step[Any, Any] = Step(fn=_sleep, name="sleep", kind="timer")
