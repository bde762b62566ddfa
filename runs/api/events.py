"""The trace of a run: JSON pages by number. Pages that stay open read the same events as a stream."""

from __future__ import annotations

from django.http import HttpRequest
from ninja import Query, Router

from runs.api import requests, waiting
from runs.schemas.agents import EventOut, EventPageOut, EventQuery
from runs.schemas.strict import Problem
from runs.selectors import events, story

router = Router()


@router.get("/runs/{run_id}/events", response={200: EventPageOut, 404: Problem}, operation_id="list_events")
@waiting.offloaded
def list_events(request: HttpRequest, run_id: str, wanted: Query[EventQuery]) -> EventPageOut:
    """Events after a number, oldest first; numbers have no holes, so the last one you have is where to go on."""
    actor = requests.allowed(request, "runs.read")
    requests.refuse_others(request, "after", "limit")
    return requests.scoped(actor, lambda: _page(run_id, wanted))


def _page(run_id: str, wanted: EventQuery) -> EventPageOut:
    run = story.find(run_id)
    found = events.after(run.id, created_at=run.created_at, seq=wanted.after, rows_max=wanted.limit)
    rows = [EventOut.from_orm(row) for row in found]
    return EventPageOut(events=rows, next=rows[-1].seq if rows else wanted.after)
