"""Drives one claimed run: calls the agent's main, records its steps, obeys the service, gives the run back.

Invariant: nothing is called unless the service said so under this claim's fence, and only while the lease is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agentstate.core.canonical import digest
from agentstate.core.errors import DomainError, Invalid
from agentstate.sdk import context, driving, summariser, values
from agentstate.sdk.agents import Agent, Done
from agentstate.sdk.concurrency import run_to_end
from agentstate.sdk.deferred import Deferred
from agentstate.sdk.flights import Flight, Flights
from agentstate.sdk.heartbeat import DEFERRED_S, Heartbeat
from agentstate.sdk.identity import Scope
from agentstate.sdk.lease import Trust
from agentstate.sdk.notes import Notebook, plain_of
from agentstate.sdk.pacing import IN_PROCESS_S
from agentstate.sdk.procedure import proceed
from agentstate.sdk.recording import Book
from agentstate.sdk.run_state import Committed, View
from agentstate.sdk.signals import (
    ContinueFrom,
    Diverged,
    Ended,
    LeaseLost,
    RunInterrupted,
    Waiting,
    failure_of,
    steps_of,
)
from agentstate.sdk.steps import Call, Step
from agentstate.sdk.store import Claim, Continue, End, Park, RunStore, StepFinish, StepStart
from agentstate.sdk.summariser import Summarise
from agentstate.sdk.turns import Turns

STUCK_EXIT_CODE = 70
_NOTES = "scratchpad.note"  # counts the entries of main in each scope
_NULL_SHA = digest(None).hex()


def end_process() -> None:
    """A synchronous call cannot be cancelled, so the worker's child ends, with the call inside it."""
    os._exit(STUCK_EXIT_CODE)


@dataclass(frozen=True, slots=True)
class Driven:
    """What became of the run in this process. `then` None: the lease was lost."""

    then: Park | End | None
    status: str  # of the run, as the service said
    why_lost: str = ""


class Executor:
    """`asked_at`: monotonic time from before the claim was asked for. `suspend_always`: give the run back after every
    new step, a test's way to find what is not recorded. `summarise`: the host's model, for agents without one.
    """

    def __init__(
        self,
        store: RunStore,
        claim: Claim,
        agent: Agent,
        *,
        asked_at: float | None = None,
        on_stuck: Callable[[], None] = end_process,
        suspend_always: bool = False,
        summarise: Summarise | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.claim, self.agent = claim, agent
        self.monotonic = monotonic
        self.in_process_s = 0.0 if suspend_always else IN_PROCESS_S
        self.trust = Trust(claim.lease_s, asked_at=monotonic() if asked_at is None else asked_at, monotonic=monotonic)
        self.flights = Flights()
        self.book = Book(claim.history, run_id=claim.run_id)
        self.committed, self._base = self._state_of(claim.base_state, newest=claim.state)
        self.deferred = Deferred(self.committed, monotonic=monotonic)
        self.turns = Turns(store, claim, trust=self.trust, deferred=self.deferred, monotonic=monotonic)
        self.heartbeat = Heartbeat(
            store,
            claim,
            trust=self.trust,
            turns=self.turns,
            deferred=self.deferred,
            flights=self.flights,
            on_overdue=self._abandon,
            on_tick=self._leave_when_stuck,
            monotonic=monotonic,
        )
        self.notebook = Notebook(claim, self.deferred)
        self._summarise = agent.summarise or summarise
        self._tidying = threading.Lock()
        self._scope = Scope()
        self._on_stuck, self._suspend_always = on_stuck, suspend_always
        self._halted: RunInterrupted | None = None
        self._driven: Driven | None = None
        self._closing = threading.Lock()  # the watchdog may give the run back while main ends
        self._is_stuck = self._is_shutting_down = False
        self._executed = 0

    # What a worker does with it

    def run(self) -> Driven:
        """Until the run ends, waits, or is lost. What ends the process passes through, and nothing is written then."""
        self.heartbeat.renew_if_late()  # before main, which would find too little trust for its first step
        self.heartbeat.start()
        try:
            while True:
                then = self._generation()
                if not isinstance(then, Continue):
                    return self._close(then)
                try:
                    self.turns.close(then)
                except Invalid as error:
                    return self._close(End("failed", failure=failure_of(error)))
                self._open_next(then.state)
        except LeaseLost as error:
            if self._is_stuck:  # the call came back after it was given up: nothing is stuck, so the run need not wait
                self._give_back()
            return self._driven or Driven(None, "lost", str(error))
        except DomainError as error:
            self.turns.bring_all_late()
            return self._driven or Driven(None, "lost", str(error))
        finally:
            self.heartbeat.stop()

    def shut_down(self) -> None:
        """Give the run back at the next step boundary. Callable from a signal handler."""
        self._is_shutting_down = True

    # What steps, reads and notes do with it

    def reserve(self, frame: context.Frame, name: str, *, key: str = "") -> str:
        """The name of the next step, in the order of calling. Raises: a wait of this scope that the agent swallowed."""
        if frame.scope.halted is not None:
            raise frame.scope.halted
        try:
            self.book.check_count()
        except Ended as interrupt:
            self.halt(interrupt)
            raise
        identity = frame.scope.reserve(name, key=key)
        self.book.ask(identity)
        return identity

    def perform(self, call: Call, *, in_loop: bool | None = None, due_s: float | None = None) -> Any:
        """The step's value; a coroutine for it when the step is async."""
        steps = proceed(self, call, due_s=due_s)
        if call.step.is_async if in_loop is None else in_loop:
            return driving.drive_async(self, steps, call)
        return driving.drive(self, steps, call)

    def read(self, frame: context.Frame, name: str, make: Callable[[], Any]) -> Any:
        """A value from outside, recorded with the next turn."""
        identity = self.reserve(frame, name)
        record = self.book.find(identity)
        try:
            self.book.check_payload(identity, _NULL_SHA)
            self.book.check_expected(identity, scope=frame.scope.path, shared=frame.scope.shared)
        except Diverged as interrupt:
            self.halt(interrupt)
            raise
        if record is not None:
            return record.output
        self.check_boundary()
        value = make()
        finish = StepFinish(0, "done", output=value)
        self.deferred.add_read(StepStart(identity, name, "value", parent=frame.scope.parent, attempt=1, result=finish))
        self.heartbeat.look_by(self.monotonic() + DEFERRED_S)
        return value

    def note(self, frame: context.Frame, text: str, *, kind: Any, important: bool) -> None:
        """Once, though main runs again."""
        identity = ""
        if frame.call is None:
            identity = f"{frame.scope.path}#{frame.scope.number(_NOTES)}"
            if self.book.has_unasked(frame.scope.path) or self.notebook.is_written(identity):
                return
        extracts = self._summarise is None and not frame.in_effect
        self.notebook.write(
            text, kind=kind, important=important, step_seq=frame.seq, identity=identity, shorten=extracts
        )
        self.heartbeat.show_soon()
        if not frame.in_effect:
            with contextlib.suppress(RunInterrupted, DomainError):  # the next boundary meets it again
                self.tidy(may_block=not driving.in_loop())

    def scratchpad(self, frame: context.Frame) -> list[dict[str, Any]]:
        """The entries in force, as a value to record."""
        if not frame.in_effect:
            self.tidy(may_block=not driving.in_loop())
        return plain_of(self.notebook.entries())

    @property
    def is_tidying_due(self) -> bool:
        return self.notebook.is_due or self.book.open_summary() is not None

    def tidy(self, *, may_block: bool) -> None:
        """Summarise the scratchpad when it is due; what a model has to do waits for a place where it may.

        Raises: RunInterrupted.
        """
        if not self.is_tidying_due:
            return
        asks = self._summarise is not None or self.book.open_summary() is not None
        if asks and may_block and self._tidying.acquire(blocking=False):
            try:
                summariser.ask(self, self._summarise)
            finally:
                self._tidying.release()
        if not asks:
            self.notebook.shorten()
        elif self.notebook.share > 1.0:
            self.notebook.shorten(why="there was no time to ask the model")
        self.heartbeat.look_by(self.monotonic() + DEFERRED_S)

    def seqs_of(self, evidence: Iterable[Any]) -> tuple[int, ...]:
        """Steps (their latest call is meant) or seq numbers. Raises: ValueError for a step that was not called yet."""
        return tuple(self.book.seq_of(item.name) if isinstance(item, Step) else int(item) for item in evidence)

    def leave(self, scope: Scope, *, is_whole: bool = True) -> None:
        """Code has ended: what it swallowed is raised again, what it left out is found."""
        interrupt = self._halted or scope.halted
        if interrupt is not None:
            raise interrupt
        if is_whole:
            self.book.check_complete(scope.path)

    def check_boundary(self) -> None:
        """Before anything new is begun. Raises: RunInterrupted, again and again if the agent swallows it."""
        if self._halted is not None:
            raise self._halted
        if self._is_stuck:
            raise LeaseLost("a call took too long; this process gives the run back")
        self.trust.check()
        self.obey()
        if self._suspend_always and self._executed:
            raise Waiting(Park("shutdown", due_s=0.0))

    def obey(self) -> None:
        """What a person or the worker asked for meanwhile. Raises: Ended, Waiting."""
        control = self.turns.control
        if control == "cancel":
            raise Ended(End("cancelled"))
        if control is not None:
            raise Waiting(Park(control))
        if self._is_shutting_down:
            raise Waiting(Park("shutdown", due_s=0.0))

    def halt(self, interrupt: RunInterrupted) -> None:
        """Raise this at every further boundary, whatever the agent's code does with it."""
        self._halted = self._halted or interrupt

    def count_executed(self) -> None:
        self._executed += 1

    # One generation

    def _generation(self) -> Park | End | Continue:
        try:
            self.check_boundary()
            result = contextvars.copy_context().run(self._call_main)
            self.leave(self._scope)
            return self._ending_of(result)
        except (RunInterrupted, asyncio.CancelledError, Exception) as error:
            return self._ending_by(error)

    def _call_main(self) -> Any:
        context.enter(context.Frame(self, self._scope, View(self.committed, writable=False)))
        self._scope.adopt()
        if self.agent.mode == "replay":
            result = self.agent.start(self.claim.input)
        else:  # the first turn of a snapshot agent starts from the run's input
            result = self.agent.turn(self.claim.input if self._base is None else self._base)
        return run_to_end(self._adopted(result)) if inspect.iscoroutine(result) else result

    async def _adopted(self, main: Any) -> Any:
        self._scope.adopt()
        return await main

    def _ending_of(self, result: Any) -> End | Continue:
        if self.agent.mode == "snapshot" and not isinstance(result, Done):
            state = values.settled(result, where="/state")
            self.agent.hydrated_state(state)  # a state that its own model refuses must not become the truth
            return Continue(state)
        output = result.result if isinstance(result, Done) else result
        return End("succeeded", output=values.settled(output, where="/output"))

    def _ending_by(self, error: BaseException) -> Park | End | Continue:
        interrupt = self._halted or self._scope.halted or error
        if isinstance(interrupt, ContinueFrom):
            return Continue(interrupt.state)
        if isinstance(interrupt, Waiting):
            return interrupt.park
        if isinstance(interrupt, Ended):
            return interrupt.end
        if isinstance(interrupt, Diverged):
            return Park("code", detail=str(interrupt))
        if isinstance(interrupt, RunInterrupted):
            raise interrupt
        return End("failed", failure=failure_of(interrupt), steps=steps_of(interrupt))

    def _open_next(self, state: Any) -> None:
        self.book = Book((), run_id=self.claim.run_id)
        self.committed, self._base = self._state_of(state, newest=state)
        self.deferred.rebase(self.committed)
        self.notebook.open_next()
        self._scope = Scope()

    def _state_of(self, base: Any, *, newest: Any) -> tuple[Committed, Any]:
        if self.agent.mode == "snapshot":
            return Committed(None, base=None), base
        return Committed(newest, base=base), base

    def _close(self, then: Park | End) -> Driven:
        with self._closing:
            if self._driven is None:
                self._driven = self._closed(then)
            return self._driven

    def _closed(self, then: Park | End) -> Driven:
        try:
            return Driven(then, self.turns.close(then).status)
        except Invalid as error:  # the service cannot keep the output: that is the run's failure, not its end
            if not isinstance(then, End) or then.outcome != "succeeded":
                raise
            then = End("failed", failure=failure_of(error))
            return Driven(then, self.turns.close(then).status)

    # The watchdog's part, in the heartbeat thread

    def _abandon(self, flight: Flight) -> None:
        """Record what is known about a call that took too long; then this process must end."""
        self._is_stuck = self.heartbeat.is_hurried = True
        self.deferred.add_finish(flight.on_timeout())
        with contextlib.suppress(RunInterrupted, DomainError):  # fenced: who has the run now judges it by its class
            self.turns.flush()

    def _leave_when_stuck(self) -> None:
        if self._is_stuck and not self.flights.leaves():
            self._give_back()
            self._on_stuck()

    def _give_back(self) -> None:
        with contextlib.suppress(RunInterrupted, DomainError):
            self._close(Park("retry", due_s=0.0, detail="a call took too long"))
