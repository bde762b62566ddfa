"""Pause, cancel, resume, emergency stop: one transaction each, conditional, audited."""

from __future__ import annotations

from uuid import UUID

from agentstate.audit import trail
from agentstate.core import canonical
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.limits import REASON_CHARS_MAX
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys
from runs.models import Approval, Run, Step, Stop
from runs.services import approvals, clock, status
from runs.states import ApprovalStatus, RunStatus, StepStatus


def pause(run_id: UUID, *, actor: Actor, reason: str = "") -> Run:
    """Stop at the next step boundary. While a worker drives it the run shows "pausing". Raises: NotFound, Conflict."""
    actors.require(actor, "runs.control")
    _check_reason(reason)
    with tenant_scope(actors.tenant_of(actor), durable=True):
        run = locked(run_id)
        if run.status == RunStatus.PAUSED or (run.status == RunStatus.RUNNING and run.control == "pause"):
            return run
        if run.status == RunStatus.RUNNING:
            return _request(run, "pause", actor=actor, reason=reason)
        if run.status not in (RunStatus.QUEUED, RunStatus.WAITING):
            raise Conflict(f"A run that is {run.status} cannot be paused.", status=run.status)
        return status.move(run, to=RunStatus.PAUSED, actor=actor, reason=reason, changes={"due_at": None})


def cancel(run_id: UUID, *, actor: Actor, reason: str = "") -> Run:
    """End the run; what it did stays done. Raises: NotFound, Conflict when it is over."""
    actors.require(actor, "runs.control")
    _check_reason(reason)
    with tenant_scope(actors.tenant_of(actor), durable=True):
        return cancel_in_scope(run_id, actor=actor, reason=reason)


def cancel_in_scope(run_id: UUID, *, actor: Actor, reason: str) -> Run:
    """cancel() inside the caller's transaction."""
    run = locked(run_id)
    if run.status == RunStatus.CANCELLED or (run.status == RunStatus.RUNNING and run.control == "cancel"):
        return run
    if run.status == RunStatus.RUNNING:
        return _request(run, "cancel", actor=actor, reason=reason)
    if run.status not in (RunStatus.QUEUED, RunStatus.WAITING, RunStatus.PAUSED, RunStatus.IN_DOUBT):
        raise Conflict(f"This run is {run.status}; there is nothing left to cancel.", status=run.status)
    return end_cancelled(run, actor=actor, reason=reason)


def end_cancelled(run: Run, *, actor: Actor, reason: str) -> Run:
    """Asserts a tenant scope and the run's lock."""
    approvals.withdraw_open(run, actor=actor)
    changes = {"ended_at": clock.database_now(), "due_at": None, "waiting_for": "", "control": "", "held": False}
    return status.move(run, to=RunStatus.CANCELLED, actor=actor, reason=reason, changes=changes)


def resume(run_id: UUID, *, actor: Actor, reason: str) -> Run:
    """The same run goes on after its last recorded step; the step it failed at may be called anew.

    Raises: NotFound, Invalid (a reason is kept in the audit), Conflict while an effect is in doubt or the run is live.
    """
    actors.require(actor, "runs.control")
    _check_reason(reason)
    if not reason.strip():
        raise Invalid("Say why it may go on: the reason is kept in the audit.", field="reason")
    with tenant_scope(actors.tenant_of(actor), durable=True):
        run = locked(run_id)
        if run.status == RunStatus.QUEUED:
            return run
        if run.status not in (RunStatus.PAUSED, RunStatus.FAILED):
            raise Conflict(_why_not(run), status=run.status)
        if keys.is_destroyed(run.id):
            raise Conflict("The words of this run were erased; nothing is left to go on from.", status=run.status)
        doubts = Approval.objects.filter(run_id=run.id, kind="settle", status=ApprovalStatus.PENDING).count()
        if doubts:
            raise Conflict(f"{doubts} effect of this run is in doubt. Settle it first; then resume.", in_doubt=doubts)
        _check_session_free(run)
        if run.status == RunStatus.FAILED:
            _take_back_failure(run)
        changes = {
            "due_at": clock.database_now(),
            "waiting_for": "",
            "control": "",
            "version": None,  # whoever resumes has seen the plan: the code of the next claim is accepted
            "claims": 0,
            "error": None,
            "error_type": "",
            "error_step": None,
            "error_steps": [],
            "ended_at": None,
            "wake_reason": "resume",
        }
        return status.move(run, to=RunStatus.QUEUED, actor=actor, reason=reason, changes=changes)


def emergency_stop(*, actor: Actor, agent: str = "", reason: str) -> Stop:
    """No claim and no new step of this agent (or of all); calls in flight finish and are recorded. Idempotent."""
    actors.require(actor, "admin.stop")
    _check_reason(reason)
    if not reason.strip():
        raise Invalid("Say why: the reason is kept in the audit.", field="reason")
    with tenant_scope(actors.tenant_of(actor), durable=True):
        stop, created = Stop.objects.get_or_create(
            agent=agent, status="active", defaults={"created_at": clock.database_now()}
        )
        if created:
            trail.record(stop, action="stop.set", actor=actor, reason=reason, detail={"agent": agent})
        return stop


def lift(*, actor: Actor, agent: str = "", reason: str) -> int:
    """Lift the stop and queue the runs it paused; how many. Raises: NotFound when none is active."""
    actors.require(actor, "admin.stop")
    _check_reason(reason)
    with tenant_scope(actors.tenant_of(actor), durable=True):
        stop = Stop.objects.select_for_update().filter(agent=agent, status="active").first()
        if stop is None:
            raise NotFound("No emergency stop is active there.")
        trail.transition(stop, to="lifted", actor=actor, action="stop.lifted", reason=reason, detail={"agent": agent})
        stopped = Run.objects.select_for_update(no_key=True).filter(status=RunStatus.PAUSED, waiting_for="stop")
        if agent:
            stopped = stopped.filter(agent=agent)
        runs = list(stopped.defer("input", "output"))
        for run in runs:
            changes = {"due_at": clock.database_now(), "waiting_for": "", "wake_reason": "lifted"}
            status.move(run, to=RunStatus.QUEUED, actor=actor, changes=changes)
        return len(runs)


def locked(run_id: UUID) -> Run:
    """Locks: run. Raises: NotFound."""
    run = Run.objects.select_for_update(no_key=True).defer("input", "output").filter(id=run_id).first()
    if run is None:
        raise NotFound("There is no such run.")
    return run


def _request(run: Run, control: str, *, actor: Actor, reason: str) -> Run:
    """Shown as "pausing" / "cancelling" until the worker has really stopped, or its lease has ended."""
    run.control = control
    run.save(update_fields=["control"])
    return trail.record(run, action=f"run.{control}_requested", actor=actor, reason=reason)


def _why_not(run: Run) -> str:
    if run.status == RunStatus.IN_DOUBT:
        return "An effect of this run is in doubt. Settle it: the run then goes on by itself."
    if run.status == RunStatus.WAITING:
        return f"This run waits for {run.waiting_for}; it goes on by itself when that has come."
    return f"This run is {run.status}; there is nothing to resume."


def _check_session_free(run: Run) -> None:
    if not run.session_key or run.status == RunStatus.PAUSED:
        return
    live = Run.objects.filter(session_key=run.session_key, held=False).exclude(id=run.id)
    other = live.exclude(status__in=(RunStatus.SUCCEEDED, RunStatus.CANCELLED, RunStatus.FAILED)).first()
    if other is not None:
        raise Conflict("Another run of this session is live; one runs at a time.", run=str(other.id))


def _take_back_failure(run: Run) -> None:
    """The steps by which the run failed are asked for anew; failures that the agent handled stay as they were told."""
    failed = Step.objects.select_for_update().filter(run_id=run.id, seq__in=run.error_steps, status=StepStatus.FAILED)
    for step in failed.order_by("seq"):
        if step.outcome == "unknown":
            raise Conflict(
                f"Step {step.seq} {step.name} was given up while it was in doubt: it may have happened, so it is not "
                "called again here. Start a new run once you know.",
                step=step.seq,
            )
        step.outcome, step.due_at = "resumed", None
        step.save(update_fields=["outcome", "due_at"])


def _check_reason(reason: str) -> None:
    canonical.check(reason, where="/reason")
    if len(reason) > REASON_CHARS_MAX:
        raise Invalid(f"At most {REASON_CHARS_MAX:,} characters.", field="reason")
