"""Now: what needs a person, which errors are new, how much flows. Health: the machinery in one look."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from agentstate.affairs import erasures, invariants
from agentstate.core.clock import now as clock_now
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.http.pages import TenantRequest, see_other, tenant_page, twin
from agentstate.tenants.actors import require
from agentstate.web import machinery
from memory.selectors import policies
from memory.services import upkeep
from runs.selectors import agents, approvals, attention
from runs.selectors import runs as run_list
from runs.services import control
from runs.views.showing import show


@require_GET
@tenant_page("runs.read")
def now(request: TenantRequest) -> HttpResponse:
    inbox = approvals.inbox(sort="due")
    failures = attention.failures()
    doubts = attention.doubts()
    counts = run_list.counts()
    if request.GET.get("format") == "json":
        return twin({"pending": inbox.pending, "in_doubt": len(doubts), "counts": counts.by_status})
    questions = [row for row in inbox.rows if row.kind != "settle"]
    context: dict[str, object] = {
        "section": "now",
        "at": clock_now(),
        "questions": questions,
        "pending": max(inbox.pending - sum(row.kind == "settle" for row in inbox.rows), 0),
        "next_due": min((row.expires_at for row in questions if row.expires_at), default=None),
        "doubts": doubts,
        "failures": failures,
        "counts": counts,
        "quiet": not (questions or doubts or failures.last_hour),
        "never_ran": not any(counts.by_status.values()),
    }
    return show(request, "web/now.html", context)


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def health(request: TenantRequest) -> HttpResponse:
    if request.method == "POST":
        return _stop(request)
    context: dict[str, object] = {
        "section": "health",
        "at": clock_now(),
        "workers": agents.workers(),
        "agents": agents.names(),
        "machinery": machinery.read(),
        "upkeep": upkeep.standing(),
        "erasures": erasures.counts(),
        "unusable": policies.troubles(),
    }
    if request.GET.get("check") == "1":
        require(request.actor, "audit.read")
        context["violations"] = invariants.check(request.tenant.id)
        context["rules"] = len(invariants.RULES)
    if request.GET.get("format") == "json":
        return twin({name: context[name] for name in ("workers", "machinery", "upkeep", "erasures", "unusable")})
    return show(request, "web/health.html", context)


def _stop(request: TenantRequest) -> HttpResponse:
    """Set or lift an emergency stop, of one agent or of all."""
    require(request.actor, "admin.stop")
    posted = request.POST
    agent, reason = posted.get("agent", "")[:200], posted.get("reason", "")
    try:
        if posted.get("act") == "lift":
            count = control.lift(actor=request.actor, agent=agent, reason=reason)
            messages.success(request, f"The stop is lifted; {count} paused runs are queued again.")
        else:
            control.emergency_stop(actor=request.actor, agent=agent, reason=reason)
            messages.success(request, "Stopped: no run is claimed and no new step begins. Calls in flight finish.")
    except (Invalid, Conflict, NotFound) as refusal:
        messages.error(request, refusal.message)
    return see_other(request, reverse("health", args=[request.tenant.slug]))
