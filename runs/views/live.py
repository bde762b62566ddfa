"""Live runs by server-sent events: a stream says that something happened, the page then asks for its own new parts.

One Redis subscription per process feeds all streams. What a stream sends is read from the run's row, so a lost hint
costs at most one heartbeat, and Last-Event-ID (the number of the newest event seen) misses nothing after a reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import orjson
from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id
from agentstate.db import sql, wake
from agentstate.http import pages
from agentstate.http.hub import hub
from agentstate.tenants.scope import tenant_scope

HEARTBEAT_S = 15.0
AGAIN_S = 1.0  # after news: of a burst of turns only the first ones hint
REST_S = 0.15  # events of one run within this time are told as one
RETRY_MS = 2000
STREAM_S_MAX = 3600.0  # the browser opens a new one; access is checked anew
OVER = frozenset({"succeeded", "failed", "cancelled"})
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "identity"}


async def stream(request: HttpRequest, tenant: str, run: str) -> HttpResponse | StreamingHttpResponse:
    """GET only; signed in, or 401 (an event source follows no redirect to a page)."""
    if request.method != "GET":
        return HttpResponse(status=405, headers={"Allow": "GET"})
    tenant_id, run_id = await sync_to_async(_enter)(request, tenant, run)
    if tenant_id is None or run_id is None:
        return HttpResponse(status=401)
    after = request.headers.get("Last-Event-ID") or request.GET.get("after", "")
    seen = int(after) if after.isascii() and after.isdigit() and len(after) < 10 else 0
    return StreamingHttpResponse(
        _events(tenant_id, run_id, seen=seen), content_type="text/event-stream", headers=HEADERS
    )


def _enter(request: HttpRequest, slug: str, run: str) -> tuple[UUID | None, UUID | None]:
    """Raises: NotFound, Forbidden. Gives the connection back: a stream must not keep one for hours."""
    try:
        if not request.user.is_authenticated:
            return None, None
        entered = pages.enter(request, slug, verb="runs.read")
        run_id = parse_id("run", run)
        if _read(entered.tenant.id, run_id) is None:
            raise NotFound
        return entered.tenant.id, run_id
    finally:
        _give_back()


async def _events(tenant_id: UUID, run_id: UUID, *, seen: int) -> AsyncIterator[bytes]:
    channel = wake.live_channel(tenant_id, run_id)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + STREAM_S_MAX
    async with hub.listen(channel) as news:
        yield f"retry: {RETRY_MS}\n: open\n\n".encode()
        while loop.time() < ends_at:
            found = await sync_to_async(_latest)(tenant_id, run_id)
            if found is None:
                return
            seq, status, steps = found
            is_news = seq > seen
            if is_news:
                seen = seq
                data = orjson.dumps({"seq": seq, "status": status, "steps": steps}).decode()
                yield f"id: {seq}\nevent: run\ndata: {data}\n\n".encode()
            if status in OVER:
                yield b"event: over\ndata: {}\n\n"
                return
            if not await news.wait(AGAIN_S if is_news else HEARTBEAT_S) and not is_news:
                yield b": beat\n\n"
            await asyncio.sleep(REST_S)
            news.clear()


def _latest(tenant_id: UUID, run_id: UUID) -> tuple[int, str, int] | None:
    try:
        return _read(tenant_id, run_id)
    finally:
        _give_back()


def _read(tenant_id: UUID, run_id: UUID) -> tuple[int, str, int] | None:
    with tenant_scope(tenant_id):
        found = sql.row("select event_seq, status, step_seq from runs_run where id = %s", [run_id])
    return None if found is None else (found[0], found[1], found[2])


def _give_back() -> None:
    """To the pool, or closed: unless a test holds a transaction around everything."""
    if not connection.in_atomic_block:
        connection.close()
