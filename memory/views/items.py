"""One memory: its words, its history, where it was used."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.http import HttpResponse
from django.views.decorators.http import require_GET

from agentstate.http.pages import TenantRequest, show, tenant_page, twin
from memory import standing
from memory.selectors import directory, history, usage
from memory.selectors.directory import SubjectRow
from memory.selectors.history import Revision
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemRow
from memory.views import forms


def reading_page(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    """The memory as everybody sees it who may not change it, or when there is nothing to change."""
    row, words = directory.find(subject)
    found = history.item(row.id, item, words)
    if request.GET.get("format") == "json":
        return _json(row, found, words)
    return show(request, "memory/item.html", {**head(row, found, words), **_old(request, found, words)})


def head(row: SubjectRow, found: ItemRow, words: Words) -> dict[str, object]:
    used = usage.of(found.id)
    runs = standing.of(used.run_ids)
    return {
        "section": "memories",
        "subject": row,
        "item": found,
        "history": history.of(found, words),
        "used": used,
        "standing": runs,
        "open_runs": sum(run.is_open for run in runs),
        "asking_runs": sum(run.asks for run in runs),
    }


def _old(request: TenantRequest, found: ItemRow, words: Words) -> dict[str, object]:
    """The version that an address asks for, when it is not the newest."""
    version = forms.number(request.GET.get("version", "")) or found.version
    return {"old": history.at(found, version, words)} if version != found.version else {}


def _json(row: SubjectRow, found: ItemRow, words: Words) -> HttpResponse:
    revisions = [dataclasses.asdict(each) for each in history.of(found, words)]
    used = dataclasses.asdict(usage.of(found.id))
    plain = dataclasses.asdict(found) | {"id": found.public_id, "subject_id": row.public_id}
    return twin(plain | {"history": revisions, "used": used})


@require_GET
@tenant_page("runs.read")
def compare(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    """Any two versions side by side."""
    row, words = directory.find(subject)
    found = history.item(row.id, item, words)
    b = history.at(found, forms.number(request.GET.get("b", "")) or found.version, words)
    a = history.at(found, forms.number(request.GET.get("a", "")) or max(b.version - 1, 1), words)
    if request.GET.get("format") == "json":
        return twin({"a": dataclasses.asdict(a), "b": dataclasses.asdict(b)})
    context: dict[str, object] = {
        "section": "memories",
        "subject": row,
        "item": found,
        "history": history.of(found, words),
        "a": a,
        "b": b,
        "next_version": found.version + 1,
        "form": forms.fresh(),
        "pair": [a, b] if a.version != b.version else [a],
        "standing_a": _standing(a),
        "standing_b": _standing(b),
    }
    return show(request, "memory/item_compare.html", context)


def _standing(each: Revision) -> dict[str, Any]:
    """What a revision holds beside its words."""
    return {
        "status": each.status,
        "pinned": each.pinned,
        "importance": each.importance,
        "true from": f"{each.valid_from:%Y-%m-%d %H:%M}",
        "true to": f"{each.valid_to:%Y-%m-%d %H:%M}" if each.valid_to else None,
    }
