"""The API's own way through Django: no sessions, no CSRF, no thread and no connection per request.

Django's handler runs each request's synchronous parts in a thread made for it and closes its connection afterwards;
that and the pages' middleware cost several times what a turn costs. Here every view is async, asks the database by
waiting.in_database, and nothing is left to close. The views are the same: under Django's own handler they work too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from agentstate.api import errors
from agentstate.http.middleware import RequestId, SecurityHeaders

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
PREFIX = "/api/"


class ApiHandler(ASGIHandler):
    """Serves addresses below PREFIX."""

    def load_middleware(self, is_async: bool = False) -> None:
        assert is_async
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        chain: Any = convert_exception_to_response(self._get_response_async)  # type: ignore[attr-defined]
        for middleware in (SecurityHeaders, RequestId):  # the last is the outermost
            chain = convert_exception_to_response(middleware(chain))
        self._chain: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = chain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:
            return
        set_script_prefix(get_script_prefix(scope))
        request, refusal = self.create_request(scope, BytesIO(body))
        if request is None:
            assert refusal is not None
            await self.send_response(refusal, send)
            return
        await _while_connected(self._answer(request, send), receive)

    async def _answer(self, request: HttpRequest, send: Send) -> None:
        await self.send_response(await self._chain(request), send)


async def _read(receive: Receive) -> bytes | None:
    """The body; None when the caller hung up. One that is too large is cut short, which the view then refuses."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body", False) or size > errors.BODY_BYTES_MAX:
            return b"".join(parts)


async def _while_connected(answer: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Answer, unless the caller goes away first: then whatever waits or streams is cancelled."""
    answering, gone = asyncio.ensure_future(answer), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering
    finally:
        gone.cancel()
