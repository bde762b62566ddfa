"""An effect in doubt: the evidence, and a person's verdict. Nothing is called again before it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound
from agentstate.http.pages import TenantRequest, see_other, tenant_page
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from runs.models import Step
from runs.selectors import approvals, doubts, steps, story
from runs.selectors.approvals import ApprovalRow
from runs.services import settling, waiting_times
from runs.views.showing import show

SAID = {
    "happened": "Settled: it happened. The run goes on with your result.",
    "did_not_happen": "Settled: it did not happen. One further call is allowed.",
    "give_up": "Given up. The run has failed; nothing is sent again.",
}


@dataclass(frozen=True, slots=True)
class Form:
    token: str
    verdict: str = ""
    evidence: str = ""
    output: str = ""
    reason: str = ""
    problem: str = ""
    problem_field: str = ""
    lost: bool = False


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def settle(request: TenantRequest, run: str, seq: int) -> HttpResponse:
    if request.method == "POST":
        return _settle(request, run, seq)
    return _page(request, run, seq, Form(secrets.token_hex(16)))


def _page(request: TenantRequest, run: str, seq: int, form: Form, *, status: int = 200) -> HttpResponse:
    found = story.find(run)
    step = steps.detail(found.id, seq)
    questions = [item for item in approvals.of_run(found.id, step_seq=seq) if item.kind == "settle"]
    if not questions:
        raise NotFound("This step was never in doubt.")
    question = questions[-1]
    opens_at = _opens_at(step)
    context: dict[str, object] = {
        "section": "runs",
        "run": found,
        "step": step,
        "row": step.row,
        "question": question,
        "form": form,
        "opens_at": opens_at,
        "is_open": opens_at <= now(),
        "evidence": doubts.evidence(found.id, seq),
        "lookup_url": lookup(step.lookup_url, step.key),
        "barred": _is_barred(request, found),
    }
    return show(request, "runs/settle.html", context, status=status)


def _opens_at(step: steps.StepDetail) -> datetime:
    """From when on "it did not happen" may be said: the service's own rule, on what the page has read already."""
    known = Step(call_by=step.call_by, started_at=step.row.started_at, timeout_s=step.timeout_s)
    return waiting_times.did_not_happen_opens_at(known, dead_at=step.worker_dead_at)


def _is_barred(request: TenantRequest, run: story.RunStory) -> bool:
    mine = (run.started_by_kind, run.started_by_id) == (request.actor.kind, request.actor.id)
    return mine and bool(request.tenant.production)


def lookup(address: str, key: str) -> str:
    """Where a person looks the key up; only an http(s) address becomes a link."""
    return address.replace("{key}", key) if address.startswith(("https://", "http://")) else ""


def _settle(request: TenantRequest, run: str, seq: int) -> HttpResponse:
    require(request.actor, "approvals.decide")
    posted = request.POST
    form = Form(
        posted.get("client_token", "")[:64],
        posted.get("verdict", ""),
        posted.get("evidence", ""),
        posted.get("output", ""),
        posted.get("reason", ""),
    )
    question = _question(request, run, seq)
    try:
        settling.settle(
            question.id,
            actor=request.actor,
            verdict=form.verdict or "nothing chosen",
            version=int(posted.get("version", "0")) if posted.get("version", "0").isdigit() else 0,
            proposal_hash=posted.get("proposal_hash", "")[:128],
            reason=form.reason,
            evidence=form.evidence,
            output=_output(form),
            client_token=form.token,
        )
    except Conflict as problem:
        lost = problem.field != "verdict"
        return _again(request, run, seq, form, problem.message, problem.field, status=409, lost=lost)
    except (Invalid, Forbidden) as problem:
        said = "Choose what happened." if problem.field == "verdict" and not form.verdict else problem.message
        return _again(request, run, seq, form, said, problem.field, status=422)
    messages.success(request, SAID[form.verdict])
    return see_other(request, reverse("run", args=[request.tenant.slug, run]))


def _question(request: TenantRequest, run: str, seq: int) -> ApprovalRow:
    with tenant_scope(request.tenant.id):
        found = story.find(run)
        questions = [item for item in approvals.of_run(found.id, step_seq=seq) if item.kind == "settle"]
    if not questions:
        raise NotFound("This step was never in doubt.")
    return questions[-1]


def _output(form: Form) -> Any:
    """The result as JSON, or as the text it is. Raises: Invalid."""
    text = form.output.strip()
    if form.verdict != "happened" or not text:
        return None
    if text[0] not in '{["':
        return {"settled": "happened", "result": text}
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        raise Invalid(f"This is no valid JSON: {problem.msg} in line {problem.lineno}.", field="output") from None


def _again(
    request: TenantRequest,
    run: str,
    seq: int,
    form: Form,
    problem: str,
    field: str,
    *,
    status: int,
    lost: bool = False,
) -> HttpResponse:
    shown = Form(form.token, form.verdict, form.evidence, form.output, form.reason, problem, field, lost)
    with tenant_scope(request.tenant.id):
        return _page(request, run, seq, shown, status=status)
