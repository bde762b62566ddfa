"""The call itself: inside the trusted lease, under a timeout, its ending classified and recorded."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from agentstate.core import canonical
from agentstate.core.errors import DomainError
from agentstate.sdk import context, values
from agentstate.sdk.flights import Flight
from agentstate.sdk.heartbeat import DEFERRED_S
from agentstate.sdk.identity import Scope
from agentstate.sdk.outcomes import Unknown, classify
from agentstate.sdk.pacing import back_off_s
from agentstate.sdk.procedure import Ending, Invoke
from agentstate.sdk.run_state import Change, View
from agentstate.sdk.signals import Ended, LeaseLost, NotSent, TimedOut, Waiting, failure_of, steps_of
from agentstate.sdk.steps import Call
from agentstate.sdk.store import Begun, End, Failure, Outcome, Park, StepFinish

if TYPE_CHECKING:
    from agentstate.sdk.executor import Executor

SLOW_S = 1.0  # the result of a longer step is committed at once, not with the next turn
ASYNC_GRACE_S = 2.0  # an async call that its timeout could not cancel is treated like a stuck one
PROBE_TIMEOUT_S = 30.0


def invoke(executor: Executor, request: Invoke) -> Ending:
    """Call a synchronous function. Raises: RunInterrupted; what ends the process passes through unrecorded."""
    attempt = Attempt(executor, request)
    with attempt:
        attempt.keep(attempt.call_function())
    return attempt.ending()


async def invoke_async(executor: Executor, request: Invoke) -> Ending:
    """Call an async function; its timeout cancels it."""
    attempt = Attempt(executor, request)
    with attempt:
        try:
            async with asyncio.timeout(request.call.step.timeout_s) as limit:
                result = await attempt.call_function()
            attempt.keep(result)
        except TimeoutError:
            if not limit.expired():
                raise
            attempt.time_out()
    return attempt.ending()


def probe(executor: Executor, call: Call, begun: Begun) -> Any:
    """Happened, NotHappened or Unknown. A probe that raises, or says anything else, knows nothing."""
    executor.trust.check()
    ends_at = executor.monotonic() + PROBE_TIMEOUT_S
    unknown = StepFinish(begun.seq, "unknown", source="probe")
    flight = executor.flights.enter(Flight(call.step.name, lambda: unknown, ends_at))
    executor.heartbeat.look_by(ends_at)
    try:
        answer = _ask_probe(call, begun.key)
    except Exception as error:
        answer = Unknown(str(error))
    if not executor.flights.leave(flight):
        raise LeaseLost("the probe took too long; this process gives the run back")
    return answer


def _ask_probe(call: Call, key: str) -> Any:
    asked = call.step.probe
    if asked is None:
        return Unknown("the tool of this worker has no probe")
    answer = asked(key)
    if not inspect.iscoroutine(answer):
        return answer
    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop that is running
        return thread.submit(asyncio.run, answer).result()


class Attempt:
    """One attempt at a step: a context that is entered before the call and records its ending when left."""

    def __init__(self, executor: Executor, request: Invoke) -> None:
        self._executor, self._request = executor, request
        self._call, self._begun, self._step = request.call, request.begun, request.call.step
        self._outer = context.current()
        self._frame = self._new_frame()
        self._outcome: Outcome = "done"
        self._output: Any = None
        self._raw = b""  # the same as bytes: what the agent gets shares nothing with what is recorded
        self._failure: Failure | None = None
        self._change: Change = {}
        self._missed = False  # the moment in which it could be sent had passed
        self._over: Ended | None = None
        self._failed_below: tuple[int, ...] = ()

    def __enter__(self) -> None:
        executor, limit_s = self._executor, self._step.timeout_s
        self._began_at = executor.monotonic()
        grace_s = ASYNC_GRACE_S if self._step.is_async else 0.0
        ends_at = None if limit_s is None else self._began_at + limit_s + grace_s
        flight = Flight(self._step.name, self._timeout_finish, ends_at)
        self._flight = self._frame.flight = executor.flights.enter(flight)
        if self._outer is not None and self._outer.flight is not None:
            self._outer.flight.waits_below = True
        if ends_at is not None:
            executor.heartbeat.look_by(ends_at)
        self._token = context.swap(self._frame)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        context.restore(self._token)
        ended_by_itself = self._executor.flights.leave(self._flight)
        if error is not None and not isinstance(error, Exception):
            if ended_by_itself:
                self._interrupted(error)
            return False
        if error is not None:
            self._outcome, self._failure = classify(error, has_effect=self._step.has_effect)
            self._failed_below = steps_of(error)
        if not ended_by_itself:
            self._executor.turns.bring_late(self._finish())
            raise LeaseLost("the call took too long and was given up") from error
        self._record()
        return True

    def call_function(self) -> Any:
        """The result, or a coroutine for it. Raises: NotSent, LeaseLost when it may not be called any more."""
        arguments = self._call.arguments
        if self._begun.args is not None:
            arguments = self._step.hydrated_arguments(self._begun.args)
        self._check_moment()
        return self._step.invoke(arguments, key=self._begun.key)

    def keep(self, result: Any) -> None:
        """The function has returned: find its JSON form and what it did to the state."""
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"{self._step.name} returned a coroutine; declare it with async def.")
        try:
            self._raw = values.encode(result, where="/output")
            self._output = canonical.loads(self._raw)
            self._change = self._frame.view.change()
        except DomainError as error:
            if not self._step.has_effect:
                raise
            self._keep_unusable(result, error)
        self._executor.leave(self._frame.scope, is_whole=self._is_replayed_whole())

    def time_out(self) -> None:
        finish = self._timeout_finish()
        self._outcome, self._failure = finish.outcome, finish.failure

    def ending(self) -> Ending:
        if self._over is not None:
            self._executor.halt(self._over)
            raise self._over
        output = canonical.loads(self._raw) if self._outcome == "done" else None
        steps = (*self._failed_below, self._begun.seq)
        return Ending(self._outcome, output, self._failure, self._retry_in_s(), steps)

    def _new_frame(self) -> context.Frame:
        outer = self._outer
        below = outer.view if outer is not None and outer.call is not None else None
        scope = Scope(self._call.identity, parent=self._call.identity)
        scope.shared = not self._is_replayed_whole()
        view = View(self._executor.committed, writable=True, below=below)
        return context.Frame(self._executor, scope, view, self._call, self._begun.seq)

    def _check_moment(self) -> None:
        executor = self._executor
        if not self._step.has_effect:
            executor.trust.check()
            return
        limit_s = self._begun.call_for_s
        is_late = limit_s > 0 and executor.monotonic() > self._request.asked_at + limit_s
        if is_late or executor.trust.remaining_s() <= 0:
            self._missed = True
            raise NotSent("the moment in which the call could be sent had passed")

    def _is_replayed_whole(self) -> bool:
        """A second try after a failure may well take another way than the first; one after a crash may not."""
        record = self._executor.book.find(self._call.identity)
        return record is None or record.status != "failed"

    def _keep_unusable(self, result: Any, error: DomainError) -> None:
        # It has happened, so it is recorded as done; but no agent may go on with half of its result.
        if self._output is None:
            self._output = repr(result)[:1_000].replace("\0", "")
        self._over = Ended(End("failed", failure=failure_of(error)))

    def _record(self) -> None:
        executor = self._executor
        executor.count_executed()
        executor.deferred.add_finish(self._finish(), view=self._frame.view, change=self._change)
        took_s = executor.monotonic() - self._began_at
        if self._step.has_effect:
            executor.tidy(may_block=False)  # what its body noted could not be summarised in it
        if self._step.has_effect or took_s > SLOW_S:
            executor.turns.flush()
        else:
            executor.heartbeat.look_by(executor.monotonic() + DEFERRED_S)

    def _interrupted(self, error: BaseException) -> None:
        """A cancelled call of a tool may have happened: say so, and let the service judge it in a new claim."""
        if isinstance(error, asyncio.CancelledError) and self._step.has_effect:
            self._outcome, self._failure = "unknown", failure_of(error)
            pause_s = back_off_s(self._call.identity, self._begun.attempt)
            self._executor.halt(Waiting(Park("retry", due_s=pause_s, detail=self._call.identity)))
            self._record()

    def _finish(self) -> StepFinish:
        usage = self._frame.charged()
        retry_in_s = self._retry_in_s()
        return StepFinish(self._begun.seq, self._outcome, self._output, self._failure, usage, retry_in_s=retry_in_s)

    def _timeout_finish(self) -> StepFinish:
        text = f"took longer than {self._step.timeout_s or 0:g} s"
        if self._step.has_effect:
            return StepFinish(self._begun.seq, "unknown", failure=Failure(TimedOut.__name__, text))
        retry_in_s = self._back_off_s() if self._request.retries_left > 0 else None
        failure = Failure(TimedOut.__name__, text, retryable=True)
        return StepFinish(self._begun.seq, "failed", failure=failure, retry_in_s=retry_in_s)

    def _retry_in_s(self) -> float | None:
        if self._missed:
            return self._back_off_s()
        retryable = self._outcome in ("not_sent", "failed") and self._failure is not None and self._failure.retryable
        return self._back_off_s() if retryable and self._request.retries_left > 0 else None

    def _back_off_s(self) -> float:
        return back_off_s(self._call.identity, max(0, self._step.retries - self._request.retries_left))
