"""What we hold about a subject, and why: one page to print."""

from __future__ import annotations

import dataclasses

from django.http import HttpResponse
from django.views.decorators.http import require_GET

from agentstate.core.clock import now
from agentstate.http.pages import TenantRequest, show, tenant_page, twin
from memory.selectors import as_of, directory, holdings
from memory.views import forms


@require_GET
@tenant_page("runs.read")
def holdings_page(request: TenantRequest, subject: str) -> HttpResponse:
    row, words = directory.find(subject)
    then = forms.as_of(request.GET)
    facts: dict[str, object] = {
        "then": as_of.items_as_of(row.id, **dataclasses.asdict(then.moment), words=words) if then.moment else [],
        "aliases": directory.aliases_of(row.id, words),
        "held": [] if then.moment else holdings.items(row.id, words),
        "sessions": holdings.sessions(row.id, words),
        "summaries": holdings.summaries(row.id, words),
        "counts": holdings.counts(row.id),
    }
    if request.GET.get("format") == "json":
        return twin(dataclasses.asdict(row) | {"id": row.public_id} | _plainly(facts))
    context: dict[str, object] = {"section": "memories", "subject": row, "erased": words.erased, "at": now(), **facts}
    context["asked"] = then
    return show(request, "memory/holdings.html", context)


def _plainly(facts: dict[str, object]) -> dict[str, object]:
    return {
        name: [dataclasses.asdict(each) for each in part] if isinstance(part, list) else part
        for name, part in facts.items()
    }
