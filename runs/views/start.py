"""Agents, and the form that starts a run of one, made from the agent's JSON Schema. Sent twice it starts one run."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from agentstate.core.errors import Conflict, Invalid, TooLarge
from agentstate.core.ids import public_id
from agentstate.http import schema_form
from agentstate.http.pages import TenantRequest, see_other, tenant_page, twin
from agentstate.http.schema_form import ABSENT, Reading
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from runs.selectors import agents as selector
from runs.services import admission
from runs.views.showing import show


@dataclass(frozen=True, slots=True)
class Form:
    reading: Reading
    token: str
    external_id: str = ""
    tags: str = ""
    problem: str = ""
    problem_field: str = ""

    @property
    def fields(self) -> list[schema_form.Field]:
        return self.reading.fields


@require_GET
@tenant_page("runs.read")
def agents(request: TenantRequest) -> HttpResponse:
    found = selector.agents()
    if request.GET.get("format") == "json":
        return twin(
            [{"agent": row.name, "version": row.version, "worker_seen_at": row.worker_seen_at} for row in found]
        )
    return show(request, "runs/agents.html", {"section": "agents", "agents": found})


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def start(request: TenantRequest, agent: str) -> HttpResponse:
    if request.method == "POST":
        return _start(request, agent)
    detail = selector.find(agent)
    shown = schema_form.fields(_schema(detail))
    return _page(request, detail, Form(Reading(None, shown), secrets.token_hex(16)))


def _schema(detail: selector.AgentDetail) -> dict[str, Any]:
    """An agent without a schema takes any JSON: one field."""
    return detail.input_schema or {"title": "Input", "description": "JSON, as the agent expects it."}


def _page(request: TenantRequest, detail: selector.AgentDetail, form: Form, *, status: int = 200) -> HttpResponse:
    context: dict[str, object] = {"section": "agents", "agent": detail, "row": detail.row, "form": form}
    return show(request, "runs/start.html", context, status=status)


def _start(request: TenantRequest, agent: str) -> HttpResponse:
    require(request.actor, "runs.start")
    with tenant_scope(request.tenant.id):
        detail = selector.find(agent)
    reading = schema_form.read(_schema(detail), ABSENT, request.POST)
    token = request.POST.get("client_token", "")[:64]
    form = Form(reading, token, request.POST.get("external_id", "").strip(), request.POST.get("tags", ""))
    if reading.errors:
        return _again(request, agent, form, "Correct the marked fields; nothing was started.", "")
    try:
        run, created = admission.admit(_admission(agent, form), actor=request.actor)
    except (Invalid, TooLarge, Conflict) as refusal:
        return _again(request, agent, form, refusal.message, refusal.field, status=refusal.http_status)
    if not created:
        messages.info(request, "This run was started before; sending the form again started no second one.")
    return see_other(request, reverse("run", args=[request.tenant.slug, public_id("run", run.id)]))


def _admission(agent: str, form: Form) -> admission.Admission:
    return admission.Admission(
        agent=agent,
        input=None if form.reading.value is ABSENT else form.reading.value,
        external_id=form.external_id,
        tags=[tag for tag in form.tags.replace(",", " ").split() if tag],
        idempotency_key=f"form:{form.token}" if form.token else "",
    )


def _again(
    request: TenantRequest, agent: str, form: Form, problem: str, field: str, *, status: int = 422
) -> HttpResponse:
    with tenant_scope(request.tenant.id):
        shown = Form(form.reading, form.token, form.external_id, form.tags, problem, field)
        return _page(request, selector.find(agent), shown, status=status)
