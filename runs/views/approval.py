"""One question to a person: what would happen, and the decision, bound to exactly what was shown.

An edit never counts at once: the same form shows it as a difference, and only the second press, which carries the
digest of those arguments, sends it. What was typed survives every refusal.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from agentstate.core import canonical
from agentstate.core.errors import Conflict, DomainError, Forbidden, Invalid
from agentstate.http import schema_form
from agentstate.http.pages import TenantRequest, see_other, tenant_page, twin
from agentstate.http.redaction import redact
from agentstate.http.schema_form import ABSENT, Reading
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from runs.selectors import approvals as selector
from runs.selectors.approvals import ApprovalRow, StepFacts
from runs.services import approvals
from runs.views.showing import show

DECISIONS = {"approve", "preview", "edit", "reject", "respond"}
SAID = {
    "approved": "Approved. The run goes on.",
    "edited": "Approved with your edits. The run goes on.",
    "rejected": "Rejected. The agent is told your reason.",
    "responded": "Answered. The agent gets your answer.",
}
AMOUNT = re.compile(r"-?\d{1,15}(\.\d{1,6})?")  # money travels as text where rounding is not allowed
AMOUNT_NAMES = ("amount", "total", "sum", "price", "value", "count", "rows")


@dataclass(frozen=True, slots=True)
class Form:
    """What the page shows in its fields: as proposed, or as somebody typed it."""

    reading: Reading
    token: str
    message: str = ""
    typed: str = ""
    problem: str = ""
    problem_field: str = ""
    preview: bool = False  # the difference is shown, the next press counts
    digest: str = ""
    acknowledged: frozenset[str] = frozenset()
    winner: str = ""  # somebody was faster

    @property
    def fields(self) -> list[schema_form.Field]:
        return self.reading.fields


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def approval(request: TenantRequest, approval: str) -> HttpResponse:
    if request.method == "POST":
        return _decide(request, approval)
    found = selector.find(approval)
    if request.GET.get("format") == "json":
        return twin({"id": found.public_id, "status": found.status, "run": found.run, "proposal": dict(found.proposal)})
    return _page(request, found, _fresh(found))


def _fresh(found: ApprovalRow) -> Form:
    value = ABSENT if found.kind == "ask" and found.args is None else found.args
    shown = schema_form.fields(found.schema, value) if found.pending else []
    return Form(Reading(found.args, shown), secrets.token_hex(16))


def _page(request: TenantRequest, found: ApprovalRow, form: Form, *, status: int = 200) -> HttpResponse:
    facts = selector.facts(found)
    context: dict[str, object] = {
        "section": "approvals",
        "approval": found,
        "facts": facts,
        "alike": selector.alike(found) if found.tool else None,
        "form": form,
        "phrase": phrase(found.tool, form.reading.value) if found.high and found.kind == "tool" else "",
        "barred": _is_barred(request, facts),
        "allowed": _allowed(found),
    }
    return show(request, "runs/approval.html", context, partial="approval-form", status=status)


def _is_barred(request: TenantRequest, facts: StepFacts) -> bool:
    """Who started a run in a production tenant does not decide over its calls; the service refuses it too."""
    mine = (facts.started_by_kind, facts.started_by_id) == (request.actor.kind, request.actor.id)
    return mine and bool(request.tenant.production)


def _allowed(found: ApprovalRow) -> set[str]:
    if found.kind == "ask":
        return {"respond", "reject"}
    return {"approve", "edit", "reject"} | ({"respond"} if found.kind == "tool" else set())


def _decide(request: TenantRequest, public: str) -> HttpResponse:
    require(request.actor, "approvals.decide")
    with tenant_scope(request.tenant.id):
        found = selector.find(public)
    form, decision = _read(request, found)
    try:
        refusal = _refusal(found, form, decision, request)
        if refusal is not None:
            return _again(request, public, refusal, status=200 if refusal.preview and not refusal.problem else 422)
        done = _send(request, found, form, decision)
    except Conflict as problem:
        return _lost(request, public, form, problem)
    except (Invalid, Forbidden) as problem:
        return _again(request, public, _with(form, problem=problem.message, problem_field=problem.field), status=422)
    messages.success(request, SAID.get(done.status, "Recorded."))
    return see_other(request, reverse("approval", args=[request.tenant.slug, public]))


def _read(request: TenantRequest, found: ApprovalRow) -> tuple[Form, str]:
    posted = request.POST
    value = ABSENT if found.kind == "ask" and found.args is None else found.args
    reading = schema_form.read(found.schema, value, posted)
    form = Form(
        reading,
        token=posted.get("client_token", "")[:64],
        message=posted.get("message", ""),
        typed=posted.get("typed", ""),
        digest=_digest(reading.value),
        acknowledged=frozenset(name for name in posted if name.startswith("ack.")),
    )
    decision = posted.get("decision", "")
    return form, decision if decision in DECISIONS else "preview"


def _refusal(found: ApprovalRow, form: Form, decision: str, request: TenantRequest) -> Form | None:
    """The form to show again, with what is missing; None when the decision may be sent."""
    if decision == "reject" or (decision == "respond" and found.kind != "ask"):
        return None
    if form.reading.errors:
        return _with(form, problem="Correct the marked fields; nothing was decided.")
    if decision == "respond":
        return None
    unread = [item for item in form.fields if item.long and item.ack not in form.acknowledged]
    if unread:
        return _with(form, problem=f"Read {unread[0].label} to its end and confirm that you did.")
    changed = form.digest != _digest(found.args)
    confirmed = request.POST.get("previewed", "") == form.digest
    if changed and not (decision == "edit" and confirmed):
        return _with(form, preview=True)
    wanted = phrase(found.tool, form.reading.value) if found.high and found.kind == "tool" else ""
    if wanted and not same_phrase(form.typed, wanted):
        return _with(
            form, problem=f"Type {wanted} to approve a call of high risk.", problem_field="typed", preview=changed
        )
    return None


def _send(request: TenantRequest, found: ApprovalRow, form: Form, decision: str) -> Any:
    changed = form.digest != _digest(found.args)
    if decision in ("approve", "edit", "preview"):
        decision = "edit" if changed else "approve"
    return approvals.decide(
        found.id,
        actor=request.actor,
        decision=decision,
        version=_number(request.POST.get("version", "")),
        proposal_hash=request.POST.get("proposal_hash", "")[:128],
        args=form.reading.value if decision in ("edit", "respond") else None,
        message=form.message,
        client_token=form.token,
    )


def _again(request: TenantRequest, public: str, form: Form, *, status: int) -> HttpResponse:
    with tenant_scope(request.tenant.id):
        return _page(request, selector.find(public), form, status=status)


def _lost(request: TenantRequest, public: str, form: Form, problem: Conflict) -> HttpResponse:
    """Somebody was first: who, and what this person had typed is kept."""
    winner = str(problem.data.get("winner") or "")
    return _again(request, public, _with(form, problem=problem.message, winner=winner or "nobody"), status=409)


def _with(form: Form, **changes: Any) -> Form:
    return replace(form, **changes)


def phrase(tool: str, args: Any) -> str:
    """What has to be typed for a call of high risk: its amount, else the name of what it acts on, else the tool."""
    if isinstance(args, dict):
        for name in AMOUNT_NAMES:
            value = args.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return _plain(value)
            if isinstance(value, str) and AMOUNT.fullmatch(value):
                return value
        shown = redact(args).values()
        texts = [value for value in shown if isinstance(value, str) and "[hidden" not in value and 0 < len(value) <= 40]
        if texts:
            return texts[0]
    return tool


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.2f}" if round(number, 2) == number else repr(number)


def same_phrase(typed: str, wanted: str) -> bool:
    """Numbers are compared as numbers: 180.5 is 180.50."""
    typed = typed.strip()
    try:
        return Decimal(typed) == Decimal(wanted)
    except InvalidOperation:
        return typed == wanted.strip()


def _digest(value: Any) -> str:
    try:
        return canonical.digest(None if value is ABSENT else value).hex()
    except DomainError:  # what cannot be kept is refused by the service, which names the place
        return "unreadable"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
