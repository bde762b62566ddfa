"""How this process talks to the service about one run: one turn at a time, each taking along what has gathered.

Threads that want to begin steps at once share a turn: whoever gets the lock sends for all.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentstate.core.errors import DomainError, Fenced, NonDeterminism, Unavailable
from agentstate.sdk.deferred import Deferred, Load
from agentstate.sdk.lease import Trust
from agentstate.sdk.signals import Diverged, LeaseLost, RunInterrupted
from agentstate.sdk.store import (
    Begun,
    Claim,
    Continue,
    Control,
    End,
    Park,
    RunStore,
    StepFinish,
    StepStart,
    Turn,
    TurnReply,
    type_json,
)

_AGAIN_FIRST_S = 0.05
_AGAIN_S_MAX = 1.0


@dataclass(slots=True)
class Ticket:
    """A step to begin, waiting for the turn that carries it."""

    start: StepStart
    begun: Begun | None = None
    asked_at: float = 0.0  # monotonic, from before the turn was sent
    error: BaseException | None = None
    carried: bool = False


class Turns:
    def __init__(
        self,
        store: RunStore,
        claim: Claim,
        *,
        trust: Trust,
        deferred: Deferred,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._claim = claim
        self._trust = trust
        self._deferred = deferred
        self._monotonic = monotonic
        self._queue: list[Ticket] = []
        self._queue_lock = threading.Lock()
        self._turn_lock = threading.RLock()
        self.control: Control | None = claim.control
        self.status = "running"
        self.closed = False

    def begin(self, start: StepStart) -> Ticket:
        """Ask for one step; ended steps ride along. `begun` stays None when control kept the service from beginning it.

        Raises: LeaseLost, Diverged, and the service's Invalid and TooLarge.
        """
        ticket = Ticket(start)
        with self._queue_lock:
            self._queue.append(ticket)
        with self._turn_lock:
            if not ticket.carried:
                self._carry_all()
        if ticket.error is not None:
            raise ticket.error
        return ticket

    def flush(self) -> None:
        """Commit what has gathered, now. Raises: LeaseLost, Diverged."""
        with self._turn_lock:
            load = self._deferred.load()
            if not load.is_empty:
                self._exchange(load, ())

    def close(self, then: Park | End | Continue) -> TurnReply:
        """The last turn of this claim, or of this generation. Raises: LeaseLost, Invalid."""
        with self._turn_lock:
            reply, _ = self._exchange(self._deferred.load(), (), then)
            self.closed = not isinstance(then, Continue)
            return reply

    def ask_memory(self, act: str, body: type_json, *, step_seq: int, key: str) -> type_json:
        """Read or write memory, beside the turns; again while the service is away, which a key makes harmless.

        Raises: LeaseLost, and what the service refuses.
        """
        wait_s = _AGAIN_FIRST_S
        while True:
            self._trust.check()
            try:
                return self._store.memory(self._claim, act, body, step_seq=step_seq, key=key)
            except Fenced as error:
                self._trust.lose(str(error))
                raise LeaseLost(str(error)) from error
            except Unavailable as error:
                if self._trust.remaining_s() <= wait_s:
                    raise LeaseLost(f"the service was away until the lease was over: {error}") from error
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, _AGAIN_S_MAX)

    def bring_all_late(self) -> None:
        """What could not be committed at all."""
        load = self._deferred.load()
        self._deferred.unload(load)
        for finish in load.finish:
            self.bring_late(finish)

    def bring_late(self, finish: StepFinish) -> None:
        """A reply that came after the lease was lost: evidence for a person, if it arrives at all."""
        with contextlib.suppress(Exception):  # the step is in doubt with or without it
            self._store.late(self._claim, finish)

    def _carry_all(self) -> None:
        with self._queue_lock:
            tickets, self._queue = self._queue, []
        for ticket in tickets:
            ticket.carried = True
        try:
            load = self._deferred.load()
            reply, asked_at = self._exchange(load, [ticket.start for ticket in tickets])
        except (RunInterrupted, DomainError) as error:
            for ticket in tickets:
                ticket.error = error
            return
        is_whole = len(reply.begun) == len(load.reads) + len(tickets)  # else only the reads were recorded
        begun = reply.begun[len(load.reads) :] if is_whole else ()
        for ticket, answer in zip(tickets, begun, strict=False):
            ticket.begun, ticket.asked_at = answer, asked_at

    def _exchange(
        self, load: Load, starts: Sequence[StepStart], then: Park | End | Continue | None = None
    ) -> tuple[TurnReply, float]:
        if self.closed:
            raise LeaseLost("this process has given the run back")
        turn = Turn(load.finish, (*load.reads, *starts), load.entries, load.state, then)
        try:
            reply, asked_at = self._send(turn)
        except Fenced as error:
            self._fenced(load, str(error))
            raise LeaseLost(str(error)) from error
        except NonDeterminism as error:
            self._deferred.keep(load)
            raise Diverged(str(error)) from error
        except DomainError:
            self._deferred.keep(load)
            raise
        except Exception as error:  # a store that breaks is no news for the agent: it must not catch this
            self._fenced(load, f"{type(error).__name__}: {error}")
            raise LeaseLost(f"the store broke: {type(error).__name__}: {error}") from error
        self._deferred.unload(load)
        self.control = reply.control
        self.status = reply.status
        return reply, asked_at

    def _send(self, turn: Turn) -> tuple[TurnReply, float]:
        """At least once; again while the service is away and the lease is ours. The same turn twice is one turn."""
        wait_s = _AGAIN_FIRST_S
        while True:
            asked_at = self._monotonic()
            try:
                reply = self._store.turn(self._claim, turn)
            except Unavailable as error:
                if self._trust.remaining_s() <= wait_s:
                    raise Fenced(f"the service was away until the lease was over: {error}") from error
                time.sleep(wait_s)
                wait_s = min(wait_s * 2, _AGAIN_S_MAX)
                continue
            self._trust.extend(asked_at=asked_at)
            return reply, asked_at

    def _fenced(self, load: Load, why: str) -> None:
        self._trust.lose(why)
        self._deferred.unload(load)
        for finish in load.finish:
            self.bring_late(finish)
