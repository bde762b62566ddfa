"""The three middlewares, alike under WSGI and ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import structlog
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory

from agentstate.core import errors
from agentstate.http import middleware

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
type_view = Callable[[HttpRequest], HttpResponse]


@pytest.fixture(params=["wsgi", "asgi"])
def through(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Sends a request through one middleware to a view, over either protocol."""

    def run(kind: type[middleware.Around], view: Callable[[HttpRequest], Any], **headers: str) -> Any:
        asked = RequestFactory().get("/x", headers=headers)
        if request.param == "wsgi":
            return kind(view)(asked)

        async def awaited(inner: HttpRequest) -> Any:
            return view(inner)

        return asyncio.run(kind(awaited)(asked))  # type: ignore[arg-type]

    return run


def fine(request: HttpRequest) -> HttpResponse:
    return HttpResponse("fine")


def test_every_answer_carries_the_strict_policy(through: Any) -> None:
    answer = through(middleware.SecurityHeaders, fine)
    assert answer["Content-Security-Policy"] == POLICY
    assert (answer["X-Frame-Options"], answer["X-Content-Type-Options"]) == ("DENY", "nosniff")
    assert answer["Cache-Control"] == "private, no-cache"


def test_a_view_may_set_a_header_itself(through: Any) -> None:
    answer = through(middleware.SecurityHeaders, lambda _: HttpResponse(headers={"Cache-Control": "no-store"}))
    assert answer["Cache-Control"] == "no-store"
    assert answer["Content-Security-Policy"] == POLICY


def test_a_stream_passes_unread() -> None:
    read = []

    def chunks() -> Iterator[bytes]:
        read.append(1)
        yield b"data: 1\n\n"

    async def later() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    async def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(later(), content_type="text/event-stream")

    for kind in (middleware.SecurityHeaders, middleware.RequestId, middleware.Problems):
        answer: Any = asyncio.run(kind(stream)(RequestFactory().get("/x")))  # type: ignore[arg-type]
        assert (answer.streaming, answer["Content-Type"], read) == (True, "text/event-stream", [])


@pytest.mark.parametrize("sent", ["abc-123", "a" * 64, "A.b_c-9"])
def test_a_harmless_request_id_is_kept_and_given_back(through: Any, sent: str) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        assert request.request_id == sent  # type: ignore[attr-defined]
        assert structlog.contextvars.get_contextvars() == {"request_id": sent}
        return fine(request)

    assert through(middleware.RequestId, view, **{"X-Request-ID": sent})["X-Request-ID"] == sent


@pytest.mark.parametrize("sent", ["", "a" * 65, "a b", "<script>", "a\tb", "é", "a;b", "a\n"])
def test_any_other_request_id_is_replaced(through: Any, sent: str) -> None:
    answer = through(middleware.RequestId, fine, **({"X-Request-ID": sent} if sent else {}))
    assert len(answer["X-Request-ID"]) == 32
    assert answer["X-Request-ID"] != through(middleware.RequestId, fine)["X-Request-ID"]


def test_a_domain_error_below_api_is_a_problem() -> None:
    request = RequestFactory().get("/api/v1/runs", headers={"X-Request-ID": "r1"})
    request.request_id = "r1"  # type: ignore[attr-defined]
    problems = middleware.Problems(fine)
    answer = problems.process_exception(request, errors.Conflict("Bob was first.", winner="Bob", status="x"))
    assert answer is not None
    assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
    body = json.loads(answer.content)
    assert body["type"].endswith("/problems/conflict")
    assert {key: body[key] for key in ("title", "status", "detail", "code", "request_id", "winner")} == {
        "title": "Somebody else was first",
        "status": 409,
        "detail": "Bob was first.",
        "code": "conflict",
        "request_id": "r1",
        "winner": "Bob",
    }


def test_other_exceptions_are_not_swallowed() -> None:
    assert middleware.Problems(fine).process_exception(RequestFactory().get("/"), ValueError("x")) is None


@pytest.mark.django_db
def test_the_real_stack_answers_with_policy_and_request_id(client: Client) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": "r-7"})
    assert (answer.status_code, answer["X-Request-ID"], answer["Content-Security-Policy"]) == (200, "r-7", POLICY)


@pytest.mark.django_db
def test_the_real_stack_does_so_over_asgi(async_client: AsyncClient) -> None:
    answer: Any = asyncio.run(async_client.get("/livez", headers={"X-Request-ID": "r-8"}))
    assert (answer.status_code, answer["X-Request-ID"], answer["Content-Security-Policy"]) == (200, "r-8", POLICY)
