"""Celery tasks of this tier: each takes ids, calls one verb, and may be lost or doubled without harm."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import shared_task
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down
from django.conf import settings

from agentstate import presence
from agentstate.db import sql
from runs.engine import hosting
from runs.engine import presence as engine_presence
from runs.engine.watching import Watcher
from runs.services import sweep as sweeping

_watchers: list[Watcher] = []
MONTHS_AHEAD = 13


@shared_task(name="runs.drive")
def drive(tenant_id: str, run_id: str) -> str:
    """Look at this run."""
    return hosting.drive(UUID(tenant_id), UUID(run_id))


@shared_task(name="runs.sweep")
def sweep() -> int:
    """The net below the watchers; over the agents of every worker."""
    sweeping.expire_questions()
    return sweeping.look()


@shared_task(name="runs.fold_counts")
def fold_counts() -> int:
    sweeping.drop_old()
    return sweeping.fold_counts()


@shared_task(name="runs.ensure_partitions")
def ensure_partitions() -> int:
    """Months ahead of the trace; a month that is missing would stop every run created in it."""
    found = sql.row("SELECT runs_ensure_partitions(%s)", [MONTHS_AHEAD])
    return int(found[0]) if found else 0


@worker_init.connect
def _refuse_a_pooler(**_: Any) -> None:
    """One that hosts agents would take messages and drive nothing."""
    trouble = engine_presence.trouble() if settings.HOSTED_AGENTS else ""
    if trouble:
        raise SystemExit(f"This worker did not start. {trouble}")


@worker_ready.connect
def _watch(**_: Any) -> None:
    """Ready is said last: whoever waits for it may start an agent at once."""
    hosting.register_everywhere()
    watcher = Watcher()
    _watchers.append(watcher)
    watcher.start()
    presence.announce("worker")


@worker_shutting_down.connect
def _give_back(**_: Any) -> None:
    """Warm stop: each run is given back at its next step boundary, and another worker goes on with it."""
    hosting.stopping.set()


@worker_shutdown.connect
def _unwatch(**_: Any) -> None:
    while _watchers:
        _watchers.pop().stop()
