"""One Redis subscription per process for all open streams; each stream has a bounded mailbox of one "something is new".

A hint says only "look", so any number of them folds into one: a slow client costs nothing and loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import redis.asyncio as redis_client
import structlog
from django.conf import settings
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)
PATTERNS = ("as:*:live:*", "as:*:wake")  # a run has something new; a tenant has a run to claim
REST_S = 1.0  # before a lost subscription is opened again; streams look at their rows at each heartbeat anyway


class News:
    """Set when something is new; waiting for it ends after a time."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    async def wait(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):  # wait_for of Python 3.11 swallows a cancel that comes with the news
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Hub:
    """The subscription of one event loop; it lives while somebody listens."""

    def __init__(self) -> None:
        self.mailboxes: dict[str, set[News]] = defaultdict(set)
        self.task: asyncio.Task[None] | None = None

    def tell(self, channel: str) -> None:
        for news in self.mailboxes.get(channel, ()):
            news.set()

    async def run(self) -> None:
        while self.mailboxes:
            try:
                await self._subscribe()
            except (RedisError, OSError) as error:
                log.warning("live.subscription_lost", error=type(error).__name__)
                await asyncio.sleep(REST_S)

    async def _subscribe(self) -> None:
        client = redis_client.Redis.from_url(settings.REDIS_URL)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.psubscribe(*PATTERNS)
                for channel in list(self.mailboxes):
                    self.tell(channel)  # what came while there was no subscription
                while self.mailboxes:
                    message = await subscription.get_message(timeout=5.0)
                    if message:
                        self.tell(message["channel"].decode())
        finally:
            await client.aclose()


class Hubs:
    """A hub per event loop: the server has one, tests have many."""

    def __init__(self) -> None:
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[News]:
        loop = asyncio.get_running_loop()
        mine = self._of_loop.setdefault(loop, Hub())
        news = News()
        mine.mailboxes[channel].add(news)
        if mine.task is None or mine.task.done():
            mine.task = loop.create_task(mine.run())
        try:
            yield news
        finally:
            mine.mailboxes[channel].discard(news)
            if not mine.mailboxes[channel]:
                del mine.mailboxes[channel]


hub = Hubs()
