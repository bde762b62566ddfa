"""Hints after a commit: "look at this run". Rows are the truth, so a hint may be lost, doubled or late without harm."""

from __future__ import annotations

import os
import time
from functools import cache
from uuid import UUID

import redis as redis_client
import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction
from kombu.exceptions import OperationalError

from agentstate.core.failpoints import hit, register

register("wake.committed", "a commit / the hint to look at its run")
register("wake.live", "a commit / the hint to open pages")
register("wake.published", "the hint to whoever waits for work / the message to a worker")

log = structlog.get_logger(__name__)
BROKER_REST_S = 1.0  # after a failed send: a dead broker must not slow every commit down by its connect timeout
_broker_rests_until = 0.0  # monotonic seconds


def redis() -> redis_client.Redis:
    """The process's client for the scratchpad database. Never shared with a parent: a fork gets its own."""
    return _client(os.getpid())


@cache
def _client(_pid: int) -> redis_client.Redis:
    return redis_client.Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=1)


def wake(tenant_id: UUID, run_id: UUID) -> None:
    """When this transaction commits, ask a Celery worker and everybody who waits for work to look at the run."""
    transaction.on_commit(lambda: _wake_now(str(tenant_id), str(run_id)), robust=True)


def live(tenant_id: UUID, run_id: UUID) -> None:
    """When this transaction commits, tell open pages that the run has something new; they read it from Postgres."""
    channel = live_channel(tenant_id, run_id)
    transaction.on_commit(lambda: _show_now(channel, str(run_id)), robust=True)


def live_channel(tenant_id: UUID, run_id: UUID) -> str:
    """To which the pages of this run listen; what is said there does not matter."""
    return f"as:{tenant_id}:live:{run_id}"


def publish(channel: str, message: str) -> None:
    """Publish at once; a Redis that is away costs latency only."""
    try:
        redis().publish(channel, message)
    except (redis_client.RedisError, OSError) as error:
        log.warning("wake.publish_failed", channel=channel, error=type(error).__name__)


def _show_now(channel: str, run_id: str) -> None:
    hit("wake.live")
    publish(channel, run_id)


def _wake_now(tenant_id: str, run_id: str) -> None:
    hit("wake.committed")
    publish(f"as:{tenant_id}:wake", run_id)
    hit("wake.published")
    send("runs.drive", tenant_id, run_id)


def send(task: str, *args: str) -> bool:
    """Send a Celery message at once, without retries; False when the broker is away (the sweep is the net)."""
    global _broker_rests_until
    if time.monotonic() < _broker_rests_until:
        return False
    try:
        current_app.send_task(task, args=args, retry=False, ignore_result=True)
    except (OperationalError, redis_client.RedisError, OSError) as error:
        _broker_rests_until = time.monotonic() + BROKER_REST_S
        log.warning("wake.send_failed", task=task, error=type(error).__name__)
        return False
    return True
