"""What the tiers stand on, as the health page shows it: the database, Redis, queues, the audit's seals."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime

import redis as redis_client
from celery import current_app
from kombu.exceptions import OperationalError

from agentstate.audit.models import AuditSeal
from agentstate.celery import QUEUES
from agentstate.db import sql, wake
from agentstate.llm import embedding, summarising
from agentstate.llm.endpoint import ModelRefused

OLDEST = """
select count(*), min(due_at) from (select due_at from runs_run
  where status = 'queued' and not held and due_at <= now() order by id limit 1000) q
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that answers or does not."""

    name: str
    ok: bool
    words: str


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    depth: int | None  # None: the broker does not answer


@dataclass(frozen=True, slots=True)
class Machinery:
    parts: list[Part] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)
    due: int = 0  # runs of this tenant that could be claimed
    oldest_due: datetime | None = None
    seal_at: datetime | None = None
    seals: int = 0


def read() -> Machinery:
    """Asserts a tenant scope. Nothing here raises: what does not answer is shown as such."""
    started = time.perf_counter()
    due, oldest = sql.row(OLDEST) or (0, None)
    database_ms = (time.perf_counter() - started) * 1000
    seal = AuditSeal.objects.order_by("-seq").values_list("seq", "at").first()
    queues = _queues()
    broker_ok = any(queue.depth is not None for queue in queues)
    return Machinery(
        [
            Part("Postgres", True, f"ok, {database_ms:.0f} ms"),
            _redis(),
            Part("Broker", broker_ok, "ok" if broker_ok else "does not answer; the sweep finds due runs"),
            _embedder(),
            _summariser(),
        ],
        queues,
        due,
        oldest,
        seal[1] if seal else None,
        seal[0] if seal else 0,
    )


def _redis() -> Part:
    try:
        memory = wake.redis().info("memory")
    except (redis_client.RedisError, OSError):
        return Part("Redis", False, "does not answer; live pages refresh every 15 s")
    assert isinstance(memory, dict)
    return Part("Redis", True, f"ok, {memory.get('used_memory_human', '?')}")


def _embedder() -> Part:
    """What is chosen and whether its files are the model's; no endpoint is asked for a page."""
    found = embedding.status()
    words = f"{found.words}. To add one: {found.fix}" if found.level == "warn" else found.words
    return Part("Embedder", found.level != "bad", words)


def _summariser() -> Part:
    try:
        return Part("Summariser", True, summarising.words())
    except ModelRefused as refused:
        return Part("Summariser", False, refused.message)


def _queues() -> list[Queue]:
    found = []
    try:
        with current_app.connection_for_read(transport_options={"socket_connect_timeout": 1}) as broker:
            channel = broker.default_channel
            found = [Queue(name, channel._size(name)) for name in QUEUES]
    except (OperationalError, redis_client.RedisError, OSError):
        return [Queue(name, None) for name in QUEUES]
    return found
