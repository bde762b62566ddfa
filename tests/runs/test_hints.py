"""Live hints: a burst of turns says "look" once, what a person waits for is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import redis

from agentstate.db import wake
from agentstate.sdk.store import Entry, Park, Turn
from runs.engine import turns
from tests.runs.conftest import Desk


@pytest.fixture
def published() -> Iterator[list[str]]:
    channels: list[str] = []
    with mock.patch.object(wake, "publish", lambda channel, message: channels.append(channel)):
        yield channels


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """All turns of the test fall into one moment, however slow the machine is."""
    monkeypatch.setattr(turns, "HINT_EVERY_S", 3600.0)


@pytest.mark.usefixtures("slow")
def test_a_burst_of_plain_turns_hints_once(desk: Desk, published: list[str]) -> None:
    claim = desk.start()
    published.clear()
    for n in range(5):
        desk.finish(claim, desk.begin(claim, "look", identity=f"look#{n}").seq)
    assert len(published) == 1


@pytest.mark.usefixtures("slow")
def test_a_run_that_stops_says_so_at_once(desk: Desk, published: list[str]) -> None:
    claim = desk.start()
    desk.begin(claim, "look")
    published.clear()
    desk.store.turn(claim, Turn(then=Park("pause")))
    assert any(f":live:{desk.run(claim).id}" in channel for channel in published)


def test_an_entry_that_is_shown_is_told_in_the_same_round_trip(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = desk.start()
    asked: list[str] = []
    execute = redis.Redis.execute_command

    def executing(self: Any, *args: Any, **options: Any) -> Any:
        asked.append(str(args[0]))
        return execute(self, *args, **options)  # type: ignore[no-untyped-call]

    with wake.redis().pubsub() as pages:
        pages.subscribe(channel := wake.live_channel(desk.tenant_id, desk.run(claim).id))
        assert pages.get_message(timeout=30)["type"] == "subscribe"
        with monkeypatch.context() as patched:
            patched.setattr(redis.Redis, "execute_command", executing)
            desk.store.note(claim, [Entry(n=1, kind="reasoning", text="a note")])
        assert pages.get_message(timeout=30)["channel"] == channel.encode()
    assert asked == ["EVAL"]
