"""The run list."""

from __future__ import annotations

import dataclasses

from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_GET

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id
from agentstate.http.pages import TenantRequest, tenant_page, twin
from runs.selectors import agents
from runs.selectors import runs as selector
from runs.views.showing import show

VIEWS = (("", "All"), ("state=person", "Needs a person"), ("state=failed&time=day", "Failed, last 24 hours"))


@require_GET
@tenant_page("runs.read")
def run_list(request: TenantRequest) -> HttpResponse:
    asked = request.GET.get("q", "").strip()
    if asked.startswith("run_"):
        return HttpResponseRedirect(reverse("run", args=[request.tenant.slug, asked[:80]]))
    wanted = selector.read_filter(request.GET)
    if request.htmx and "newer" in request.GET:
        return _news(request, wanted)
    found = selector.page(wanted, after=_id(request, "after"), before=_id(request, "before"))
    if request.GET.get("format") == "json":
        return twin([dataclasses.asdict(row) | {"id": row.public_id} for row in found.rows])
    first_page = not (request.GET.get("after") or request.GET.get("before"))
    context: dict[str, object] = {
        "section": "runs",
        "wanted": wanted,
        "found": found,
        "summaries": selector.summaries(found.rows),
        "counts": selector.counts(),
        "agents": agents.names(),
        "states": selector.STATES,
        "spans": {name: words for name, (words, _) in selector.SPANS.items()},
        "views": VIEWS,
        "query": request.GET.urlencode(),
        "first_page": first_page,
        "newest": found.rows[0].public_id if first_page and found.rows else "",
    }
    return show(request, "runs/runs.html", context, partial="runs-found")


def _news(request: TenantRequest, wanted: selector.RunFilter) -> HttpResponse:
    """What a page that stays open asks for: how many runs came since, and the counts. No row moves by itself."""
    newest = _id(request, "newer") or "run_" + "0" * 32
    context: dict[str, object] = {
        "newest": newest,
        "new_runs": selector.newer_than(wanted, newest),
        "counts": selector.counts(),
        "wanted": wanted,
    }
    return show(request, "runs/runs.html", context, partial="runs-news")


def _id(request: TenantRequest, name: str) -> str:
    """A place in the list; one that cannot be read starts at the top."""
    text = request.GET.get(name, "")
    try:
        parse_id("run", text)
    except NotFound:
        return ""
    return text
