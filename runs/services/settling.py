"""Settling an effect in doubt: a person says whether it happened, under the rule that holds for approving it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agentstate.audit import trail
from agentstate.core import canonical
from agentstate.core.errors import Conflict, Invalid
from agentstate.core.failpoints import hit, register
from agentstate.core.limits import REASON_CHARS_MAX
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys
from runs import sealing
from runs.models import Approval, ApprovalVote, Run, Step
from runs.services import approvals, clock, four_eyes, proofs, status, waiting_times
from runs.states import ApprovalStatus, RunStatus, StepStatus

register("settle.settled", "the verdict / its hint")

VERDICTS = {
    "happened": ApprovalStatus.APPROVED,
    "did_not_happen": ApprovalStatus.REJECTED,
    "give_up": ApprovalStatus.RESPONDED,
}


def settle(
    approval_id: UUID,
    *,
    actor: Actor,
    verdict: str,
    version: int,
    proposal_hash: str,
    reason: str,
    output: Any = None,
    evidence: str = "",
    client_token: str = "",
) -> Approval:
    """happened (done, with `output`) | did_not_happen (one further call is allowed) | give_up (fails the run).

    "did not happen" stays closed until no call of the old worker can be under way any more, unless that process is
    proven dead. Raises: NotFound, Forbidden, Invalid, Conflict. Locks: run, step, approval. Idempotent by client_token.
    """
    actors.require(actor, "approvals.decide")
    _check(verdict, reason=reason, evidence=evidence)
    with tenant_scope(actors.tenant_of(actor), durable=True):
        run, approval = approvals.lock(approval_id)
        if (
            client_token
            and ApprovalVote.objects.filter(approval=approval, actor_id=actor.id, client_token=client_token).exists()
        ):
            return approval
        if approval.kind != "settle":
            raise Invalid("This is a question to decide, not an effect in doubt.", field="verdict")
        approvals.check_open(approval, version=version, proposal_hash=proposal_hash)
        four_eyes.check(run, actor)
        assert approval.step_seq is not None
        step = Step.objects.select_for_update().get(run_id=run.id, seq=approval.step_seq)
        if step.status != StepStatus.IN_DOUBT:
            raise Conflict(f"Step {step.seq} {step.name} is {step.status} by now: nothing is left to settle.")
        key = keys.existing(run.id)
        _SETTLE[verdict](run, step, key=key, output=output, evidence=evidence)
        body = {"verdict": verdict, "message": reason, "evidence": evidence, "answer": verdict}
        approvals.close(
            approval,
            actor=actor,
            to=VERDICTS[verdict],
            body=body,
            key=key,
            client_token=client_token,
            word=verdict[:10],
        )
        detail = {"seq": step.seq, "key": step.key, "verdict": verdict}
        trail.record(run, action=f"effect.{verdict}", actor=actor, reason=reason, detail=detail)
        _go_on(run, verdict, key=key, actor=actor, step=step)
    hit("settle.settled")
    return approval


def _check(verdict: str, *, reason: str, evidence: str) -> None:
    if verdict not in VERDICTS:
        raise Invalid(f"{verdict!r} is no verdict: use one of {', '.join(VERDICTS)}.", field="verdict")
    if not reason.strip():
        raise Invalid("Say how you know: the reason is kept in the audit.", field="reason")
    for field, text in (("reason", reason), ("evidence", evidence)):
        canonical.check(text, where=f"/{field}")
        if len(text) > REASON_CHARS_MAX:
            raise Invalid(f"At most {REASON_CHARS_MAX:,} characters.", field=field)


def _happened(run: Run, step: Step, *, key: bytes, output: Any, evidence: str) -> None:
    """Without `output` the agent gets null: it happened, and the answer is lost. Evidence stays with the vote."""
    plain = sealing.canonical_payload(output, what="output")
    step.output = sealing.seal_step(key, run.tenant_id, run.id, step.generation, step.identity, "output", plain)
    step.output_hash = sealing.fingerprint(run.tenant_id, plain)
    step.status, step.outcome, step.source, step.ended_at = StepStatus.DONE, "done", "operator", clock.database_now()
    step.save(update_fields=["output", "output_hash", "status", "outcome", "source", "ended_at"])


def _did_not_happen(run: Run, step: Step, *, key: bytes, output: Any, evidence: str) -> None:
    opens_at = waiting_times.did_not_happen_opens_at(step, dead_at=proofs.dead_at(step.worker_id))
    if opens_at > clock.database_now():
        raise Conflict(
            f"A late answer may still come until {opens_at:%H:%M:%S} UTC. Until then nobody can know that it did not "
            "happen.",
            field="verdict",
            opens_at=opens_at.isoformat(),
        )
    step.authorised = step.sent
    step.save(update_fields=["authorised"])


def _give_up(run: Run, step: Step, *, key: bytes, output: Any, evidence: str) -> None:
    """The outcome stays unknown: the call may have happened, so no resume may make another."""
    step.status, step.source, step.ended_at = StepStatus.FAILED, "operator", clock.database_now()
    step.outcome = "unknown"
    step.save(update_fields=["status", "outcome", "source", "ended_at"])


_SETTLE = {"happened": _happened, "did_not_happen": _did_not_happen, "give_up": _give_up}


def _go_on(run: Run, verdict: str, *, key: bytes, actor: Actor, step: Step) -> None:
    if run.status != RunStatus.IN_DOUBT:
        return
    if verdict == "give_up":
        message = f"Step {step.seq} {step.name} was given up."
        plain = canonical.dumps({"type": "GaveUp", "message": message, "retryable": False})
        changes = {
            "error": sealing.seal_run(key, run.tenant_id, run.id, "error", plain),
            "error_type": "GaveUp",
            "error_step": step.seq,
            "error_steps": [step.seq],
            "waiting_for": "",
            "ended_at": clock.database_now(),
        }
        status.move(run, to=RunStatus.FAILED, actor=actor, changes=changes)
        return
    open_doubts = Approval.objects.filter(run_id=run.id, kind="settle", status=ApprovalStatus.PENDING)
    if not open_doubts.exists():
        changes = {"due_at": clock.database_now(), "waiting_for": "", "wake_reason": "settled"}
        status.move(run, to=RunStatus.QUEUED, actor=actor, changes=changes)
