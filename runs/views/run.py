"""The page of one run: facts, first failure, overview, and its tabs; and the parts that a live page asks for."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

from django.http import HttpResponse
from django.views.decorators.http import require_GET

from agentstate.core.clock import now
from agentstate.core.errors import Corrupt, NotFound
from agentstate.http.pages import TenantRequest, tenant_page, twin
from runs.selectors import overview, pads, records, remembered, steps, story
from runs.selectors.story import RunStory
from runs.views.drawing import draw, gauge
from runs.views.showing import show

LIVE_MARGIN = timedelta(seconds=2)  # clocks of the web and the database may differ by this much


@require_GET
@tenant_page("runs.read")
def run_page(request: TenantRequest, run: str) -> HttpResponse:
    found = story.find(run)
    window = _window(request, found)
    if request.GET.get("format") == "json":
        return _json(found, window)
    context = {**_head(found), "bodies": story.bodies(found), **_steps(request, found, window), "tab": "steps"}
    context["remembered"] = remembered.of_run(found.id, found.session)
    if request.htmx and "live" in request.GET:
        return show(request, "runs/run.html", _live(request, context, window), partial="run-news")
    return show(request, "runs/run.html", context, partial=_partial(request))


def _partial(request: TenantRequest) -> str:
    return {"run-steps": "run-steps"}.get(request.htmx.target or "", "")


def _head(run: RunStory) -> dict[str, object]:
    questions, takeovers = story.around(run)
    seen = overview.read(run.id, steps=run.steps, error_step=run.error_step)
    return {
        "section": "runs",
        "run": run,
        "overview": seen,
        "totals": seen.totals,
        "questions": questions,
        "failure": _failure(run),
        "takeovers": takeovers,
    }


def _failure(run: RunStory) -> steps.StepRow | None:
    """The step at which the run failed."""
    if run.status != "failed" or run.error_step is None:
        return None
    return next(iter(steps.changed(run.id, first=run.error_step, last=run.error_step)), None)


def _window(request: TenantRequest, run: RunStory) -> steps.Window:
    first = _number(request.GET.get("from", ""))
    if request.GET.get("from") == "end":
        first = max(run.steps - steps.WINDOW + 1, 1)
    return steps.window(
        run.id,
        first=first,
        total=run.steps,
        kind=request.GET.get("kind", ""),
        name=request.GET.get("find", "").strip(),
    )


def _steps(request: TenantRequest, run: RunStory, window: steps.Window) -> dict[str, object]:
    return {
        "window": window,
        "drawing": draw(window.rows, origin=run.started_at or run.created_at),
        "kinds": steps.KINDS,
        "kind": request.GET.get("kind", ""),
        "find": request.GET.get("find", "").strip(),
        "window_size": steps.WINDOW,
        "query": request.GET.urlencode(),
        "rendered_at": now().isoformat(),
        "at_end": window.at_end and not window.filtered,
    }


def _live(request: TenantRequest, context: dict[str, object], window: steps.Window) -> dict[str, object]:
    """What a live page gets: the head; all rows when the reader is at the end, else the rows that changed."""
    shown_to = _number(request.GET.get("rows", ""), least=0)
    since = _moment(request.GET.get("since", ""))
    drawing = context["drawing"]
    assert hasattr(drawing, "steps")
    changed = [item for item in drawing.steps if item.row.seq <= shown_to and _changed(item.row, since)]
    run = context["run"]
    assert isinstance(run, RunStory)
    at_end = request.GET.get("end") == "1" and context["at_end"]
    return {
        **context,
        "whole": at_end,
        "changed": changed,
        "shown_to": window.end if at_end else shown_to,
        "new_steps": 0 if at_end else max(run.steps - shown_to, 0),
    }


def _changed(row: steps.StepRow, since: datetime) -> bool:
    newest = max(row.started_at, row.ended_at or row.started_at)
    return newest >= since - LIVE_MARGIN or row.status in ("started", "waiting", "in_doubt")


def _json(run: RunStory, window: steps.Window) -> HttpResponse:
    bodies = story.bodies(run)
    plain = dataclasses.asdict(run)
    for sealed in ("input_sealed", "output_sealed", "error_sealed"):
        plain.pop(sealed)
    return twin(
        plain
        | {"id": run.public_id, "input": bodies.input, "output": bodies.output, "error": bodies.error}
        | {"steps_shown": [dataclasses.asdict(row) for row in window.rows]}
    )


@require_GET
@tenant_page("runs.read")
def state_page(request: TenantRequest, run: str) -> HttpResponse:
    found = story.find(run)
    frames = records.frames(found.id)
    at = _number(request.GET.get("at", ""), least=0) or (frames[0].n if frames else 0)
    context: dict[str, object] = {**_head(found), "tab": "state", "frames": frames, "at": at}
    try:
        context["seen"] = records.state_at(found.id, at) if at else None
    except (Corrupt, NotFound) as problem:
        context["problem"] = problem.message
    return show(request, "runs/run.html", context)


@require_GET
@tenant_page("runs.read")
def scratchpad_page(request: TenantRequest, run: str) -> HttpResponse:
    found = story.find(run)
    context: dict[str, object] = {**_head(found), "tab": "scratchpad"}
    try:
        pad = pads.read(found)
        if request.GET.get("format") == "json":
            return twin(pads.plain(pad))
        context["pad"] = pad
        context["gauge"] = gauge(share=pad.share, important=pad.important.share(pad.budget.tokens))
        context["summaries"] = {each.entry: each for each in pad.account.summaries}
    except Corrupt as problem:
        context["problem"] = problem.message
    return show(request, "runs/run.html", context)


@require_GET
@tenant_page("runs.read")
def entry_page(request: TenantRequest, run: str, n: int) -> HttpResponse:
    """One scratchpad entry in full, from the trace."""
    found = story.find(run)
    seen = pads.entry_page(found, n)
    if request.GET.get("format") == "json":
        return twin(dataclasses.asdict(seen))
    context: dict[str, object] = {"section": "runs", "run": found, "row": seen.entry, "seen": seen, "entry": seen.entry}
    return show(request, "runs/entry.html", context, partial="entry-text")


@require_GET
@tenant_page("audit.read")
def audit_page(request: TenantRequest, run: str) -> HttpResponse:
    found = story.find(run)
    context = {**_head(found), "tab": "audit", "acts": records.acts(found.id)}
    return show(request, "runs/run.html", context)


def _number(text: str, *, least: int = 1) -> int:
    return max(int(text), least) if text.isascii() and text.isdigit() and len(text) < 10 else least


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = now()
    return at if at.tzinfo else now()
