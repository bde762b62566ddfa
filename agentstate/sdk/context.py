"""Where the running code stands: which run, which step, which scope. One context variable, copied into every branch."""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentstate.sdk.store import Usage

if TYPE_CHECKING:
    from agentstate.sdk.executor import Executor
    from agentstate.sdk.flights import Flight
    from agentstate.sdk.identity import Scope
    from agentstate.sdk.run_state import View
    from agentstate.sdk.steps import Call


@dataclass(slots=True)
class Frame:
    """`call` is the step whose body runs, None in the agent's main."""

    executor: Executor
    scope: Scope
    view: View
    call: Call | None = None
    seq: int | None = None
    flight: Flight | None = None
    usage: list[Usage] = field(default_factory=list)
    is_leaf: bool = False  # it calls no steps, whatever its effects

    @property
    def in_effect(self) -> bool:
        """Its body is never replayed, and records nothing of its own."""
        return self.is_leaf or (self.call is not None and self.call.step.has_effect)

    def charged(self) -> Usage | None:
        """What the calls in it used, added up."""
        if not self.usage:
            return None
        return Usage(
            self.usage[-1].model,
            sum(part.tokens_in for part in self.usage),
            sum(part.tokens_out for part in self.usage),
            sum(part.cost for part in self.usage),
        )


_frame: ContextVar[Frame | None] = ContextVar("agentstate_frame", default=None)


def current() -> Frame | None:
    return _frame.get()


def require(what: str) -> Frame:
    """Raises: RuntimeError outside a run."""
    frame = _frame.get()
    if frame is None:
        raise RuntimeError(f"{what} works only inside a run: in an agent's main or in a step it calls.")
    return frame


def enter(frame: Frame) -> None:
    """For a context that ends with the caller: a copied one, or a task's own."""
    _frame.set(frame)


def swap(frame: Frame) -> Token[Frame | None]:
    """For the time of a call; `restore` ends it, in the same context."""
    return _frame.set(frame)


def restore(token: Token[Frame | None]) -> None:
    _frame.reset(token)
