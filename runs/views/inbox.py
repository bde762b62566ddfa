"""The inbox: questions that wait for a person, or those decided lately."""

from __future__ import annotations

from django.http import HttpResponse
from django.views.decorators.http import require_GET

from agentstate.http.pages import TenantRequest, tenant_page, twin
from runs.selectors import approvals
from runs.views.showing import show


@require_GET
@tenant_page("runs.read")
def inbox(request: TenantRequest) -> HttpResponse:
    sort = request.GET.get("sort", "due")
    decided = request.GET.get("decided") == "1"
    tool = request.GET.get("tool", "")[:200].replace("\0", "")
    risk = request.GET.get("risk", "")
    found = approvals.inbox(tool=tool, risk=risk, sort=sort, decided=decided)
    if request.GET.get("format") == "json":
        return twin(
            [{"id": row.public_id, "title": row.title, "run": row.run, "status": row.status} for row in found.rows]
        )
    context: dict[str, object] = {
        "section": "approvals",
        "found": found,
        "sorts": approvals.SORTS,
        "sort": sort if sort in approvals.SORTS else "due",
        "tool": tool,
        "risk": risk,
        "decided": decided,
        "filtered": bool(tool or risk),
    }
    return show(request, "runs/approvals.html", context, partial="approvals-found")
