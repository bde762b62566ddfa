"""Request ids, the headers that keep a page to itself, and DomainErrors as answers.

All three run under ASGI and WSGI without a thread hop, and never touch a body: a streaming response passes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import cast

import structlog
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from agentstate.core.ids import new_id
from agentstate.http import problems, refusals

type_get_response = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]

REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    # What a tenant's page shows must not come back from a cache after somebody signed out.
    "Cache-Control": "private, no-cache",
}


class Around:
    """Something that happens before and after a request, alike for both kinds of server."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: type_get_response) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._acall(request)
        self.before(request)
        return self.after(request, cast(HttpResponseBase, self.get_response(request)))

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        self.before(request)
        return self.after(request, await cast("Awaitable[HttpResponseBase]", self.get_response(request)))

    def before(self, request: HttpRequest) -> None:
        """Nothing unless a subclass has something to do."""

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        return response


def begun(sent: str) -> str:
    """The id of a request whose caller sent this one; from now on it is in each log line."""
    request_id = sent if REQUEST_ID.fullmatch(sent) else new_id().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return request_id


class RequestId(Around):
    """Takes the caller's X-Request-ID when it is harmless, else makes one; it is in the answer and each log line."""

    def before(self, request: HttpRequest) -> None:
        request.request_id = begun(request.headers.get("X-Request-ID", ""))  # type: ignore[attr-defined]

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response["X-Request-ID"] = problems.request_id(request)
        return response


class SecurityHeaders(Around):
    """The strict policy of every answer; a view may set another value of the same header itself."""

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        for name, value in HEADERS.items():
            response.setdefault(name, value)
        return response


class Problems(Around):
    """A DomainError raised by a view becomes problem+json under /api/, an htmx fragment, or the error page.

    So does a lost connection to the database: the page says that nothing was written, and what was sent stands on it.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        refused = refusals.refused(exception)
        return None if refused is None else refusals.answer(request, refused)
