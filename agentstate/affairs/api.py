"""Erasure, export and import of subjects over the API."""

from __future__ import annotations

from io import BytesIO

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Query, Router

from agentstate.affairs import erasing, erasures, exports
from agentstate.affairs.erasures import ErasureRow
from agentstate.affairs.models import Erasure
from agentstate.affairs.schemas import (
    EraseIn,
    ErasePlanOut,
    ErasureFullOut,
    ErasureOut,
    ErasurePageOut,
    ErasureQuery,
    ImportOut,
    ImportQuery,
    ReceiptOut,
    RunConcernedOut,
    WaitOut,
)
from agentstate.affairs.states import ERASURE_OPEN
from agentstate.core.ids import parse_id, public_id
from agentstate.http import requests, waiting
from agentstate.http.schemas import Problem
from agentstate.http.waiting import offloaded
from agentstate.tenants import actors
from memory import transfer
from memory.api import acting
from memory.api.acting import pointing
from memory.services import exporting, importing

router = Router()
WAIT_S = 5.0  # a request holds one of few threads; the task does what is left
VERB = "memory.erase"


@router.get(
    "/memory/subjects/{subject_id}/erasure/plan",
    response={200: ErasePlanOut, 404: Problem},
    operation_id="plan_erasure",
)
@offloaded
def plan(request: HttpRequest, subject_id: str) -> ErasePlanOut:
    """What an erasure would delete, stop and make unreadable, and what stays. Changes nothing."""
    actor = requests.allowed(request, VERB)
    requests.refuse_others(request)
    planned = requests.scoped(actor, lambda: erasing.plan(parse_id("subject", subject_id)))
    return ErasePlanOut(
        subject_id=planned.public_id,
        rows=planned.counts,
        runs=[
            RunConcernedOut(
                run_id=run.public_id,
                agent=run.agent,
                status=run.status,
                live=run.is_live,
                shared=run.run_id in planned.shared_ids,
            )
            for run in planned.runs
        ],
        stays=planned.stays,
    )


@router.post(
    "/memory/subjects/{subject_id}/erase",
    response={200: ErasureOut, 202: ErasureOut, (404, 409, 422): Problem},
    operation_id="erase_subject",
)
@offloaded
def erase(request: HttpRequest, subject_id: str, wanted: EraseIn) -> tuple[int, ErasureOut]:
    """Erase it for good: 200 when all is done, 202 while it goes on by itself. Asked again, it is the same erasure."""
    actor = requests.allowed(request, VERB)
    with pointing():
        erasure = erasing.erase(
            parse_id("subject", subject_id), actor=actor, reason=wanted.reason, confirm=wanted.confirm, wait_s=WAIT_S
        )
    return 202 if erasure.status in ERASURE_OPEN else 200, shown(erasure)


@router.get(
    "/memory/subjects/{erased_id}/erasure", response={200: ErasureOut, 404: Problem}, operation_id="get_erasure"
)
@offloaded
def get(request: HttpRequest, erased_id: str) -> ErasureOut:
    """Where the erasure of this subject stands. The id is the subject's, which is gone by now."""
    actor = requests.allowed(request, VERB)
    requests.refuse_others(request)
    return shown(requests.scoped(actor, lambda: erasing.find(parse_id("subject", erased_id))))


@router.get(
    "/memory/subjects/{erased_id}/erasure/receipt",
    response={200: ReceiptOut, (404, 409): Problem},
    operation_id="get_erasure_receipt",
)
@offloaded
def receipt(request: HttpRequest, response: HttpResponse, erased_id: str) -> ReceiptOut:
    """The signed receipt; 409 until everything was searched. `manage.py verify_receipt` checks the file."""
    actor = requests.allowed(request, VERB)
    requests.refuse_others(request)
    erasure = requests.scoped(actor, lambda: erasing.find(parse_id("subject", erased_id)))
    response["Content-Disposition"] = f'attachment; filename="{file_name(erasure)}"'
    return ReceiptOut(**erasing.document(erasure))


@router.get("/memory/erasures", response={200: ErasurePageOut, 422: Problem}, operation_id="list_erasures")
@offloaded
def list_erasures(request: HttpRequest, wanted: Query[ErasureQuery]) -> ErasurePageOut:
    """Every erasure of the tenant, the newest first; `state` narrows it to those that go on, failed, or are done."""
    actor = requests.allowed(request, VERB)
    acting.only(request, wanted)

    def read() -> ErasurePageOut:
        found = erasures.page(state=wanted.state, after=wanted.cursor, rows_max=wanted.limit)
        return ErasurePageOut(erasures=[shown(row.erasure) for row in found.rows], next=found.after)

    return acting.read(actor, read)


@router.get(
    "/memory/erasures/{erasure_id}", response={200: ErasureFullOut, 404: Problem}, operation_id="get_erasure_by_id"
)
@offloaded
def get_by_id(request: HttpRequest, erasure_id: str) -> ErasureFullOut:
    """One erasure: who asked, what it waits for, and its signed receipt when everything was searched."""
    actor = requests.allowed(request, VERB)
    requests.refuse_others(request)
    return acting.read(actor, lambda: full(erasures.get(parse_id("erasure", erasure_id))))


EXPORTED = {"responses": {200: {"content": {transfer.MEDIA_TYPE: {"schema": {"type": "string"}}}}}}
IMPORTED = {
    "requestBody": {"required": True, "content": {transfer.MEDIA_TYPE: {"schema": {"type": "string"}}}},
}


@router.get(
    "/memory/subjects/{subject_id}/export",
    response={200: None, (404, 409): Problem},
    operation_id="export_subject",
    openapi_extra=EXPORTED,
)
async def export(request: HttpRequest, subject_id: str) -> StreamingHttpResponse:
    """Everything that is remembered of it, one JSON object a line (docs/API.md has the format). Audited."""
    actor = requests.allowed(request, VERB)
    requests.refuse_others(request)
    pieces = exporting.export(actors.tenant_of(actor), parse_id("subject", subject_id), actor=actor)
    first = await waiting.in_database(lambda: next(pieces))  # refuse before the stream begins
    return exports.answer(pieces, name=subject_id, first=first)


@router.post(
    "/memory/import",
    response={200: ImportOut, (409, 413, 422): Problem},
    operation_id="import_subject",
    openapi_extra=IMPORTED,
)
@offloaded
def bring_in(request: HttpRequest, wanted: Query[ImportQuery]) -> ImportOut:
    """Bring an export in: all of it or nothing; the same file twice brings nothing new.

    `dry_run` reports what would happen, conflicts with what is here included.
    """
    actor = requests.allowed(request, VERB)
    requests.refuse_others(request, "into", "dry_run")
    into = parse_id("subject", wanted.into) if wanted.into else None
    report = importing.bring_in(BytesIO(request.body), into=into, actor=actor, dry_run=wanted.dry_run)
    return ImportOut(
        subject_id=report.public_id,
        is_new=report.is_new,
        done=report.done,
        new=dict(report.new),
        known=dict(report.known),
        evicted=report.evicted,
        cap_bytes=report.cap_bytes,
        links_left_out=report.links_left_out,
        conflicts=report.conflicts,
    )


def full(row: ErasureRow) -> ErasureFullOut:
    done = row.erasure
    return ErasureFullOut(
        **shown(done).model_dump(),
        requested_by=done.requested_by_name,
        waits=[WaitOut(run_id=each.run, agent=each.agent, until=each.until) for each in row.waits],
        receipt=ReceiptOut(**erasing.document(done)) if done.receipt is not None else None,
    )


def file_name(erasure: Erasure) -> str:
    return f"{public_id('erasure', erasure.id)}.json"


def shown(erasure: Erasure) -> ErasureOut:
    return ErasureOut(
        erasure_id=public_id("erasure", erasure.id),
        subject_id=public_id("subject", erasure.subject_id),
        status=erasure.status,
        rows_deleted=erasure.counts,
        keys_destroyed=erasure.keys_destroyed,
        runs=len(erasure.run_ids),
        runs_stopped=len(erasure.stopped_ids),
        problem=erasure.problem,
        started_at=erasure.started_at,
        finished_at=erasure.finished_at,
    )
