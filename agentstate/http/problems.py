"""Errors as RFC 9457 problems: one shape for the API, and what the error page and its fragment show of the same."""

from __future__ import annotations

from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from agentstate.core.errors import DomainError

MEDIA_TYPE = "application/problem+json"
MEMBERS = frozenset({"type", "title", "status", "detail", "code", "field", "trace_id", "request_id", "retry_after_s"})
# What to do next, for people. The message of the error comes first and may say more.
WAYS_OUT = {
    400: "Go back and check what you entered.",
    401: "Sign in, then open this page again.",
    403: "Ask an admin of this tenant for the role you need.",
    404: "Check the address. It may belong to a tenant you are not a member of.",
    405: "Go back and use the page's own buttons.",
    409: "Reload the page to see the current state, then decide again.",
    413: "Send less at once.",
    422: "Correct the named field and send it again.",
    429: "Wait for the time named, then try again.",
    503: "Wait a moment and reload the page. Nothing was half-written.",
}
REPORT = "Try again; if it stays, report the request id below to whoever runs this service."


def problem(error: DomainError, *, request_id: str = "", trace_id: str = "") -> dict[str, Any]:
    """The members of a problem. Data of the error stands beside the standard members and never replaces one."""
    members = {
        "type": f"{settings.PUBLIC_URL}/problems/{error.code}",
        "title": title(error),
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "field": error.field,
        "trace_id": trace_id,
        "request_id": request_id,
    }
    data = {key: value for key, value in error.data.items() if key not in MEMBERS or key == "retry_after_s"}
    return {**{key: value for key, value in members.items() if value != ""}, **data}


def response(error: DomainError, request: HttpRequest) -> HttpResponse:
    """The answer of the API. A wait is also said by Retry-After, a missing key by WWW-Authenticate."""
    members = problem(error, request_id=request_id(request), trace_id=trace_id(request))
    answer = HttpResponse(orjson.dumps(members, default=_plain), status=error.http_status, content_type=MEDIA_TYPE)
    return with_headers(answer, error)


def with_headers(answer: HttpResponse, error: DomainError) -> HttpResponse:
    """Add what the status obliges to say in headers."""
    if error.http_status in (429, 503):
        answer["Retry-After"] = str(max(1, round(float(error.data.get("retry_after_s", 1)))))
    if error.http_status == 401:
        answer["WWW-Authenticate"] = 'Bearer realm="agentstate"'
    return answer


def shown(error: DomainError, request: HttpRequest) -> dict[str, Any]:
    """What error.html and its fragment are given."""
    return {
        "status": error.http_status,
        "title": title(error),
        "detail": error.message,
        "code": error.code,
        "field": error.field,
        "request_id": request_id(request),
        "way_out": error.data.get("way_out") or WAYS_OUT.get(error.http_status, REPORT),
        "problem": problem(error, request_id=request_id(request), trace_id=trace_id(request)),
    }


def title(error: DomainError) -> str:
    """The class's default message: the same for each occurrence, as RFC 9457 asks."""
    lines = (type(error).__doc__ or type(error).__name__).strip().splitlines()
    return lines[0].rstrip(".")


def request_id(request: HttpRequest) -> str:
    return str(getattr(request, "request_id", ""))


def trace_id(request: HttpRequest) -> str:
    """The trace of the caller, out of `traceparent` (version-trace-span-flags); "" when it sent none."""
    parts = request.headers.get("traceparent", "").split("-")
    wellformed = len(parts) == 4 and len(parts[1]) == 32 and set(parts[1]) <= set("0123456789abcdef")
    return parts[1] if wellformed and parts[1] != "0" * 32 else ""


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return value.hex() if isinstance(value, bytes) else str(value)
