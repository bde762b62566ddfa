"""One thread beside the agent's code: renews the lease, commits results that wait too long, watches timeouts."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from agentstate.core.errors import DomainError, Fenced
from agentstate.sdk.deferred import Deferred
from agentstate.sdk.flights import Flight, Flights
from agentstate.sdk.lease import RENEWALS_PER_LEASE, TRUSTED_PART, Trust
from agentstate.sdk.signals import RunInterrupted
from agentstate.sdk.store import Claim, RunStore
from agentstate.sdk.turns import Turns

DEFERRED_S = 0.25  # a result waits at most so long for a turn to ride in
_SHOWN_S = 0.05
log = logging.getLogger("agentstate.sdk")
_HURRY_S = 0.05


class Heartbeat:
    """`on_overdue` is told of each call that took too long, `on_tick` is asked after every round of work."""

    def __init__(
        self,
        store: RunStore,
        claim: Claim,
        *,
        trust: Trust,
        turns: Turns,
        deferred: Deferred,
        flights: Flights,
        on_overdue: Callable[[Flight], None],
        on_tick: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._claim = store, claim
        self._trust, self._turns = trust, turns
        self._deferred, self._flights = deferred, flights
        self._on_overdue, self._on_tick = on_overdue, on_tick
        self._monotonic = monotonic
        self._wake = threading.Condition()
        self._stopping = False
        self._asleep_until = 0.0
        self._renew_at = monotonic() + trust.lease_s / RENEWALS_PER_LEASE
        self._show_at: float | None = None
        self.is_hurried = False  # the process must end soon: look often whether it may
        self._thread = threading.Thread(target=self._beat, name="agentstate-heartbeat", daemon=True)

    def renew_if_late(self) -> None:
        """A claim that took so long that a renewal is due already: ask for it now. Before start()."""
        if self._trust.remaining_s() < self._trust.lease_s * (TRUSTED_PART - 1 / RENEWALS_PER_LEASE):
            self._renew()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def look_by(self, at: float) -> None:
        """Something is due at this monotonic time. Costs nothing when the thread wakes before it anyway."""
        with self._wake:  # held while the thread works out when to wake, so nothing falls in between
            if at < self._asleep_until:
                self._wake.notify()

    def show_soon(self) -> None:
        self._show_at = self._monotonic() + _SHOWN_S
        self.look_by(self._show_at)

    def _beat(self) -> None:
        while True:
            with self._wake:
                if self._stopping:
                    return
                self._asleep_until = self._next()
                self._wake.wait(max(0.0, self._asleep_until - self._monotonic()))
                self._asleep_until = 0.0
                if self._stopping:
                    return
            try:
                self._work()
            except Exception:  # this thread is the watchdog: it must outlive a store that breaks
                log.exception("the heartbeat of %s stumbled", self._claim.run_id)

    def _next(self) -> float:
        dues = [self._renew_at, self._flights.next_end(), self._show_at]
        if self._deferred.since is not None:
            dues.append(self._deferred.since + DEFERRED_S)
        if self.is_hurried:
            dues.append(self._monotonic() + _HURRY_S)
        return min(due for due in dues if due is not None)

    def _work(self) -> None:
        now = self._monotonic()
        for flight in self._flights.abandon_overdue(now):
            self._on_overdue(flight)
        if now >= self._renew_at:
            self._renew()
        if self._show_at is not None and now >= self._show_at:
            self._show()
        since = self._deferred.since
        if since is not None and now >= since + DEFERRED_S:
            self._flush()
        self._on_tick()

    def _renew(self) -> None:
        asked_at = self._monotonic()
        self._renew_at = asked_at + self._trust.lease_s / RENEWALS_PER_LEASE
        try:
            renewal = self._store.renew(self._claim)
        except Fenced as error:
            if not self._turns.closed:
                self._trust.lose(str(error))
            return
        except DomainError:
            return  # the next beat tries again; trust runs out by itself
        self._trust.extend(asked_at=asked_at, lease_s=renewal.lease_s)
        if renewal.control is not None:
            self._turns.control = renewal.control

    def _show(self) -> None:
        self._show_at = None
        if self._trust.is_lost:  # entries of the refused turn are dropped: those after them would leave a gap
            return
        entries = self._deferred.unshown()
        with contextlib.suppress(DomainError):  # the next turn makes them durable
            if entries:
                self._store.note(self._claim, entries)

    def _flush(self) -> None:
        try:
            self._turns.flush()
        except (RunInterrupted, DomainError):
            # Kept, or the lease is lost: the agent's own next turn meets the same error and acts on it.
            self._deferred.since = None
