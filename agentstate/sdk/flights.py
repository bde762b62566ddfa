"""Calls of steps that are running right now, and when each must be over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from agentstate.sdk.store import StepFinish


@dataclass(slots=True, eq=False)
class Flight:
    name: str
    on_timeout: Callable[[], StepFinish]  # what to record when it takes too long
    ends_at: float | None  # monotonic
    waits_below: bool = False  # a step that called other steps: it cannot be over before they are
    abandoned: bool = False


class Flights:
    """Thread-safe. A flight ends exactly once: by its own return, or abandoned by the watchdog."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[Flight] = []

    def enter(self, flight: Flight) -> Flight:
        with self._lock:
            self._live.append(flight)
        return flight

    def leave(self, flight: Flight) -> bool:
        """True when the flight ended by itself; False when the watchdog has recorded it already."""
        with self._lock:
            if flight.abandoned:
                return False
            self._live.remove(flight)
            return True

    def abandon_overdue(self, now: float) -> list[Flight]:
        with self._lock:
            overdue = [flight for flight in self._live if flight.ends_at is not None and flight.ends_at <= now]
            for flight in overdue:
                flight.abandoned = True
                self._live.remove(flight)
            return overdue

    def next_end(self) -> float | None:
        with self._lock:
            return min((flight.ends_at for flight in self._live if flight.ends_at is not None), default=None)

    def leaves(self) -> int:
        """Calls still running that are worth waiting for."""
        with self._lock:
            return sum(1 for flight in self._live if not flight.waits_below)
