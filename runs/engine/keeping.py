"""What compaction must know about a run; checkpoints stands below this tier and asks through a registered source."""

from __future__ import annotations

from uuid import UUID

from checkpoints.compaction import RunFacts
from runs.models import Run, Step
from runs.states import RUN_OVER, StepStatus

_UNRESOLVED = (StepStatus.STARTED, StepStatus.IN_DOUBT, StepStatus.WAITING)


def facts(run_id: UUID) -> RunFacts | None:
    """Asserts a tenant scope. Locks: a run that is over, FOR SHARE, so that nobody resumes it while frames expire."""
    run = Run.objects.filter(id=run_id).only("generation", "status", "ended_at").first()
    if run is None:
        return None
    if run.status in RUN_OVER:
        Run.objects.raw("SELECT id FROM runs_run WHERE id = %s FOR SHARE", [run_id])[0]
    unresolved = Step.objects.filter(run_id=run_id, status__in=_UNRESOLVED, key__isnull=False)
    return RunFacts(
        open_generation=run.generation,
        finished_at=run.ended_at if run.status in RUN_OVER else None,
        protected=frozenset(unresolved.values_list("seq", flat=True)),
    )
