"""`st.gather`: branches side by side, with names that do not depend on who was faster.

Steps handed over directly (`gather(search.., fetch..)` as partials or coroutines) are named in argument order before
anything starts. Every other branch gets a scope of its own. All branches run to their end or to their wait; then the
run waits once, for all of them.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agentstate.sdk import context
from agentstate.sdk.driving import in_loop
from agentstate.sdk.identity import Scope
from agentstate.sdk.signals import Waiting, merged
from agentstate.sdk.steps import Step

THREADS_MAX = 32
Branch = Callable[[], Any] | Awaitable[Any]


def gather(*branches: Branch, return_exceptions: bool = False) -> Any:
    """The results in argument order. In async code: `await st.gather(...)`.

    Branches are callables without arguments (steps, partials, lambdas) or coroutines. When some raise, the first in
    argument order is raised after all have ended, or each is returned in its place with `return_exceptions`.
    """
    runners = _runners(branches)
    if in_loop():
        return _gather_tasks(runners, return_exceptions)
    if any(not callable(runner) for runner in runners):
        return asyncio.run(_gather_tasks(runners, return_exceptions))
    return _gather_threads(runners, return_exceptions)


def _runners(branches: tuple[Branch, ...]) -> list[Branch]:
    frame = context.current()
    if frame is None:
        return list(branches)
    scopes = frame.scope.branches(len(branches))
    return [_runner(frame, branch, scope) for branch, scope in zip(branches, scopes, strict=True)]


def _runner(frame: context.Frame, branch: Branch, scope: Scope) -> Branch:
    step, args, kwargs = _as_step(branch)
    if step is not None:
        call = step.prepare(frame, args, kwargs)
        if step.is_async:
            return _awaited(frame.executor.perform(call))
        return functools.partial(frame.executor.perform, call)
    inner = dataclasses.replace(frame, scope=scope)
    if callable(branch) and not inspect.iscoroutinefunction(branch):
        return functools.partial(_call_within, inner, branch)
    return _await_within(inner, branch() if callable(branch) else branch)


def _as_step(branch: Any) -> tuple[Step[Any, Any] | None, tuple[Any, ...], dict[str, Any]]:
    if isinstance(branch, Step):
        return branch, (), {}
    if isinstance(branch, functools.partial) and isinstance(branch.func, Step):
        return branch.func, branch.args, branch.keywords
    return None, (), {}


def _call_within(frame: context.Frame, branch: Callable[[], Any]) -> Any:
    context.enter(frame)
    frame.scope.adopt()
    result = branch()
    frame.executor.leave(frame.scope)
    return result


async def _await_within(frame: context.Frame, branch: Awaitable[Any]) -> Any:
    context.enter(frame)
    frame.scope.adopt()
    result = await branch
    frame.executor.leave(frame.scope)
    return result


async def _awaited(branch: Awaitable[Any]) -> Any:
    return await branch


def _gather_threads(runners: list[Any], return_exceptions: bool) -> list[Any]:
    if not runners:
        return []
    with ThreadPoolExecutor(min(len(runners), THREADS_MAX), thread_name_prefix="agentstate-branch") as pool:
        futures = [pool.submit(contextvars.copy_context().run, _caught, runner) for runner in runners]
        return _collected([future.result() for future in futures], return_exceptions)


async def _gather_tasks(runners: list[Any], return_exceptions: bool) -> list[Any]:
    tasks = [asyncio.create_task(_caught_task(runner), context=contextvars.copy_context()) for runner in runners]
    try:
        endings = [await task for task in tasks]
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return _collected(endings, return_exceptions)


def _caught(runner: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return runner(), None
    except BaseException as error:  # sorted out by _collected, in the thread that called gather
        return None, error


async def _caught_task(runner: Branch) -> tuple[Any, BaseException | None]:
    if callable(runner):
        return await asyncio.to_thread(_caught, runner)
    try:
        return await runner, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return None, error


def _collected(endings: list[tuple[Any, BaseException | None]], return_exceptions: bool) -> list[Any]:
    errors = [error for _, error in endings if error is not None]
    for error in errors:  # somebody else may have the run, or this process dies: nothing else matters
        if not isinstance(error, (Exception, Waiting)):
            raise error
    waits = [error for error in errors if isinstance(error, Waiting)]
    if waits:
        raise merged(waits)
    if errors and not return_exceptions:
        raise errors[0]
    return [result if error is None else error for result, error in endings]


def run_to_end(main: Coroutine[Any, Any, Any]) -> Any:
    """asyncio.run that lets calls in flight end by themselves: cancelling one would leave it in doubt."""
    return asyncio.run(_with_siblings(main))


async def _with_siblings(main: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await main
    finally:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)
