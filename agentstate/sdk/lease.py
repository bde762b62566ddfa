"""How long this process may believe that the run is its own.

Counted by the monotonic clock from BEFORE the service was asked: an answer that took four seconds on its way leaves
four seconds less. A slow success therefore never extends the trust beyond what the service granted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from agentstate.sdk.signals import LeaseLost

TRUSTED_PART = 0.9  # the rest is for clocks that run at different speeds and for the way of the call itself
RENEWALS_PER_LEASE = 4


class Trust:
    """Thread-safe. Once lost it never comes back: only a new claim starts a new one."""

    def __init__(self, lease_s: float, *, asked_at: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._until = asked_at + lease_s * TRUSTED_PART
        self._lost = ""
        self.lease_s = lease_s

    def extend(self, *, asked_at: float, lease_s: float | None = None) -> None:
        with self._lock:
            self.lease_s = self.lease_s if lease_s is None else lease_s
            self._until = max(self._until, asked_at + self.lease_s * TRUSTED_PART)

    def lose(self, why: str) -> None:
        with self._lock:
            self._lost = self._lost or why

    def remaining_s(self) -> float:
        with self._lock:
            return 0.0 if self._lost else max(0.0, self._until - self._monotonic())

    @property
    def is_lost(self) -> bool:
        return bool(self._lost)

    def check(self) -> None:
        """Raises: LeaseLost."""
        if self.remaining_s() <= 0:
            raise LeaseLost(self._lost or "the lease was not renewed in time")
