"""Runs: admit, list, read, and what people do to them."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from agentstate.core.errors import Invalid
from agentstate.core.ids import parse_id, public_id
from agentstate.http import cursors, waiting
from agentstate.http.schemas import Problem
from agentstate.sdk.store import Budget
from agentstate.tenants import actors
from runs.api import requests
from runs.models import Run
from runs.schemas.runs import (
    ControlOut,
    FailureOut,
    ReasonIn,
    RunFullOut,
    RunIn,
    RunInfoOut,
    RunOut,
    RunPageOut,
    RunQuery,
)
from runs.selectors import runs as listing
from runs.selectors import story
from runs.services import control

router = Router()


@router.post(
    "/runs",
    response={200: RunInfoOut, 201: RunInfoOut, (404, 409, 413, 422): Problem},
    operation_id="admit_run",
    openapi_extra={"parameters": [requests.IDEMPOTENCY_HEADER, requests.TRACE_HEADER]},
)
@waiting.offloaded
def admit(request: HttpRequest, wanted: RunIn) -> HttpResponse:
    """Start a run; it is durable before the answer leaves. 200: the same external_id or Idempotency-Key had one."""
    actor = requests.allowed(request, "runs.start")
    info = requests.store(actor).admit(
        wanted.agent,
        wanted.input,
        external_id=wanted.external_id,
        session=wanted.session,
        session_policy=wanted.session_policy,
        tags=wanted.tags,
        budget=Budget(**wanted.budget.model_dump()) if wanted.budget else None,
        context_budget_tokens=wanted.context_budget_tokens,
        idempotency_key=requests.idempotency_key(request),
        trace_id=requests.trace_id(request, wanted.trace_id),
    )
    return requests.answer(info, status=201 if info.created else 200)


@router.get("/runs", response={200: RunPageOut, 422: Problem}, operation_id="list_runs")
@waiting.offloaded
def list_runs(request: HttpRequest, wanted: Query[RunQuery]) -> RunPageOut:
    """Newest first. Times are of admission; `from` is included, `to` is not."""
    actor = requests.allowed(request, "runs.read")
    requests.refuse_others(request, "state", "agent", "tag", "external_id", "from", "to", "cursor", "limit")
    place = f"api.runs:{actors.tenant_of(actor)}:{wanted.model_dump_json(exclude={'cursor', 'limit'})}"
    found = requests.scoped(
        actor, lambda: listing.page(_filter(wanted), after=_after(wanted, place), rows_max=wanted.limit)
    )
    following = cursors.encode([parse_id("run", found.older)], scope=place) if found.older else ""
    return RunPageOut(runs=[_row(row) for row in found.rows], next=following)


@router.get("/runs/{run_id}", response={200: RunFullOut, 404: Problem}, operation_id="get_run")
@waiting.offloaded
def get(request: HttpRequest, run_id: str) -> RunFullOut:
    """One run with its input, its output or failure, and how it stands."""
    actor = requests.allowed(request, "runs.read")
    return requests.scoped(actor, lambda: _full(run_id))


@router.post("/runs/{run_id}/pause", response={200: ControlOut, (404, 409): Problem}, operation_id="pause_run")
@waiting.offloaded
def pause(request: HttpRequest, run_id: str, wanted: ReasonIn) -> ControlOut:
    """Stop at the next boundary; a running worker obeys within a heartbeat."""
    return _act(request, run_id, wanted, control.pause)


@router.post("/runs/{run_id}/cancel", response={200: ControlOut, (404, 409): Problem}, operation_id="cancel_run")
@waiting.offloaded
def cancel(request: HttpRequest, run_id: str, wanted: ReasonIn) -> ControlOut:
    """End the run at the next boundary, for ever. Effects that happened stay."""
    return _act(request, run_id, wanted, control.cancel)


@router.post("/runs/{run_id}/resume", response={200: ControlOut, (404, 409): Problem}, operation_id="resume_run")
@waiting.offloaded
def resume(request: HttpRequest, run_id: str, wanted: ReasonIn) -> ControlOut:
    """The same run goes on after its last recorded step."""
    return _act(request, run_id, wanted, control.resume)


def _act(request: HttpRequest, run_id: str, wanted: ReasonIn, act: Callable[..., Run]) -> ControlOut:
    actor = requests.allowed(request, "runs.control")
    run = act(parse_id("run", run_id), actor=actor, reason=wanted.reason)
    return ControlOut(run_id=public_id("run", run.id), status=run.status, control=run.control)


def _filter(wanted: RunQuery) -> listing.RunFilter:
    for name in ("agent", "tag", "external_id"):
        if "\0" in getattr(wanted, name):
            raise Invalid("A NUL character is in no name.", field=name)
    return listing.RunFilter(
        state=wanted.state,
        agent=wanted.agent,
        tag=wanted.tag,
        external_id=wanted.external_id,
        since=wanted.since,
        until=wanted.until,
    )


def _after(wanted: RunQuery, place: str) -> str:
    if not wanted.cursor:
        return ""
    try:
        [last] = cursors.decode(wanted.cursor, scope=place)
    except Invalid as error:
        error.field = "cursor"
        raise
    return public_id("run", last)  # type: ignore[arg-type]


def _row(row: listing.RunRow) -> RunOut:
    return RunOut(
        run_id=row.public_id,
        agent=row.agent,
        status=row.status,
        waiting_for=row.waiting_for,
        control=row.control,
        external_id=row.external_id or "",
        tags=row.tags,
        error_type=row.error_type,
        steps=row.steps,
        tokens=row.tokens,
        cost=row.cost,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        due_at=row.due_at,
    )


def _full(run_id: str) -> RunFullOut:
    run = story.find(run_id)
    bodies = story.bodies(run)
    return RunFullOut(
        run_id=run.public_id,
        agent=run.agent,
        status=run.status,
        waiting_for=run.waiting_for,
        control=run.control,
        external_id=run.external_id or "",
        tags=run.tags,
        error_type=run.error_type,
        steps=run.steps,
        tokens=run.tokens,
        cost=run.cost,
        created_at=run.created_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        due_at=run.due_at,
        session=run.session,
        trace_id=run.trace_id,
        attempt=run.attempt,
        generation=run.generation,
        fence=run.fence,
        worker=run.worker,
        lease_until=run.lease_until,
        input=bodies.input,
        output=bodies.output,
        failure=None if bodies.error is None else FailureOut(**bodies.error),
    )
