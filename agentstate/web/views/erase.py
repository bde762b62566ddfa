"""Erasing a subject: what would go and what stays, its name typed to confirm, and the receipt afterwards.

It spans the tiers, so it stands here and not among the pages of memory. The address goes on answering when the subject
is gone: with how far the erasure is, and then with the receipt.
"""

from __future__ import annotations

import dataclasses

import orjson
from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from agentstate.affairs import erasing, erasures
from agentstate.affairs.erasing import ErasePlan
from agentstate.affairs.erasures import ErasureRow
from agentstate.affairs.models import Erasure
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.http.pages import TenantRequest, see_other, tenant_page, twin
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from memory.selectors import review
from runs.views.showing import show

WAIT_S = 3.0  # of the person who pressed the button; the task does the rest
# Rows by table, in the words of the page; a plan counts the others together as what search and order need.
WORDS = {
    "memory_item": ("item", "items"),
    "memory_itemrevision": ("version of items", "versions of items"),
    "memory_session": ("session", "sessions"),
    "memory_message": ("message", "messages"),
    "memory_summary": ("summary", "summaries"),
    "memory_proposal": ("proposal", "proposals"),
    "memory_progress": ("progress document", "progress documents"),
    "memory_recallquestion": ("question that was asked", "questions that were asked"),
    "memory_injection": ("note of what a call was given", "notes of what calls were given"),
    "memory_alias": ("other name", "other names"),
}
ALSO = {
    "memory_subject": "the subject itself",
    "memory_author": "authors of messages",
    "memory_progressversion": "versions of progress documents",
    "memory_unit": "units of search",
    "memory_unittokens": "tokens of units",
    "memory_unitstaged": "vectors of a move to another model",
    "memory_receipt": "answers kept for repeated writes",
    "memory_removed": "notes of what retention removed",
}
NAMED = {table: several for table, (_, several) in WORDS.items()} | ALSO


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def erase(request: TenantRequest, subject: str) -> HttpResponse:
    require(request.actor, "memory.erase")
    if request.method == "POST":
        return _erase(request, subject)
    return _page(request, subject)


def _page(
    request: TenantRequest, subject: str, *, problem: str = "", field: str = "", status: int = 200
) -> HttpResponse:
    subject_id = parse_id("subject", subject)
    done = _begun(subject)
    if done is not None:
        return _begun_page(request, subject, done, status=status)
    plan = erasing.plan(subject_id)
    if request.GET.get("format") == "json":
        return twin(_plain(plan))
    context: dict[str, object] = {
        "section": "memories",
        "subject": subject,
        "plan": plan,
        "going": _going(plan),
        "rest": sum(count for table, count in plan.counts.items() if table not in WORDS),
        "problem": problem,
        "problem_field": field,
        "typed": request.POST,
    }
    return show(request, "web/erase.html", context, status=status)


def _begun_page(request: TenantRequest, subject: str, done: Erasure, *, status: int) -> HttpResponse:
    if request.GET.get("format") == "json":
        facts = {"status": done.status, "receipt": done.receipt, "problem": done.problem, "waits": done.waits}
        return twin({"subject_id": subject} | facts)
    (row,) = erasures.rows_of([done])
    context: dict[str, object] = {
        "section": "memories",
        "subject": subject,
        "erasure": done,
        "row": row,
        "gone": _gone(done),
    }
    return show(request, "web/erased.html", context, status=status)


def _begun(subject: str) -> Erasure | None:
    try:
        return erasing.find(parse_id("subject", subject))
    except NotFound:
        return None


def _going(plan: ErasePlan) -> list[tuple[int, str]]:
    return [
        (plan.counts[table], words[plan.counts[table] != 1]) for table, words in WORDS.items() if plan.counts.get(table)
    ]


def _gone(done: Erasure) -> list[tuple[str, int]]:
    """What was deleted, as the plan named it; a table without a word is named itself."""
    places = {table: place for place, table in enumerate(NAMED)}
    tables = sorted(done.counts, key=lambda table: (places.get(table, len(places)), table))
    return [(NAMED.get(table, table), done.counts[table]) for table in tables if done.counts[table]]


def _plain(plan: ErasePlan) -> dict[str, object]:
    return {
        "subject_id": plan.public_id,
        "counts": plan.counts,
        "runs": [dataclasses.asdict(run) | {"run_id": run.public_id} for run in plan.runs],
        "runs_shared": sorted(public_id("run", run_id) for run_id in plan.shared_ids),
        "stays": plan.stays,
    }


def _erase(request: TenantRequest, subject: str) -> HttpResponse:
    try:
        done = erasing.erase(
            parse_id("subject", subject),
            actor=request.actor,
            reason=request.POST.get("reason", ""),
            confirm=request.POST.get("confirm", ""),
            wait_s=WAIT_S,
        )
    except (Invalid, Conflict) as refusal:
        with tenant_scope(request.tenant.id):
            return _page(request, subject, problem=refusal.message, field=refusal.field, status=refusal.http_status)
    if done.receipt is not None:
        messages.success(request, "Erased: everything was searched, and nothing is left.")
    else:
        messages.info(request, "Its keys are destroyed: nothing can be read any more. The rest goes on by itself.")
    return see_other(request, reverse("subject-erase", args=[request.tenant.slug, subject]))


@require_GET
@tenant_page("runs.read")
def listed(request: TenantRequest) -> HttpResponse:
    """Every erasure, the newest first: what it waits for, who asked, and its receipt."""
    require(request.actor, "memory.erase")
    state = request.GET.get("state", "")
    state = state if state in erasures.STATES else ""
    found = erasures.page(state=state, after=request.GET.get("after", ""))
    if request.GET.get("format") == "json":
        return twin([_listed(row) for row in found.rows])
    context: dict[str, object] = {
        "section": "memories",
        "tab": "erasures",
        "waiting": review.pending_count(),
        "found": found,
        "counts": erasures.counts(),
        "state": state,
        "first_page": not request.GET.get("after"),
    }
    return show(request, "web/erasures.html", context)


def _listed(row: ErasureRow) -> dict[str, object]:
    return {
        "erasure_id": row.public_id,
        "subject_id": row.subject,
        "status": row.erasure.status,
        "requested_by": row.erasure.requested_by_name,
        "started_at": row.erasure.started_at,
        "finished_at": row.erasure.finished_at,
        "waits": [dataclasses.asdict(each) for each in row.waits],
        "problem": row.erasure.problem,
    }


@require_GET
@tenant_page("runs.read")
def receipt(request: TenantRequest, subject: str) -> HttpResponse:
    """The signed receipt as a file. Raises: NotFound, Conflict while there is none."""
    require(request.actor, "memory.erase")
    document = erasing.document(erasing.find(parse_id("subject", subject)))
    # Not the twin of a page: what is redacted for reading would not verify any more.
    answer = HttpResponse(orjson.dumps(document, option=orjson.OPT_INDENT_2), content_type="application/json")
    answer["Content-Disposition"] = f'attachment; filename="erasure-{parse_id("subject", subject).hex}.json"'
    return answer
