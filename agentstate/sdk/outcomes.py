"""What an exception, or a probe, says about a call.

not_sent    nothing left this process: it may be called again, with a new key unless an earlier call had this one
refused     the other side definitely did not do it
failed      a step without side effects raised
unknown     it may have happened; the class of the effect decides what is done about it

Only what proves that nothing happened counts as proof. A timeout never does. Of the 4xx answers these do not either:
408 (the server gave up in the middle), 409 (often the answer to a repeated key), 425 and 429 (may come from a proxy in
front of a server that has the request); they are unknown.
"""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

from agentstate.core.errors import DomainError
from agentstate.sdk.signals import NotSent, Refused, failure_of
from agentstate.sdk.store import Failure, Outcome

_NOT_SENT_NAMES = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
_NOT_SENT_HOMES = ("httpx", "httpcore")
_STATUS_UNSURE = frozenset({408, 409, 425, 429})


@dataclasses.dataclass(frozen=True, slots=True)
class Happened:
    """A probe found the call; `result` is what the tool would have returned."""

    result: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class NotHappened:
    """A probe asked and the other side does not know the key."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """A probe could not find out."""

    why: str = ""


def classify(error: BaseException, *, has_effect: bool) -> tuple[Outcome, Failure]:
    """What to record for a call that raised. `type` in the failure is what the agent can catch by name."""
    if _is_not_sent(error):
        return "not_sent", _renamed(error, NotSent, retryable=True)
    if _is_refused(error):
        return "refused", _renamed(error, Refused, retryable=False)
    if has_effect:
        return "unknown", failure_of(error)
    # What the service or the rules refuse (no JSON, too large) is refused again.
    return "failed", failure_of(error, retryable=not isinstance(error, DomainError))


def _is_not_sent(error: BaseException) -> bool:
    if isinstance(error, (NotSent, ConnectionRefusedError, socket.gaierror)):
        return True
    kind = type(error)
    home = kind.__module__.partition(".")[0]
    return kind.__name__ in _NOT_SENT_NAMES and home.startswith(_NOT_SENT_HOMES)


def _is_refused(error: BaseException) -> bool:
    if isinstance(error, Refused):
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in _STATUS_UNSURE


def _renamed(error: BaseException, kind: type[Exception], *, retryable: bool) -> Failure:
    found = failure_of(error, retryable=retryable)
    if found.type == kind.__name__:
        return found
    return Failure(kind.__name__, f"{found.type}: {found.message}", retryable)
