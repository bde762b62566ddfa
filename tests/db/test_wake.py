"""Hints: after the commit only, to the tenant's own channel, and a dead broker or Redis harms nobody."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis as redis_client
from django.db import transaction

from agentstate.celery import app
from agentstate.db import wake

RUN, TENANT = UUID(int=1), UUID(int=2)


@pytest.fixture
def heard(redis: redis_client.Redis) -> Iterator[Any]:
    """What was published on channels of ours, so far."""
    subscription = redis.pubsub(ignore_subscribe_messages=True)
    subscription.psubscribe("as:*")
    subscription.get_message(timeout=1)

    def messages(count: int) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        end = time.monotonic() + 5
        while len(found) < count and time.monotonic() < end:
            if message := subscription.get_message(timeout=0.1):
                found.append((message["channel"].decode(), message["data"].decode()))
        assert subscription.get_message(timeout=0.05) is None
        return found

    yield messages
    subscription.close()


def sent() -> list[str]:
    """Arguments of the messages that lie in the queue `drive`."""
    with app.connection_for_read() as connection:
        client = connection.default_channel.client
        waiting = [json.loads(body) for body in client.lrange("drive", 0, -1)]
    return [message["headers"]["argsrepr"] for message in waiting]


@pytest.fixture(autouse=True)
def _rested() -> Iterator[None]:
    wake._broker_rests_until = 0.0
    yield
    wake._broker_rests_until = 0.0


def test_a_wake_goes_out_when_the_transaction_commits_and_not_before(committed_db: None, heard: Any) -> None:
    with transaction.atomic():
        wake.wake(TENANT, RUN)
        wake.live(TENANT, RUN)
        assert (heard(0), sent()) == ([], [])
    assert heard(2) == [(f"as:{TENANT}:wake", str(RUN)), (f"as:{TENANT}:live:{RUN}", str(RUN))]
    assert sent() == [f"('{TENANT}', '{RUN}')"]


def test_a_rolled_back_transaction_wakes_nobody(committed_db: None, heard: Any) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        wake.wake(TENANT, RUN)
        raise ZeroDivisionError
    assert (heard(0), sent()) == ([], [])


def test_outside_a_transaction_it_goes_out_at_once(committed_db: None, heard: Any) -> None:
    wake.wake(TENANT, RUN)
    assert len(heard(1)) == len(sent()) == 1


def test_a_dead_redis_and_broker_cost_nothing_but_the_hint(
    committed_db: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    nobody = redis_client.Redis.from_url(f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setattr(wake, "redis", lambda: nobody)
    tries = 0

    def refuse(*args: Any, **options: Any) -> None:
        nonlocal tries
        tries += 1
        raise redis_client.ConnectionError("refused")

    monkeypatch.setattr(app, "send_task", refuse)
    with transaction.atomic():
        wake.wake(TENANT, RUN)
        wake.wake(TENANT, uuid4())
    assert tries == 1  # the broker rests for a second: a commit must not wait for its connect timeout again and again


def test_a_forked_child_gets_a_client_of_its_own() -> None:
    mine = wake.redis()
    assert wake.redis() is mine
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, b"other" if wake.redis() is not mine else b"same")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(readable, 10) == b"other"
    os.close(readable)
    os.close(writable)
