"""Drivers of the procedure: one for synchronous code, one for async code. They do what it asks and send the answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from agentstate.core.errors import DomainError
from agentstate.sdk import calls
from agentstate.sdk.procedure import Begin, Invoke, Pause, Probe, Report, Request, Steps, Tidy
from agentstate.sdk.signals import Ended, RunInterrupted, Waiting, failure_of
from agentstate.sdk.steps import Call
from agentstate.sdk.store import Begun, End, Failure, Park, StepFinish, StepStart

if TYPE_CHECKING:
    from agentstate.sdk.executor import Executor


def drive(executor: Executor, steps: Steps, call: Call) -> Any:
    answer: Any = None
    try:
        while True:
            answer = _answer(executor, steps.send(answer))
    except StopIteration as stop:
        return stop.value
    except (RunInterrupted, DomainError) as error:
        raise _remembered(executor, call, error) from error.__cause__


async def drive_async(executor: Executor, steps: Steps, call: Call) -> Any:
    answer: Any = None
    try:
        while True:
            answer = await _answer_async(executor, steps.send(answer))
    except StopIteration as stop:
        return stop.value
    except (RunInterrupted, DomainError) as error:
        raise _remembered(executor, call, error) from error.__cause__


def _answer(executor: Executor, request: Request) -> Any:
    match request:
        case Begin(start):
            return _begin(executor, start)
        case Invoke():
            return calls.invoke(executor, request)
        case Probe(call, begun):
            return calls.probe(executor, call, begun)
        case Report(finish):
            executor.deferred.add_finish(finish)
            return executor.turns.flush()
        case Pause(seconds):
            return time.sleep(seconds)
        case Tidy():
            return executor.tidy(may_block=True)


async def _answer_async(executor: Executor, request: Request) -> Any:
    match request:
        case Invoke():
            return await calls.invoke_async(executor, request)
        case Pause(seconds):
            return await asyncio.sleep(seconds)
        case Begin(start):
            return await _begin_async(executor, start)
        case _:
            return await asyncio.to_thread(_answer, executor, request)


def in_loop() -> bool:
    """Is this code that must not block?"""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _begin(executor: Executor, start: StepStart) -> tuple[Begun, float]:
    ticket = executor.turns.begin(start)
    if ticket.begun is None:
        executor.obey()
        raise Waiting(Park("stop", detail="the service did not begin the step"))
    executor.book.remember_seq(start.name, ticket.begun.seq)
    return ticket.begun, ticket.asked_at


async def _begin_async(executor: Executor, start: StepStart) -> tuple[Begun, float]:
    asking = asyncio.ensure_future(asyncio.to_thread(_begin, executor, start))
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        begun, _ = await asking
        if begun.action == "execute":  # begun, and now never called: say so, or it would be in doubt
            failure = Failure("NotSent", "cancelled before the call", retryable=True)
            executor.deferred.add_finish(StepFinish(begun.seq, "not_sent", failure=failure, retry_in_s=0.0))
            executor.halt(Waiting(Park("retry", due_s=0.0, detail=start.identity)))
        raise


def _remembered(executor: Executor, call: Call, error: BaseException) -> BaseException:
    """What the agent's code may swallow is raised again at the next boundary of its scope, or of the run."""
    if isinstance(error, Waiting):
        call.scope.halted = call.scope.halted or error
        return error
    if isinstance(error, DomainError):  # the service cannot take what the agent gave it: no retry mends that
        error = Ended(End("failed", failure=failure_of(error)))
    if isinstance(error, RunInterrupted):
        executor.halt(error)
    return error
