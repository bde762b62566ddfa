"""Ending a run whose worker does not come back, without its agent and without a call: for whoever cannot wait for ever.

What the worker had begun is in doubt from then on and is never repeated; what it reports later is kept as late.
"""

from __future__ import annotations

from uuid import UUID

from agentstate.tenants.actors import Actor
from runs.engine import doubts, leases
from runs.models import Run
from runs.services import control
from runs.states import RUN_LIVE, RunStatus


def end(run_id: UUID, *, actor: Actor, reason: str, at_once: bool) -> bool:
    """Cancel this run if its lease has ended or its worker is dead; with `at_once` also under a living one.

    Whether it is over now. False too while somebody holds its row: look again later. The worker is refused from the
    next thing that it sends. Asserts a tenant scope. Locks: run. Idempotent.
    """
    run = (
        Run.objects.select_for_update(no_key=True, skip_locked=True).filter(id=run_id).defer("input", "output").first()
    )
    if run is None:
        return False
    if run.status not in RUN_LIVE:
        return True
    if run.status == RunStatus.RUNNING:
        if not at_once and not leases.is_lost(run):
            return False
        doubts.leave(run, actor=actor, why=reason)
    control.end_cancelled(run, actor=actor, reason=reason)
    return True
