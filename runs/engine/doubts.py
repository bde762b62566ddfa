"""In doubt: a call that may have happened and that nobody but a probe or a person may settle."""

from __future__ import annotations

from typing import Any

from agentstate.sdk.store import Question
from agentstate.tenants.actors import Actor
from runs.engine import acts
from runs.engine.session import RunSession
from runs.models import Run, Step
from runs.services import approvals, clock
from runs.states import StepStatus


def open_doubt(session: RunSession, run: Run, step: Step, *, why: str) -> None:
    """started -> in_doubt, and the question to people. Asserts a tenant scope and the run's lock."""
    step.status = StepStatus.IN_DOUBT
    step.outcome = "unknown"
    step.doubted_at = clock.database_now()
    step.save(update_fields=["status", "outcome", "doubted_at", "error", "error_type"])
    session.steps[step.identity].status = step.status
    acts.record(run, step, "step.in_doubt", worker_id=session.worker_id, why=why)
    args = _sent(session, step)
    question = Question(title=f"Did {step.name} happen?", tool=step.name, args=args, reason=why, risk="high")
    approvals.request(run, step_seq=step.seq, kind="settle", question=question, key=session.key)


def leave(run: Run, *, actor: Actor, why: str) -> None:
    """As open_doubt(), of every effect under way, and nobody is asked: what they sent is not to be opened any more.

    Asserts a tenant scope and the run's lock. Locks: the steps.
    """
    under_way = Step.objects.select_for_update().filter(run_id=run.id, status=StepStatus.STARTED, key__isnull=False)
    for step in under_way.order_by("seq"):
        step.status, step.outcome, step.doubted_at = StepStatus.IN_DOUBT, "unknown", clock.database_now()
        step.save(update_fields=["status", "outcome", "doubted_at"])
        acts.record_by(run, step, "step.in_doubt", actor=actor, why=why)


def _sent(session: RunSession, step: Step) -> Any:
    """The arguments of the call: what a person edited it to, else what the agent asked for."""
    approval = approvals.of_step(step.run_id, step.seq)
    if approval is not None and approval.used_at is not None:
        return approvals.arguments(approval, session.key)[0]
    return session.open_step(step, "input", step.input)
