"""How an async view reaches the database and waits: a few threads with a connection each, and hints over Redis.

However many long polls are open, only DATABASE_CALLS_MAX connections are used: a poll holds none while it waits. Hints
may be lost, doubled or late, so every wait looks again after RECHECK_S.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import connection
from django.db.utils import DatabaseError, InterfaceError

from agentstate.db import sql
from agentstate.http.hub import hub

AnyResult = TypeVar("AnyResult")
Given = ParamSpec("Given")

DATABASE_CALLS_MAX = 4  # at once, of this process; the pool of the pages keeps its own
RECHECK_S = 2.0  # a lost hint costs this much latency, nothing else

_pool = ThreadPoolExecutor(DATABASE_CALLS_MAX, thread_name_prefix="api")


async def in_database(call: Callable[[], AnyResult]) -> AnyResult:
    """Run `call` in one of the threads that keep a connection open."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_pool, context.run, _drop_broken, call)


def _drop_broken(call: Callable[[], AnyResult]) -> AnyResult:
    try:
        return call()
    except (DatabaseError, InterfaceError) as error:
        if sql.is_lost(error):
            connection.close()  # the next call in this thread opens a new one
        raise


async def until(channel: str, *, wait_s: float, look: Callable[[], Awaitable[AnyResult | None]]) -> AnyResult | None:
    """Call `look` now, at each hint on the channel and every RECHECK_S, until it gives something or time is over."""
    if wait_s <= 0:
        return await look()
    ends_at = time.monotonic() + wait_s
    async with hub.listen(channel) as news:
        while True:
            news.clear()
            found = await look()
            left_s = ends_at - time.monotonic()
            if found is not None or left_s <= 0:
                return found
            await news.wait(min(left_s, RECHECK_S * random.uniform(0.8, 1.0)))  # noqa: S311  (spreads polls)


def offloaded(view: Callable[Given, AnyResult]) -> Callable[Given, Awaitable[AnyResult]]:
    """A synchronous view as an async one that runs in a database thread."""

    @wraps(view)
    async def around(*args: Given.args, **given: Given.kwargs) -> AnyResult:
        return await in_database(lambda: view(*args, **given))

    # ninja resolves annotations in the module of the function it is given, which would be this one.
    around.__signature__ = inspect.signature(view, eval_str=True)  # type: ignore[attr-defined]
    return around
