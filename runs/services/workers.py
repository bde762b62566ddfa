"""Who drives runs: a worker's row, its advisory lock, and the proof that its process is gone."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from functools import cache
from pathlib import Path
from uuid import UUID

from django.db import IntegrityError, transaction

from agentstate.sdk.store import WorkerInfo
from runs.models import Worker
from runs.services import clock

LOCK_CLASS = 77  # pg_advisory_lock(77, worker.no) is held by a direct connection for as long as the process lives
SEEN_EVERY_S = 5


def this_process(name: str = "") -> WorkerInfo:
    pid = os.getpid()
    return WorkerInfo(
        name=name or f"{socket.gethostname()}:{pid}",
        host=socket.gethostname(),
        pid=pid,
        boot_id=boot_id(),
        pid_start=pid_start(pid),
    )


def register(info: WorkerInfo, *, kind: str, agents: list[str], for_tenant: UUID | None = None) -> Worker:
    """The row of this process; the same process keeps its row. Idempotent."""
    now = clock.database_now()
    same = Worker.objects.filter(
        host=info.host, pid=info.pid, boot_id=info.boot_id, pid_start=info.pid_start, name=info.name, kind=kind
    ).filter(for_tenant=for_tenant, dead_at__isnull=True)
    found = same.first()
    if found is not None:
        if now - found.seen_at > timedelta(seconds=SEEN_EVERY_S) or found.agents != agents:
            Worker.objects.filter(id=found.id).update(seen_at=now, agents=agents)
        return found
    return _insert(
        Worker(
            name=info.name[:200],
            kind=kind,
            for_tenant=for_tenant,
            host=info.host[:200],
            pid=info.pid,
            boot_id=info.boot_id,
            pid_start=info.pid_start,
            agents=agents,
            started_at=now,
            seen_at=now,
        )
    )


def again(worker: Worker) -> Worker:
    """The row of the process that this one describes: this one while nobody has taken it for dead."""
    info = WorkerInfo(worker.name, worker.host, worker.pid, worker.boot_id, worker.pid_start)
    return register(info, kind=worker.kind, agents=worker.agents, for_tenant=worker.for_tenant)


def _insert(worker: Worker) -> Worker:
    """`no` is drawn: the policy hides the workers of tenants, so nobody here knows which number is free."""
    for _ in range(20):
        worker.no = secrets.randbelow(2**31 - 1) + 1  # the key of an advisory lock is a signed 32-bit integer
        try:
            with transaction.atomic():
                worker.save(force_insert=True)
            return worker
        except IntegrityError:
            continue
    raise RuntimeError("no number for this worker after 20 tries")


def seen(worker_ids: list[UUID]) -> None:
    """Their locks are held: they live. Written at most every few seconds for each."""
    now = clock.database_now()
    stale = now - timedelta(seconds=SEEN_EVERY_S)
    Worker.objects.filter(id__in=worker_ids, seen_at__lt=stale).update(seen_at=now, dead_at=None)


def mark_dead(worker_id: UUID, *, proof: str) -> bool:
    """Record the proof of death. Idempotent; False when it was recorded before."""
    living = Worker.objects.filter(id=worker_id, dead_proof="")
    return living.update(dead_at=clock.database_now(), dead_proof=proof[:200]) == 1


def mark_unreachable(worker_id: UUID) -> None:
    """Its lock is free but nobody can prove that the process is gone: it may still be calling somebody."""
    Worker.objects.filter(id=worker_id, dead_at__isnull=True).update(dead_at=clock.database_now())


def proof_of_death(worker: Worker) -> str:
    """Words of proof when the process of a worker on this host is gone; empty when it lives or nobody here can tell."""
    if not is_here(worker):
        return ""
    started = pid_start(worker.pid)
    if started == 0:
        return f"no process {worker.pid} on its host"
    if started != worker.pid_start:
        return f"process {worker.pid} is another one by now"
    return ""


def is_here(worker: Worker) -> bool:
    """Whether its process would be seen from here: this host, this boot, this pid namespace.

    Another boot or namespace may be another machine of the same name.
    """
    return worker.host == socket.gethostname() and bool(worker.boot_id) and worker.boot_id == boot_id()


@cache
def boot_id() -> str:
    """Names the kernel's run and the pid namespace in which pids mean something; empty where there is no /proc."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink()
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {namespace}"[:64]
    except OSError:
        return ""


def pid_start(pid: int) -> int:
    """Clock ticks after boot at which the process began; 0 when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in ("Z", "X") else int(fields[19])
