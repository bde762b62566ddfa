"""Questions to people: asking, deciding once, and using a decision once.

A decision names the exact proposal (version and hash) that the person saw. The first one wins; the others are told
who won. The same click sent twice is one decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, cast
from uuid import UUID

import jsonschema

from agentstate.audit import trail
from agentstate.core import canonical
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.failpoints import hit, register
from agentstate.core.ids import public_id
from agentstate.core.limits import REASON_CHARS_MAX
from agentstate.notify import outbox
from agentstate.sdk.store import Question
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import current_tenant, tenant_scope
from checkpoints import keys
from runs import sealing
from runs.models import Approval, ApprovalVote, Run
from runs.services import clock, four_eyes, status
from runs.states import ApprovalStatus, RunStatus

register("approval.decided", "the decision / its hint")

_STATUS_OF = {
    "approve": ApprovalStatus.APPROVED,
    "edit": ApprovalStatus.EDITED,
    "reject": ApprovalStatus.REJECTED,
    "respond": ApprovalStatus.RESPONDED,
}
_ALLOWED = {
    "tool": frozenset({"approve", "edit", "reject", "respond"}),
    "ask": frozenset({"respond", "reject"}),
    "budget": frozenset({"approve", "edit", "reject"}),
}


def request(run: Run, *, step_seq: int | None, kind: str, question: Question, key: bytes) -> Approval:
    """Put a question before people. Asserts a tenant scope; the caller moves the run.

    The notification is in the outbox when this commits. One pending question per step and kind: asking again gives
    the one that is there.
    """
    pending = Approval.objects.filter(
        run_id=run.id, step_seq=step_seq, kind=kind, status=ApprovalStatus.PENDING
    ).first()
    if pending is not None:
        return pending
    now = clock.database_now()
    approval = Approval(
        run=run,
        step_seq=step_seq,
        kind=kind,
        tool=question.tool,
        agent=run.agent,
        risk=question.risk,
        requested_at=now,
        use_within_s=question.use_within_s,
        expires_at=None if question.expires_in_s is None else now + timedelta(seconds=question.expires_in_s),
    )
    plain = canonical.dumps(
        {
            "title": question.title,
            "tool": question.tool,
            "args": question.args,
            "schema": dict(question.schema),
            "reason": question.reason,
            "evidence": list(question.evidence),
        },
        where="/question",
    )
    approval.proposal = sealing.seal_approval(key, run.tenant_id, approval.id, "proposal", plain)
    approval.proposal_hash = sealing.fingerprint(run.tenant_id, plain)
    approval.save(force_insert=True)
    trail.record(
        approval, action="approval.requested", actor=actors.system("engine"), detail={"run": str(run.id), "kind": kind}
    )
    slug = Tenant.objects.values_list("slug", flat=True).get(id=run.tenant_id)
    outbox.put("approval.mail", str(approval.id), {"path": f"/t/{slug}/approvals/{public_id('apr', approval.id)}/"})
    return approval


def decide(
    approval_id: UUID,
    *,
    actor: Actor,
    decision: str,
    version: int,
    proposal_hash: str,
    args: Any = None,
    message: str = "",
    client_token: str = "",
) -> Approval:
    """Decide once: approve | edit (args) | reject (message) | respond (message, or args as the answer to a question).

    Raises: NotFound, Forbidden, Invalid (with the field), Conflict with `winner` when it is decided or was changed.
    Locks: run, approval. Idempotent: the same actor with the same client_token gets the same answer.
    """
    actors.require(actor, "approvals.decide")
    with tenant_scope(actors.tenant_of(actor), durable=True):
        run, approval = lock(approval_id)
        if _is_repeated(approval, actor, client_token):
            return approval
        check_open(approval, version=version, proposal_hash=proposal_hash)
        if decision not in _ALLOWED.get(approval.kind, frozenset()):
            raise Invalid(_wrong_decision(approval, decision), field="decision")
        four_eyes.check(run, actor)
        key = keys.existing(run.id)
        proposal = opened_proposal(approval, key)
        args = _checked_arguments(approval, proposal, decision, args)
        _check_message(decision, approval, message, args)
        close(
            approval,
            actor=actor,
            to=_STATUS_OF[decision],
            body={"args": args, "message": message, "answer": args if approval.kind == "ask" else message},
            key=key,
            client_token=client_token,
            word=decision,
        )
        _go_on(run, approval, actor=actor, args=args or proposal["args"])
    hit("approval.decided")
    return approval


def lock(approval_id: UUID) -> tuple[Run, Approval]:
    """Locks: run, then approval. Raises: NotFound."""
    found = Approval.objects.filter(id=approval_id).values_list("run_id", flat=True).first()
    if found is None:
        raise NotFound("There is no such approval.")
    run = Run.objects.select_for_update(no_key=True).get(id=found)
    return run, Approval.objects.select_for_update(no_key=True).get(id=approval_id)


def check_open(approval: Approval, *, version: int, proposal_hash: str) -> None:
    """Raises: Conflict naming who decided, or that the proposal is another one by now."""
    if approval.status != ApprovalStatus.PENDING:
        raise Conflict(
            f"{approval.decided_by_name or 'The clock'} decided this already: {approval.status}.",
            winner=approval.decided_by_name,
            status=approval.status,
            decided_at=None if approval.decided_at is None else approval.decided_at.isoformat(),
        )
    if approval.expires_at is not None and approval.expires_at <= clock.database_now():
        raise Conflict(
            "The time for this decision is over; the run asks again if it still needs one.", status="expired"
        )
    if approval.version != version or bytes(approval.proposal_hash).hex() != proposal_hash:
        raise Conflict(
            "The proposal changed while you were looking at it. Read it again before you decide.",
            status=approval.status,
            version=approval.version,
        )


def close(
    approval: Approval,
    *,
    actor: Actor,
    to: str,
    body: Mapping[str, Any],
    key: bytes,
    client_token: str,
    word: str,
) -> None:
    """pending -> decided, with the vote and the audit entry. Asserts a tenant scope and the approval's lock."""
    now = clock.database_now()
    plain = canonical.dumps(dict(body), where="/decision")
    trail.transition(
        approval,
        to=to,
        actor=actor,
        action=f"approval.{to}",
        reason=str(body.get("message", ""))[:REASON_CHARS_MAX],
        set={
            "decision": sealing.seal_approval(key, approval.tenant_id, approval.id, "decision", plain),
            "decided_at": now,
            "decided_by_kind": actor.kind,
            "decided_by_id": actor.id,
            "decided_by_name": actor.name,
            "use_by": None if approval.use_within_s is None else now + timedelta(seconds=approval.use_within_s),
        },
        detail={"version": approval.version, "proposal": bytes(approval.proposal_hash).hex(), "word": word},
    )
    ApprovalVote.objects.create(
        approval=approval,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        decision=word[:10],
        version=approval.version,
        proposal_hash=bytes(approval.proposal_hash),
        client_token=client_token or f"once:{approval.id.hex}",
        at=now,
    )


def expire(approval_id: UUID) -> None:
    """The time is over: the run goes on and is told `expired`, never `rejected`. Idempotent."""
    with tenant_scope(current_tenant()):
        run, approval = lock(approval_id)
        if approval.status != ApprovalStatus.PENDING or approval.expires_at is None:
            return
        if approval.expires_at > clock.database_now():
            return
        trail.transition(approval, to=ApprovalStatus.EXPIRED, actor=actors.system("clock"), action="approval.expired")
        _go_on(run, approval, actor=actors.system("clock"), args=None)


def withdraw_open(run: Run, *, actor: Actor, doubts: bool = False) -> None:
    """The run is over: its open questions need no answer any more. An effect in doubt still does, unless `doubts`."""
    still_asked = [] if doubts else ["settle"]
    for approval in Approval.objects.filter(run_id=run.id, status=ApprovalStatus.PENDING).exclude(kind__in=still_asked):
        trail.transition(approval, to=ApprovalStatus.WITHDRAWN, actor=actor, action="approval.withdrawn")


def of_step(run_id: UUID, seq: int) -> Approval | None:
    """The newest question about a step that is not the settling of a doubt."""
    return Approval.objects.filter(run_id=run_id, step_seq=seq).exclude(kind="settle").order_by("-id").first()


def arguments(approval: Approval, key: bytes) -> tuple[Any, bool]:
    """What the tool is called with, and whether a person edited it."""
    if approval.status == ApprovalStatus.EDITED:
        return opened_decision(approval, key)["args"], True
    return opened_proposal(approval, key)["args"], False


def opened_proposal(approval: Approval, key: bytes) -> dict[str, Any]:
    found: dict[str, Any] = sealing.open_approval(key, approval.tenant_id, approval.id, "proposal", approval.proposal)
    return found


def opened_decision(approval: Approval, key: bytes) -> dict[str, Any]:
    return sealing.open_approval(key, approval.tenant_id, approval.id, "decision", approval.decision) or {}


def use(approval: Approval) -> None:
    """One approval, one send. Asserts the run's lock. Raises: Conflict when it was used."""
    used = Approval.objects.filter(id=approval.id, used_at__isnull=True).update(used_at=clock.database_now())
    if used != 1:
        raise Conflict("This approval has been used for a call already; another call needs another approval.")


def ask_anew(run: Run, approval: Approval, *, key: bytes) -> Approval:
    """An approval that was not used in time is no licence any more: the same question again."""
    proposal = opened_proposal(approval, key)
    question = Question(
        title=proposal["title"],
        tool=proposal["tool"],
        args=proposal["args"],
        schema=proposal["schema"],
        reason=proposal["reason"],
        evidence=proposal["evidence"],
        risk=cast(Literal["low", "high"], approval.risk),
        use_within_s=approval.use_within_s,
    )
    return request(run, step_seq=approval.step_seq, kind=approval.kind, question=question, key=key)


def _is_repeated(approval: Approval, actor: Actor, client_token: str) -> bool:
    if not client_token:
        return False
    return ApprovalVote.objects.filter(approval=approval, actor_id=actor.id, client_token=client_token).exists()


def _wrong_decision(approval: Approval, decision: str) -> str:
    allowed = ", ".join(sorted(_ALLOWED.get(approval.kind, frozenset())))
    if not allowed:
        return "An effect in doubt is settled, not approved: say whether it happened."
    return f"{decision!r} is no answer to this question: use one of {allowed}."


def _checked_arguments(approval: Approval, proposal: Mapping[str, Any], decision: str, args: Any) -> Any:
    """The edited arguments or the answer, valid by the question's schema; None for the others."""
    if decision == "edit":
        _check_locked(proposal, args)
    elif not (decision == "respond" and approval.kind == "ask"):
        return None
    canonical.check(args, where="/args")
    schema = proposal["schema"]
    if schema:
        error = jsonschema.Draft202012Validator(schema).iter_errors(args)
        first = next(iter(error), None)
        if first is not None:
            field = "/args" + "".join(f"/{part}" for part in first.absolute_path)
            raise Invalid(f"{field}: {first.message[:300]}.", field=field)
    return args


def _check_locked(proposal: Mapping[str, Any], args: Any) -> None:
    proposed = proposal["args"]
    if not isinstance(args, dict) or not isinstance(proposed, dict):
        raise Invalid("Send the arguments as an object.", field="/args")
    for name, schema in (proposal["schema"].get("properties") or {}).items():
        if isinstance(schema, dict) and schema.get("readOnly") and args.get(name) != proposed.get(name):
            raise Invalid(f"{name} is locked by the tool's author and cannot be edited here.", field=f"/args/{name}")


def _check_message(decision: str, approval: Approval, message: str, args: Any) -> None:
    canonical.check(message, where="/message")
    if len(message) > REASON_CHARS_MAX:
        raise Invalid(f"At most {REASON_CHARS_MAX:,} characters.", field="message")
    if decision == "reject" and not message.strip():
        raise Invalid("Say why: the agent is told the reason, and the audit keeps it.", field="message")
    if decision == "respond" and approval.kind == "tool" and not message.strip():
        raise Invalid("Write the answer that the agent gets in place of the call.", field="message")


def _go_on(run: Run, approval: Approval, *, actor: Actor, args: Any) -> None:
    """Several pending questions of one run: one decision each, one resume, after the last."""
    if approval.kind == "budget":
        _apply_budget(run, approval, actor=actor, args=args)
        return
    if run.status != RunStatus.WAITING or run.waiting_for != "approval":
        return
    others = Approval.objects.filter(run_id=run.id, status=ApprovalStatus.PENDING).exclude(kind="settle")
    if not others.exists():
        changes = {"due_at": clock.database_now(), "waiting_for": "", "wake_reason": "decision"}
        status.move(run, to=RunStatus.QUEUED, actor=actor, changes=changes)


def _apply_budget(run: Run, approval: Approval, *, actor: Actor, args: Any) -> None:
    if run.status != RunStatus.WAITING or run.waiting_for != "budget":
        return
    if approval.status in (ApprovalStatus.APPROVED, ApprovalStatus.EDITED):
        caps = {f"budget_{name}": args[name] for name in ("steps", "tokens", "cost", "wall_s") if name in args}
        changes = {**caps, "due_at": clock.database_now(), "waiting_for": "", "wake_reason": "budget"}
        status.move(run, to=RunStatus.QUEUED, actor=actor, changes=changes)
        return
    now = clock.database_now()
    changes = {"error_type": "BudgetRefused", "waiting_for": "", "due_at": None, "ended_at": now}
    status.move(run, to=RunStatus.FAILED, actor=actor, changes=changes)
