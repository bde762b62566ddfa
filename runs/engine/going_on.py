"""How the run goes on after a turn: it waits, pauses, ends, or opens its next generation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from agentstate.core import canonical
from agentstate.sdk.store import Continue, End, Failure, Park, Question
from agentstate.tenants.actors import Actor
from runs import sealing
from runs.engine import acts
from runs.engine.session import RunSession
from runs.models import Approval, Run, Step
from runs.services import approvals, clock, status
from runs.states import ApprovalStatus, RunStatus, StepStatus

_WAITING = frozenset({"approval", "timer", "retry", "probe"})


def locked(session: RunSession) -> Run:
    """The run's row, locked by this transaction since runs_turn updated it."""
    return Run.objects.select_for_update(no_key=True).defer("input", "output").get(id=session.run_id)


def go_on(session: RunSession, run: Run, then: Park | End | Continue) -> str:
    """Asserts a tenant scope and the run's lock. Returns the run's status after it."""
    if isinstance(then, Continue):
        return _continue(session, run)
    if isinstance(then, End):
        return _end(session, run, then)
    return _park(session, run, then)


def _continue(session: RunSession, run: Run) -> str:
    run.generation += 1
    run.generation_frame = run.frame_n
    run.generation_seq = run.step_seq
    run.save(update_fields=["generation", "generation_frame", "generation_seq"])
    session.generation = run.generation
    session.base_state = session.state
    session.forget_steps()
    return run.status


def _end(session: RunSession, run: Run, end: End) -> str:
    if end.outcome != "cancelled" and _unresolved(run):
        # The agent is through, but nobody knows whether one of its effects happened: that must be settled first.
        return _park(session, run, Park("in_doubt"))
    changes: dict[str, Any] = {"ended_at": clock.database_now(), "control": "", "waiting_for": ""}
    if end.outcome == "succeeded":
        _skip_waiting(run, actor=acts.worker(session.worker_id))
        plain = sealing.canonical_payload(end.output, what="output")
        changes["output"] = sealing.seal_run(session.key, session.tenant_id, run.id, "output", plain)
    if end.failure is not None:
        changes.update(failure_columns(session.key, run, end.failure, steps=end.steps))
    moved = status.move(run, to=end.outcome, actor=acts.worker(session.worker_id), changes=changes)
    return moved.status


def failure_columns(key: bytes, run: Run, failure: Failure, *, steps: Sequence[int] = ()) -> dict[str, Any]:
    """`steps`: those it failed by, innermost first; who does not say gets the last that failed."""
    text = failure.message.replace("\0", "").encode("utf-8", "replace").decode()[:4000]
    plain = canonical.dumps({"type": failure.type[:200], "message": text, "retryable": failure.retryable})
    failed = Step.objects.filter(run_id=run.id, generation=run.generation, status=StepStatus.FAILED)
    if not steps:
        steps = list(failed.order_by("-seq").values_list("seq", flat=True)[:1])
    return {
        "error": sealing.seal_run(key, run.tenant_id, run.id, "error", plain),
        "error_type": failure.type[:200],
        "error_step": steps[0] if steps else None,
        "error_steps": list(steps),
    }


def _skip_waiting(run: Run, *, actor: Actor) -> None:
    """What the agent asked for and did not take up is left out for good: nothing of it was called."""
    waiting = Step.objects.filter(run_id=run.id, generation=run.generation, status=StepStatus.WAITING)
    waiting.update(status=StepStatus.SKIPPED, ended_at=clock.database_now())
    approvals.withdraw_open(run, actor=actor)


def _unresolved(run: Run) -> bool:
    effects = Step.objects.filter(run_id=run.id, generation=run.generation, key__isnull=False)
    return effects.filter(status__in=(StepStatus.IN_DOUBT, StepStatus.STARTED)).exists()


def _park(session: RunSession, run: Run, park: Park) -> str:
    """One of the conditions may have come true while the executor was on its way here: then the run is due at once."""
    if run.control == "cancel":
        return _end(session, run, End("cancelled"))
    now = clock.database_now()
    due_at = None if park.due_s is None else now + timedelta(seconds=max(0.0, park.due_s))
    to, waiting_for = _status_of(park)
    if park.why == "approval" and not _pending(run):
        to, waiting_for, due_at = RunStatus.QUEUED, "", now
    if park.why == "in_doubt" and not _in_doubt(run):
        to, waiting_for, due_at = RunStatus.QUEUED, "", now
    if park.why == "budget":
        _ask_for_budget(session, run)
    if to == RunStatus.QUEUED:
        due_at = due_at or now
    control = run.control
    if park.why in ("pause", "stop") or (to != RunStatus.QUEUED and control == "pause"):
        control = ""
        to = RunStatus.PAUSED if to == RunStatus.WAITING else to
    changes = {
        "waiting_for": waiting_for,
        "due_at": due_at,
        "lease_until": None,
        "control": control,
        "wake_reason": park.why if to == RunStatus.QUEUED else run.wake_reason,
    }
    moved = status.move(run, to=to, actor=acts.worker(session.worker_id), changes=changes, reason=park.detail)
    return moved.status


def _status_of(park: Park) -> tuple[str, str]:
    if park.why in _WAITING:
        return RunStatus.WAITING, park.why
    if park.why == "budget":
        return RunStatus.WAITING, "budget"
    if park.why == "in_doubt":
        return RunStatus.IN_DOUBT, "settle"
    if park.why == "shutdown":
        return RunStatus.QUEUED, ""
    return RunStatus.PAUSED, park.why  # pause, stop, code


def _pending(run: Run) -> bool:
    return Approval.objects.filter(run_id=run.id, status=ApprovalStatus.PENDING).exclude(kind="settle").exists()


def _in_doubt(run: Run) -> bool:
    effects = Step.objects.filter(run_id=run.id, generation=run.generation)
    unsettled = effects.filter(status=StepStatus.IN_DOUBT)
    started = effects.filter(status=StepStatus.STARTED, key__isnull=False)
    return any(step.authorised < step.sent for step in unsettled) or started.exists()


def _ask_for_budget(session: RunSession, run: Run) -> None:
    if Approval.objects.filter(run_id=run.id, status=ApprovalStatus.PENDING, kind="budget").exists():
        return
    caps = {
        "steps": run.budget_steps,
        "tokens": run.budget_tokens,
        "cost": run.budget_cost,
        "wall_s": run.budget_wall_s,
    }
    args = {name: cap * 2 for name, cap in caps.items() if cap is not None}
    question = Question(
        title="Raise the budget of this run?",
        args=args,
        schema={"type": "object", "properties": {name: {"type": "number"} for name in args}},
        reason=f"{run.step_seq} steps, {run.tokens_in + run.tokens_out} tokens, {run.cost:.4f} spent so far.",
    )
    approvals.request(run, step_seq=None, kind="budget", question=question, key=session.key)
