"""The inbox: questions to people, and their decisions. A decision names the version and the proposal it is about."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id
from agentstate.http import waiting
from agentstate.http.schemas import Problem
from agentstate.tenants.actors import Actor
from runs.api import requests
from runs.schemas.approvals import ApprovalOut, ApprovalPageOut, ApprovalQuery, DecisionIn, DecisionOut, SettleIn
from runs.selectors import approvals as inbox
from runs.selectors import runs as listing
from runs.services import approvals, settling

router = Router()
DECIDES = {"parameters": [requests.IF_MATCH_HEADER, requests.IDEMPOTENCY_HEADER]}


@router.get("/approvals", response={200: ApprovalPageOut, 422: Problem}, operation_id="list_approvals", by_alias=True)
@waiting.offloaded
def list_approvals(request: HttpRequest, wanted: Query[ApprovalQuery]) -> ApprovalPageOut:
    """Open questions; with `decided` the newest answered ones."""
    actor = requests.allowed(request, "runs.read")
    requests.refuse_others(request, "tool", "risk", "sort", "decided")
    found = requests.scoped(
        actor,
        lambda: inbox.inbox(
            tool=wanted.tool.replace("\0", ""), risk=wanted.risk, sort=wanted.sort, decided=wanted.decided
        ),
    )
    return ApprovalPageOut(approvals=[shown(row) for row in found.rows], pending=found.pending, more=found.more)


@router.get(
    "/approvals/{approval_id}", response={200: ApprovalOut, 404: Problem}, operation_id="get_approval", by_alias=True
)
@waiting.offloaded
def get(request: HttpRequest, response: HttpResponse, approval_id: str) -> ApprovalOut:
    """One question with its proposal. The ETag is its version."""
    actor = requests.allowed(request, "runs.read")
    return _read(actor, response, approval_id)


@router.post(
    "/approvals/{approval_id}/decision",
    response={200: ApprovalOut, (404, 409, 422): Problem},
    operation_id="decide_approval",
    by_alias=True,
    openapi_extra=DECIDES,
)
@waiting.offloaded
def decide(request: HttpRequest, response: HttpResponse, approval_id: str, wanted: DecisionIn) -> ApprovalOut:
    """Decide once. 409 names who was first; the same Idempotency-Key gives the same answer."""
    actor = requests.allowed(request, "approvals.decide")
    approvals.decide(
        parse_id("apr", approval_id),
        actor=actor,
        decision=wanted.decision,
        version=requests.expected_version(request),
        proposal_hash=wanted.proposal_hash,
        args=wanted.args,
        message=wanted.message,
        client_token=requests.client_token(request),
    )
    return _read(actor, response, approval_id)


@router.post(
    "/runs/{run_id}/steps/{seq}/settle",
    response={200: ApprovalOut, (404, 409, 422): Problem},
    operation_id="settle_step",
    by_alias=True,
    openapi_extra=DECIDES,
)
@waiting.offloaded
def settle(request: HttpRequest, response: HttpResponse, run_id: str, seq: int, wanted: SettleIn) -> ApprovalOut:
    """Say of an effect in doubt whether it happened. The rule that holds for approving it holds here."""
    actor = requests.allowed(request, "approvals.decide")
    doubt = requests.scoped(actor, lambda: _doubt(run_id, seq))
    settling.settle(
        doubt.id,
        actor=actor,
        verdict=wanted.verdict,
        version=requests.expected_version(request),
        proposal_hash=wanted.proposal_hash,
        reason=wanted.reason,
        output=wanted.output,
        evidence=wanted.evidence,
        client_token=requests.client_token(request),
    )
    return _read(actor, response, doubt.public_id)


def shown(row: inbox.ApprovalRow) -> ApprovalOut:
    return ApprovalOut(
        approval_id=row.public_id,
        run_id=row.run,
        step_seq=row.step_seq,
        kind=row.kind,
        tool=row.tool,
        agent=row.agent,
        risk=row.risk,
        status=row.status,
        version=row.version,
        proposal_hash=row.proposal_hash,
        title=row.title,
        args=row.args,
        schema=dict(row.schema),
        reason=str(row.proposal.get("reason", "")),
        evidence=list(row.proposal.get("evidence", [])),
        requested_at=row.requested_at,
        expires_at=row.expires_at,
        decided_at=row.decided_at,
        decided_by=row.decided_by,
        decision=DecisionOut(
            **{name: row.decision.get(name) for name in ("args", "answer")},
            message=str(row.decision.get("message", "")),
        )
        if row.decision
        else None,
        use_within_s=row.use_within_s,
        use_by=row.use_by,
        used_at=row.used_at,
        corrupt=row.corrupt,
    )


def _read(actor: Actor, response: HttpResponse, approval_id: str) -> ApprovalOut:
    found = shown(requests.scoped(actor, lambda: inbox.find(approval_id)))
    response["ETag"] = f'"{found.version}"'
    return found


def _doubt(run_id: str, seq: int) -> inbox.ApprovalRow:
    found = [row for row in inbox.of_run(listing.find(run_id), step_seq=seq) if row.kind == "settle"]
    if not found:
        raise NotFound("This step is not in doubt, so there is nothing to settle.")
    return found[-1]
