"""The trace of a run: JSON pages by number, or the same events as a stream that stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router

from agentstate.core.ids import parse_id
from agentstate.db import wake
from agentstate.http import waiting
from agentstate.http.hub import hub
from agentstate.http.schemas import Problem
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from runs.api import requests
from runs.schemas.agents import EventOut, EventPageOut, EventQuery
from runs.selectors import events, story

router = Router()
HEARTBEAT_S = 15.0
AGAIN_S = 1.0  # after news: of a burst of turns only the first ones hint
STREAM_S_MAX = 3600.0  # then the caller comes again, and its key is looked up again
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "identity"}
STREAMED = {
    "parameters": [
        {
            "in": "header",
            "name": "Last-Event-ID",
            "required": False,
            "schema": {"type": "integer"},
            "description": "With `Accept: text/event-stream`: the number of the last event you have.",
        }
    ],
    "responses": {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
}


@router.get(
    "/runs/{run_id}/events",
    response={200: EventPageOut, 404: Problem},
    operation_id="list_events",
    openapi_extra=STREAMED,
)
async def list_events(
    request: HttpRequest, run_id: str, wanted: Query[EventQuery]
) -> EventPageOut | StreamingHttpResponse:
    """Events after a number, oldest first; numbers have no holes, so the last one you have is where to go on.

    With `Accept: text/event-stream` the answer stays open and ends when the run is over.
    """
    actor = requests.allowed(request, "runs.read")
    requests.refuse_others(request, "after", "limit")
    if "text/event-stream" not in request.headers.get("Accept", ""):
        page, _ = await _read(actor, run_id, after=wanted.after, rows_max=wanted.limit)
        return page
    last = request.headers.get("Last-Event-ID", "")
    after = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else wanted.after
    await _read(actor, run_id, after=after, rows_max=1)  # refuse before the stream begins
    stream = _stream(actor, run_id, after=after)
    return StreamingHttpResponse(stream, content_type="text/event-stream", headers=HEADERS)


async def _read(actor: Actor, run_id: str, *, after: int, rows_max: int) -> tuple[EventPageOut, bool]:
    """One page, and whether the run is over and nothing follows it."""
    return await waiting.in_database(
        lambda: requests.scoped(actor, lambda: _page(run_id, after=after, rows_max=rows_max))
    )


def _page(run_id: str, *, after: int, rows_max: int) -> tuple[EventPageOut, bool]:
    run = story.find(run_id)
    found = events.after(run.id, created_at=run.created_at, seq=after, rows_max=rows_max)
    rows = [EventOut.model_validate(row) for row in found]
    last = rows[-1].seq if rows else after
    return EventPageOut(events=rows, next=last), run.over and last >= run.event_seq


async def _stream(actor: Actor, run_id: str, *, after: int) -> AsyncIterator[bytes]:
    channel = wake.live_channel(actors.tenant_of(actor), parse_id("run", run_id))
    ends_at = asyncio.get_running_loop().time() + STREAM_S_MAX
    patience_s = HEARTBEAT_S
    async with hub.listen(channel) as news:
        while asyncio.get_running_loop().time() < ends_at:
            news.clear()
            page, over = await _read(actor, run_id, after=after, rows_max=100)
            for event in page.events:
                yield f"id: {event.seq}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n".encode()
            after = page.next
            if over:
                yield b"event: over\ndata: {}\n\n"
                return
            if page.events:
                patience_s = AGAIN_S
            elif not await news.wait(patience_s):
                patience_s = HEARTBEAT_S
                yield b": beat\n\n"
