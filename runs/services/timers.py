"""Timers, back-offs and waits for a probe: when their time has come the run is queued."""

from __future__ import annotations

from uuid import UUID

from agentstate.tenants.actors import Actor
from runs.models import Run
from runs.services import clock, control, status
from runs.states import RunStatus


def fire(run_id: UUID, *, actor: Actor) -> None:
    """waiting -> queued when due. Asserts a tenant scope. Idempotent. Locks: run."""
    now = clock.database_now()
    if not Run.objects.filter(id=run_id, status=RunStatus.WAITING, due_at__lte=now).exists():
        return
    run = control.locked(run_id)
    if run.status != RunStatus.WAITING or run.due_at is None or run.due_at > now:
        return
    changes = {"waiting_for": "", "wake_reason": run.waiting_for, "due_at": now}
    status.move(run, to=RunStatus.QUEUED, actor=actor, changes=changes)
