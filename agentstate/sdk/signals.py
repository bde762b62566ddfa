"""What an agent may catch (Exception), and what it may not (BaseException).

Control flow of the runtime inherits BaseException, so that an agent's `except Exception` cannot swallow it; the
executor also remembers it and raises it again at the next step.

Exception
├── StepFailed           a step ended without a result; the same class in the first run and in every replay
│   ├── NotSent          nothing left this process; the call may be made again
│   ├── Refused          the other side said a definite no
│   └── TimedOut         a step without side effects took too long
├── NotApproved          a person (or nobody in time) decided that the call is not made
│   ├── Rejected
│   ├── Expired
│   └── Withdrawn
└── Answered             a person replied in words instead of approving the call

BaseException
└── RunInterrupted       this process stops working on the run
    ├── Waiting          for a person, a timer, a retry, a probe
    ├── Ended            cancelled, or stopped by the service
    ├── LeaseLost        somebody else may have the run by now
    ├── Diverged         the agent asked for another step than the one recorded
    └── ContinueFrom     the generation is closed
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentstate.sdk.store import End, Failure, Park

_PARK_ORDER = ("code", "stop", "pause", "budget", "in_doubt", "approval", "probe", "retry", "timer", "shutdown")


class StepFailed(Exception):
    """A step ended without a result. `type` is the class name of what it raised."""

    def __init__(self, message: str = "", *, type: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.type = type or self.__class__.__name__
        self.steps: tuple[int, ...] = ()  # seq of the steps that failed by it, innermost first


class NotSent(StepFailed):
    """Raise it in a tool when nothing has left this process: the call may then be made again with a new key."""


class Refused(StepFailed):
    """Raise it in a tool when the other side definitely did not do it and would refuse again."""


class TimedOut(StepFailed):
    """A step without side effects took longer than its timeout."""


class NotApproved(Exception):
    """The call was not made. `reason` is what the person wrote."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Rejected(NotApproved):
    """A person said no."""


class Expired(NotApproved):
    """Nobody decided in time, or the approval was not used in time."""


class Withdrawn(NotApproved):
    """The question was taken back before anybody decided."""


class Answered(Exception):
    """A person replied in words instead of approving; the call was not made. Hand `message` to the model."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class RunInterrupted(BaseException):
    """This process stops working on the run. Do not catch it."""


class Waiting(RunInterrupted):
    def __init__(self, park: Park) -> None:
        super().__init__(park.why)
        self.park = park


class Ended(RunInterrupted):
    def __init__(self, end: End) -> None:
        super().__init__(end.outcome)
        self.end = end


class LeaseLost(RunInterrupted):
    """Nothing more may be called or written for this run by this process."""


class Diverged(RunInterrupted):
    """The agent asked for another step than the one recorded."""


class ContinueFrom(RunInterrupted):
    def __init__(self, state: Any) -> None:
        super().__init__("continue_from")
        self.state = state


def merged(waits: Iterable[Waiting]) -> Waiting:
    """One Park for several waits: the gravest reason, the earliest time at which to look again."""
    parks = [wait.park for wait in waits]
    gravest = min(parks, key=lambda park: _PARK_ORDER.index(park.why))
    dues = [park.due_s for park in parks if park.due_s is not None]
    return Waiting(Park(gravest.why, due_s=min(dues) if dues else None, detail=gravest.detail))


def failure_of(error: BaseException, *, retryable: bool = False) -> Failure:
    kind = error.type if isinstance(error, StepFailed) else type(error).__name__
    return Failure(kind, _printable(str(error)), retryable)


def error_of(failure: Failure | None, *, steps: tuple[int, ...]) -> StepFailed:
    """The exception an agent sees, in the first run as in a replay."""
    failure = failure or Failure("StepFailed", "the step failed")
    kinds = {kind.__name__: kind for kind in (NotSent, Refused, TimedOut)}
    error = kinds.get(failure.type, StepFailed)(failure.message, type=failure.type)
    error.steps = steps
    return error


def steps_of(error: BaseException | None) -> tuple[int, ...]:
    """The steps an exception comes from, also when the agent raised its own one from theirs."""
    while error is not None:
        if isinstance(error, StepFailed):
            return error.steps
        error = error.__cause__
    return ()


def _printable(text: str) -> str:
    # A message may quote a payload with bytes that no store can hold.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\u0000")[:4_000]
