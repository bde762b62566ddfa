"""The API's own way through Django: no sessions, no CSRF, no thread and no connection per request.

Django's handler runs each request's synchronous parts in a thread made for it and closes its connection afterwards;
that and the pages' middleware cost several times what a turn costs. Here every view is async, asks the database by
waiting.in_database, and nothing is left to close. The views are the same: under Django's own handler they work too.
A worker's turns mostly do not even pass the views, see direct.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from agentstate.api import direct, errors
from agentstate.http import middleware, waiting
from agentstate.http.middleware import Around, RequestId, SecurityHeaders

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
PREFIX = "/api/"
# What the views' answers begin with, in the same order.
HEADERS = [(b"Content-Type", b"application/json")]
HEADERS += [(name.encode(), value.encode()) for name, value in middleware.HEADERS.items()]


class ApiHandler(ASGIHandler):
    """Serves addresses below PREFIX."""

    def load_middleware(self, is_async: bool = False) -> None:
        assert is_async
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        chain: Any = convert_exception_to_response(self._get_response_async)  # type: ignore[attr-defined]
        self._around: list[Around] = []
        for kind in (SecurityHeaders, RequestId):  # the last is the outermost
            self._around.append(kind(chain))
            chain = convert_exception_to_response(self._around[-1])
        self._chain: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = chain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:
            return
        call = direct.found(scope, body)
        if call is not None:  # not watched for the caller's going away: a turn under way is done anyway
            await self._directly(call, scope, body, send)
            return
        set_script_prefix(get_script_prefix(scope))
        request, refusal = self.create_request(scope, BytesIO(body))
        if request is None:
            assert refusal is not None
            await self.send_response(refusal, send)
            return
        await _while_connected(self._answer(request, send), receive)

    async def _answer(self, request: HttpRequest, send: Send) -> None:
        await self.send_response(_sized(await self._chain(request)), send)

    async def _directly(self, call: direct.Call, scope: Scope, body: bytes, send: Send) -> None:
        request_id = middleware.begun(call.sent_id)
        try:
            content = await waiting.in_database(call.ask)
        except Exception as error:
            await self._refuse(error, scope, body, send, request_id=request_id)
            return
        headers = [*HEADERS, (b"X-Request-ID", request_id.encode()), (b"Content-Length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _refuse(self, error: Exception, scope: Scope, body: bytes, send: Send, *, request_id: str) -> None:
        """As the view would have, with a request made for it now."""
        request, _ = self.create_request(scope, BytesIO(body))
        assert request is not None, "direct.found takes only what Django can read"
        request.request_id = request_id  # type: ignore[attr-defined]
        response: HttpResponseBase = errors.answer(request, error)
        for around in self._around:
            response = around.after(request, response)
        await self.send_response(_sized(response), send)


def _sized(response: HttpResponseBase) -> HttpResponseBase:
    """With its length; without it a server sends a whole body in chunks, which costs both sides more."""
    if isinstance(response, HttpResponse) and response.status_code != 204:
        response.setdefault("Content-Length", str(len(response.content)))
    return response


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
