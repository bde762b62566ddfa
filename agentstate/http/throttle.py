"""Fixed-window limits on tries: counted in Redis for all processes, in this process alone while Redis is away.

Falling back open would let whoever can slow Redis down guess passwords without end; falling back shut would lock
everybody out. The process's own counter is a limit per process: weaker, and still one.
"""

from __future__ import annotations

import threading
import time
from hashlib import sha256

import redis
import structlog

from agentstate.core.errors import DomainError
from agentstate.db import wake

log = structlog.get_logger(__name__)
LOGIN_TRIES_MAX = 5
LOGIN_WINDOW_S = 15 * 60
LOCAL_KEYS_MAX = 10_000


class TooManyTries(DomainError):
    """There were too many tries."""

    code = "too-many-tries"
    http_status = 429


def try_login(email: str, *, address: str) -> None:
    """Count one try to sign in as `email` from this address. Raises: TooManyTries(retry_after_s) from the sixth on."""
    spend("login", email.strip().lower(), address, tries_max=LOGIN_TRIES_MAX, window_s=LOGIN_WINDOW_S)


def forgive_login(email: str, *, address: str) -> None:
    """After a successful sign-in its window starts afresh."""
    forgive("login", email.strip().lower(), address)


def spend(what: str, *who: str, tries_max: int, window_s: int) -> None:
    """Count one try of `what` by `who`. Raises: TooManyTries with retry_after_s, the rest of the window."""
    key = _key(what, *who)
    try:
        used, left_s = _count(key, window_s=window_s)
    except (redis.RedisError, OSError) as error:
        log.warning("throttle.redis_away", what=what, error=type(error).__name__)
        used, left_s = _local.count(key, window_s=window_s)
    if used > tries_max:
        log.info("throttle.refused", what=what, key=key)
        minutes = max(1, round(left_s / 60))
        raise TooManyTries(
            f"There were too many tries. Try again in {minutes} minute{'s' if minutes > 1 else ''}.",
            retry_after_s=max(1, left_s),
        )


def forgive(what: str, *who: str) -> None:
    """Start the window afresh."""
    key = _key(what, *who)
    _local.forget(key)
    try:
        wake.redis().delete(key)
    except (redis.RedisError, OSError) as error:
        log.warning("throttle.redis_away", what=what, error=type(error).__name__)


def _key(what: str, *who: str) -> str:
    # A digest: no e-mail addresses in Redis, and a bounded key whatever was typed.
    return f"as:throttle:{what}:{sha256(chr(0).join(who).encode(errors='replace')).hexdigest()[:32]}"


def _count(key: str, *, window_s: int) -> tuple[int, int]:
    with wake.redis().pipeline(transaction=True) as steps:
        # SET NX carries the expiry: a counter that never expires would lock somebody out for ever.
        steps.set(key, 0, ex=window_s, nx=True)
        steps.incr(key)
        steps.ttl(key)
        _, used, left_s = steps.execute()
    return int(used), int(left_s)


class Local:
    """Counters of this process; bounded by forgetting the windows that are over, then all."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}  # key -> (end, used); monotonic seconds
        self._lock = threading.Lock()

    def count(self, key: str, *, window_s: int) -> tuple[int, int]:
        now = time.monotonic()
        with self._lock:
            end, used = self._windows.get(key, (0.0, 0))
            if now >= end:
                end, used = now + window_s, 0
            self._make_room(now)
            self._windows[key] = end, used + 1
        return used + 1, int(end - now) + 1

    def forget(self, key: str) -> None:
        with self._lock:
            self._windows.pop(key, None)

    def _make_room(self, now: float) -> None:
        if len(self._windows) >= LOCAL_KEYS_MAX:
            self._windows = {key: window for key, window in self._windows.items() if window[0] > now}
        if len(self._windows) >= LOCAL_KEYS_MAX:
            self._windows.clear()


_local = Local()
