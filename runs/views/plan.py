"""Resume: the plan first, nothing runs before it is confirmed."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Invalid
from agentstate.http.pages import TenantRequest, see_other, tenant_page
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from runs.selectors import plans, story
from runs.services import control
from runs.views.showing import show


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def resume(request: TenantRequest, run: str) -> HttpResponse:
    if request.method == "POST":
        return _confirm(request, run)
    return _page(request, run)


def _page(request: TenantRequest, run: str, *, reason: str = "", problem: str = "", status: int = 200) -> HttpResponse:
    found = story.find(run)
    context: dict[str, object] = {
        "section": "runs",
        "run": found,
        "plan": plans.resume(found),
        "made_at": now(),
        "reason": reason,
        "problem": problem,
    }
    return show(request, "runs/plan.html", context, status=status)


def _confirm(request: TenantRequest, run: str) -> HttpResponse:
    require(request.actor, "runs.control")
    reason = request.POST.get("reason", "")
    with tenant_scope(request.tenant.id):
        found = story.find(run)
    seen = request.POST.get("seen", "")
    if seen != _version(found):
        problem = "The run went on or changed after this plan was made. This is the new plan; nothing was resumed."
        return _again(request, run, reason, problem, status=409)
    try:
        control.resume(found.id, actor=request.actor, reason=reason)
    except Invalid as refusal:
        return _again(request, run, reason, refusal.message, status=422)
    except Conflict as refusal:
        return _again(request, run, reason, refusal.message, status=409)
    messages.success(request, "Resumed. The run is queued and goes on after its last recorded step.")
    return see_other(request, reverse("run", args=[request.tenant.slug, run]))


def _version(run: story.RunStory) -> str:
    """What the plan was made from: the number of the newest event of the run."""
    return str(run.event_seq)


def _again(request: TenantRequest, run: str, reason: str, problem: str, *, status: int) -> HttpResponse:
    with tenant_scope(request.tenant.id):
        return _page(request, run, reason=reason, problem=problem, status=status)
