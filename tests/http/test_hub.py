"""Mailboxes of open streams and polls."""

from __future__ import annotations

import asyncio

import pytest

from agentstate.http.hub import News


def test_who_goes_away_as_the_news_come_is_gone() -> None:
    async def poll() -> None:
        news = News()
        waiting = asyncio.ensure_future(news.wait(60))
        await asyncio.sleep(0)
        news.set()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(poll())


def test_no_news_in_time_is_false() -> None:
    assert asyncio.run(News().wait(0.001)) is False
