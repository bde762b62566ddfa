"""Erasing what runs hold of a subject: they are stopped first, then their keys are destroyed.

Steps, frames, events and the audit of a run are written once and never rewritten, so their words go by their key. What
may be rewritten and could name a person (the session, the tags) is emptied.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from agentstate.audit import notes, trail
from agentstate.core.errors import Conflict
from agentstate.core.ids import public_id
from agentstate.db import locks
from agentstate.tenants.actors import Actor
from checkpoints import keys
from runs import scratchpad
from runs.models import Approval, Run, RunTag
from runs.services import approvals, control
from runs.states import RUN_LIVE


@dataclass(frozen=True, slots=True)
class Concerned:
    """One run that holds words of a subject."""

    run_id: UUID
    agent: str
    status: str
    control: str  # "cancel" while its worker is asked to stop
    worker: str  # its name, while it drives the run

    @property
    def public_id(self) -> str:
        return public_id("run", self.run_id)

    @property
    def is_live(self) -> bool:
        return self.status in RUN_LIVE


def concerned(*, run_ids: Collection[UUID], session_keys: Collection[str]) -> list[Concerned]:
    """These runs, and those of these sessions, oldest first; one query. Asserts nothing: the tenant is the scope's."""
    named = Q(id__in=list(run_ids)) | Q(session_key__in=[key for key in session_keys if key])
    found = Run.objects.filter(named).order_by("id").values_list("id", "agent", "status", "control", "worker__name")
    return [Concerned(*row[:4], worker=row[4] or "") for row in found]


def stop(run_ids: Sequence[UUID], *, actor: Actor, reason: str) -> int:
    """Ask these runs to end; how many were not over. A call under way finishes and is recorded first.

    Asserts a tenant scope. Locks: each run. Idempotent.
    """
    asked = 0
    for run_id in sorted(run_ids):
        try:
            control.cancel_in_scope(run_id, actor=actor, reason=reason)
            asked += 1
        except Conflict:  # it ended meanwhile
            continue
    return asked


def destroy(run_ids: Sequence[UUID], *, session_keys: Collection[str], actor: Actor, erasure: str) -> int:
    """Nothing of these runs can be read any more: their keys go, and the reasons given about them. How many had a key.

    Asserts a tenant scope, and that none of them is live. Locks: the runs. Idempotent.
    """
    rows = locks.lock_in_order(*[Run(id=run_id) for run_id in run_ids])
    approval_ids = list(Approval.objects.filter(run_id__in=run_ids).values_list("id", flat=True))
    notes.erase_about(trail.object_type(Run), list(run_ids))
    notes.erase_about(trail.object_type(Approval), approval_ids)
    readable = keys.several(run_ids)
    for run in rows:
        assert run.status not in RUN_LIVE, "a run is stopped before its key goes"
        if run.id in readable:
            approvals.withdraw_open(run, actor=actor, doubts=True)  # nobody can read any more what is asked
            keys.destroy(run.id)
            trail.record(run, action="run.erased", actor=actor, detail={"erasure": erasure})
        _forget_names(run, session_keys)
        scratchpad.shut(run.tenant_id, run.id)
    return len(readable)


def _forget_names(run: Run, session_keys: Collection[str]) -> None:
    """Of a run of the subject's own sessions; one that only was given words of it is another session's."""
    if run.session_key not in session_keys or not run.session_key:
        return
    RunTag.objects.filter(run_id=run.id).delete()
    Run.objects.filter(id=run.id).update(session_key="", tags=[])
