"""The review list: changes of memory that somebody suggested, each decided once, by a person who saw both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib import messages as notes
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from agentstate.core.errors import Conflict, Invalid
from agentstate.http.pages import TenantRequest, see_other, show, tenant_page, twin
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from memory.selectors import directory, messages, review
from memory.selectors.review import ProposalRow
from memory.services import drafts, proposals
from memory.services.proposals import Decided
from memory.views import forms
from memory.views.forms import Form

SOURCES_SHOWN = 20
TYPED = ("text", "reason", "decision", "expected_version")


@require_GET
@tenant_page("runs.read")
def inbox(request: TenantRequest) -> HttpResponse:
    decided, of = request.GET.get("decided") == "1", request.GET.get("subject", "")
    subject = directory.find(of)[0] if of else None
    page = review.page(decided=decided, subject_id=subject.id if subject else None, after=request.GET.get("after", ""))
    if request.GET.get("format") == "json":
        return twin([plain(row) for row in page.rows])
    context: dict[str, object] = {
        "section": "memories",
        "tab": "review",
        "waiting": 0 if subject else review.pending_count(),
        "found": page,
        "decided": decided,
        "subject": subject,
        "first_page": not request.GET.get("after"),
    }
    return show(request, "memory/review.html", context)


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def proposal(request: TenantRequest, proposal: str) -> HttpResponse:
    if request.method == "POST":
        return _decide(request, proposal)
    row = review.find(proposal)
    if request.GET.get("format") == "json":
        return twin(plain(row))
    return _page(request, row, _fresh(row))


def plain(row: ProposalRow) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "subject_id": row.subject_public_id,
        "act": row.act,
        "status": row.status,
        "item": row.item.public_id if row.item else None,
        "before": row.before,
        "body": row.body,
        "why": row.why,
        "method": row.method,
        "confidence": row.confidence,
        "created_at": row.created_at,
        "decided_at": row.decided_at,
        "decided_by": row.decided_by,
    }


def _fresh(row: ProposalRow) -> Form:
    return forms.fresh(text=row.text, reason="", expected_version=str(row.expected_version or ""))


def _page(request: TenantRequest, row: ProposalRow, form: Form, *, winner: str = "") -> HttpResponse:
    said = messages.some(row.source_message_ids[:SOURCES_SHOWN])
    context: dict[str, object] = {
        "section": "memories",
        "row": row,
        "form": form,
        "winner": winner,
        "said": sorted(said.values(), key=lambda each: (each.session_id, each.seq)),
        "waiting": review.pending_count() if not row.pending else 0,
    }
    return show(request, "memory/proposal.html", context, status=form.status)


def _decide(request: TenantRequest, public: str) -> HttpResponse:
    require(request.actor, "memory.write")
    form = forms.typed(request.POST, *TYPED)
    try:
        with tenant_scope(request.tenant.id):
            row = review.find(public)
            said = _decided(request, row, form)
    except Conflict as refusal:
        return _again(request, public, form.refused(refusal), winner=str(refusal.data.get("decided_by") or ""))
    except Invalid as refusal:
        return _again(request, public, form.refused(refusal))
    notes.success(request, said)
    return see_other(request, reverse("proposal", args=[request.tenant.slug, public]))


def _decided(request: TenantRequest, row: ProposalRow, form: Form) -> str:
    """Raises: as the services; Invalid for a rejection without a word."""
    typed = form.values
    if typed["decision"] == "reject":
        if not typed["reason"].strip():
            raise Invalid("Say why it is rejected; the next proposal like it is judged by that.", field="reason")
        proposals.reject(row.id, actor=request.actor, reason=typed["reason"])
        return "Rejected; nothing was changed."
    instead = None
    if row.act != "forget" and typed["text"].strip() != row.text.strip():
        instead = replace(drafts.from_json(row.body), text=typed["text"])
    decided = proposals.accept(
        row.id,
        actor=request.actor,
        reason=typed["reason"],
        expected_version=forms.number(typed["expected_version"]),
        new=instead,
    )
    return _said(decided)


def _said(decided: Decided) -> str:
    if decided.why:
        return f"Withdrawn, nothing was changed: {decided.why}."
    parts = ["Accepted."]
    if decided.withdrawn:
        parts.append(f"{len(decided.withdrawn)} other proposals about it are out of date and were withdrawn.")
    if decided.collateral:
        parts.append(f"{len(decided.collateral)} other memories still say something else about the same.")
    return " ".join(parts)


def _again(request: TenantRequest, public: str, form: Form, *, winner: str = "") -> HttpResponse:
    with tenant_scope(request.tenant.id):
        return _page(request, review.find(public), form, winner=winner)
