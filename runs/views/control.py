"""Pause and cancel from the run's page. Both are forms; each is one transaction with its reason in the audit."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import parse_id
from agentstate.http.pages import TenantRequest, see_other, tenant_page
from runs.services import control

ACTS = {"pause": control.pause, "cancel": control.cancel}


@require_POST
@tenant_page("runs.control")
def act(request: TenantRequest, run: str, act: str) -> HttpResponse:
    if act not in ACTS:
        raise NotFound
    try:
        done = ACTS[act](parse_id("run", run), actor=request.actor, reason=request.POST.get("reason", ""))
    except (Conflict, Invalid) as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, _said(act, done.status))
    return see_other(request, reverse("run", args=[request.tenant.slug, run]))


def _said(act: str, status: str) -> str:
    if status in ("paused", "cancelled"):
        return f"The run is {status}."
    return f"Asked for: the worker will {act} the run at its next step."
