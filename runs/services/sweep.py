"""The net: what is due gets a hint, timers fire, expired questions close, workers that are gone are noticed.

Runs in the watcher of every Celery worker (each 250 ms) and, below it, by beat. Any number of them at once is harmless:
each act is conditional, and a hint only says "look".
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

import redis as redis_client
import structlog
from django.db import transaction

from agentstate.core.errors import DomainError
from agentstate.core.failpoints import hit, register
from agentstate.db import sql, wake
from agentstate.tenants import actors
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from runs.models import AdmissionKey, Run, StatusCount, Worker
from runs.services import approvals, clock, timers, workers
from runs.states import RunStatus

log = structlog.get_logger(__name__)
register("sweep.fired", "a timer's run queued / whatever is due next")
register("sweep.hinted", "the mark that keeps other hints back / the hint itself")
register("sweep.expired", "a question closed / the next one")
register("sweep.marked", "a worker marked dead / the hint that its runs are free")

BATCH = 500
SILENT = timedelta(minutes=10)  # of a worker over HTTP; its long polls are at most 25 s apart
# How long one hint about a run keeps others back (milliseconds). A queued run may wait for a free worker: rarely.
HINT_MS = {"queued": 15_000, "lapsed": 1_000, "dead": 500}


def look(agents: Iterable[str] | None = None, *, limit: int = BATCH) -> int:
    """Hint at what is due, for these agents or all. Returns how many runs it acted on."""
    wanted = None if agents is None else list(agents)
    found = sql.rows("SELECT tenant_id, run_id, why, fence FROM runs_due(%s::text[], %s)", [wanted, limit])
    for tenant_id, run_id, why, fence in found:
        if why == "timer":
            _fire(tenant_id, run_id)
            hit("sweep.fired")
        elif _first_hint(run_id, why, fence):
            hit("sweep.hinted")
            wake.publish(f"as:{tenant_id}:wake", str(run_id))
            wake.send("runs.drive", str(tenant_id), str(run_id))
    return len(found)


def expire_questions(*, limit: int = BATCH) -> int:
    found = sql.rows("SELECT tenant_id, approval_id FROM runs_expired(%s)", [limit])
    for tenant_id, approval_id in found:
        _guarded(tenant_id, approval_id, approvals.expire)
        hit("sweep.expired")
    return len(found)


def notice_dead(missed: set[UUID]) -> set[UUID]:
    """Notice hosted workers that are gone. Returns those missed for the first time: pass them the next time.

    On this host a look at the process is proof either way. Elsewhere a free lock, seen twice in a row, says that the
    worker's connection is lost; within seconds of the server's start that means nothing, everybody reconnects then.
    """
    living: list[UUID] = []
    far: list[Worker] = []
    for worker in Worker.objects.filter(dead_proof="", kind="hosted"):
        proof = workers.proof_of_death(worker)
        if proof:
            _bury(worker, proof)
        elif workers.is_here(worker):
            living.append(worker.id)
        else:
            far.append(worker)
    missed_now = [worker for worker in far if not _lock_is_held(worker.no)] if far and _server_is_settled() else []
    missed_ids = {worker.id for worker in missed_now}
    for worker in missed_now:
        if worker.id in missed and worker.dead_at is None:
            workers.mark_unreachable(worker.id)
            log.warning("worker.unreachable", worker=worker.name)
    workers.seen(living + [worker.id for worker in far if worker.id not in missed_ids])
    return missed_ids


def _bury(worker: Worker, proof: str) -> None:
    if workers.mark_dead(worker.id, proof=proof):
        log.info("worker.dead", worker=worker.name, proof=proof)
        hit("sweep.marked")


def fold_counts() -> int:
    """Add the deltas of each tenant to its counts. Locks: the deltas it takes, skipping those of another folder."""
    folded = 0
    for tenant_id in Tenant.objects.values_list("id", flat=True):
        with tenant_scope(tenant_id):
            taken = sql.rows(
                "WITH taken AS (DELETE FROM runs_statusdelta WHERE id IN (SELECT id FROM runs_statusdelta"
                " ORDER BY id LIMIT 10000 FOR UPDATE SKIP LOCKED) RETURNING status, delta)"
                " SELECT status, sum(delta), count(*) FROM taken GROUP BY status"
            )
            for status, delta, rows in taken:
                _add(status, int(delta))
                folded += rows
    return folded


def drop_old() -> int:
    """Admission keys live for a day; workers are forgotten a week after their death. How many rows went."""
    now = clock.database_now()
    dropped = Worker.objects.filter(dead_at__lt=now - timedelta(days=7)).delete()[0]
    before = now - timedelta(days=1)
    for tenant_id in Tenant.objects.values_list("id", flat=True):
        with tenant_scope(tenant_id):
            _forget_silent(tenant_id)
            dropped += AdmissionKey.objects.filter(created_at__lt=before).delete()[0]
    return dropped


def _forget_silent(tenant_id: UUID) -> None:
    """Workers over HTTP that ask for nothing and drive nothing any more; nobody here can prove more than silence."""
    driving = Run.objects.filter(status=RunStatus.RUNNING, worker__isnull=False).values("worker_id")
    silent = Worker.objects.filter(kind="http", for_tenant=tenant_id, dead_at__isnull=True)
    silent = silent.filter(seen_at__lt=clock.database_now() - SILENT).exclude(id__in=driving)
    silent.update(dead_at=clock.database_now())


def _fire(tenant_id: UUID, run_id: UUID) -> None:
    _guarded(tenant_id, run_id, lambda id: timers.fire(id, actor=actors.system("clock")))


def _guarded(tenant_id: UUID, id: UUID, act: object) -> None:
    """One run that cannot be moved must not keep the others waiting."""
    try:
        with tenant_scope(tenant_id):
            act(id)  # type: ignore[operator]
    except DomainError as error:
        log.warning("sweep.refused", id=str(id), error=error.code, detail=error.message)


def _first_hint(run_id: UUID, why: str, fence: int) -> bool:
    try:
        return bool(wake.redis().set(f"as:hint:{run_id}:{fence}:{why}", 1, nx=True, px=HINT_MS[why]))
    except (redis_client.RedisError, OSError):
        return False  # the broker is most likely away as well; the next look tries again


def _lock_is_held(number: int) -> bool:
    with transaction.atomic():
        found = sql.row("SELECT pg_try_advisory_xact_lock(%s, %s)", [workers.LOCK_CLASS, number])
    return not (found and found[0])


def _server_is_settled() -> bool:
    found = sql.row("SELECT clock_timestamp() - pg_postmaster_start_time() > interval '5 seconds'")
    return bool(found and found[0])


def _add(status: str, delta: int) -> None:
    row, _ = StatusCount.objects.select_for_update().get_or_create(status=status)
    row.count += delta
    row.save(update_fields=["count"])
