"""Proposals: what somebody suggests to change, accepted or rejected once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from ninja import Query, Router

from agentstate.core.ids import parse_id, public_id
from agentstate.http.schemas import Problem
from agentstate.http.waiting import offloaded
from agentstate.tenants.actors import Actor
from memory.api import acting
from memory.api.acting import named
from memory.schemas.parts import BecauseIn
from memory.schemas.proposals import DecidedOut, ProposalOut, ProposalPageOut, ProposalQuery
from memory.selectors import review
from memory.selectors.review import ProposalRow
from memory.services import proposals
from memory.services.proposals import Decided

router = Router()
REFUSALS = {(404, 409, 422): Problem}


@router.get("/memory/proposals", response={200: ProposalPageOut, (404, 422): Problem}, operation_id="list_proposals")
@offloaded
def list_proposals(request: HttpRequest, wanted: Query[ProposalQuery]) -> ProposalPageOut:
    """Pending ones, newest first; with `decided` the others."""
    actor = acting.reader(request)
    acting.only(request, wanted)

    def read() -> ProposalPageOut:
        subject_id = acting.subject_of(wanted.subject) if wanted.subject else None
        page = review.page(decided=wanted.decided, subject_id=subject_id, after=wanted.cursor)
        return ProposalPageOut(proposals=[_shown(row) for row in page.rows], next=page.after)

    return acting.read(actor, read)


@router.get("/memory/proposals/{proposal_id}", response={200: ProposalOut, 404: Problem}, operation_id="get_proposal")
@offloaded
def get(request: HttpRequest, proposal_id: str) -> ProposalOut:
    """One proposal beside what stands now."""
    return acting.read(acting.reader(request), lambda: _shown(review.find(proposal_id)))


@router.post(
    "/memory/proposals/{proposal_id}/accept",
    response={200: DecidedOut, **REFUSALS},
    operation_id="accept_proposal",
    openapi_extra=acting.KEYED,
)
@offloaded
def accept(request: HttpRequest, proposal_id: str, wanted: BecauseIn) -> DecidedOut:
    """Do it. When its item has changed since, it is withdrawn instead, and `why` says so."""
    return _decided(request, proposal_id, wanted, proposals.accept)


@router.post(
    "/memory/proposals/{proposal_id}/reject",
    response={200: DecidedOut, **REFUSALS},
    operation_id="reject_proposal",
    openapi_extra=acting.KEYED,
)
@offloaded
def reject(request: HttpRequest, proposal_id: str, wanted: BecauseIn) -> DecidedOut:
    """Leave memory as it is."""
    return _decided(request, proposal_id, wanted, proposals.reject)


def _decided(request: HttpRequest, proposal_id: str, wanted: BecauseIn, decide: Callable[..., Decided]) -> DecidedOut:
    actor = acting.writer(request)

    def act() -> dict[str, Any]:
        decided = decide(parse_id("proposal", proposal_id), actor=actor, reason=wanted.reason)
        return {"item_id": named("item", decided.item.id if decided.item else None), "why": decided.why}

    return _out(actor, proposal_id, acting.once(request, actor, wanted, act))


def _out(actor: Actor, proposal_id: str, decided: dict[str, Any]) -> DecidedOut:
    proposal = acting.read(actor, lambda: _shown(review.find(proposal_id)))
    return DecidedOut(proposal=proposal, **decided)


def _shown(row: ProposalRow) -> ProposalOut:
    own = {"proposal_id", "subject_id", "item_id", "run_id", "step_seq", "message_ids"}
    return ProposalOut(
        proposal_id=row.public_id,
        subject_id=row.subject_public_id,
        item_id=named("item", row.item_id),
        run_id=named("run", row.source_run_id),
        step_seq=row.source_step_seq,
        message_ids=[public_id("message", each) for each in row.source_message_ids],
        **{name: getattr(row, name) for name in ProposalOut.model_fields.keys() - own},
    )
