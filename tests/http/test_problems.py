"""Errors in the three forms: problem+json, the error page, its fragment."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError
from django.http import HttpRequest
from django.template import TemplateSyntaxError
from django.test import RequestFactory

from agentstate.core import errors
from agentstate.http import problems, refusals
from agentstate.http.throttle import TooManyTries

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def asked(path: str = "/x", *, htmx: bool = False, **headers: str) -> HttpRequest:
    request = RequestFactory().get(path, headers=headers)
    request.request_id = "r-1"  # type: ignore[attr-defined]
    request.htmx = htmx  # type: ignore[attr-defined]
    request.user = AnonymousUser()
    return request


def every_error(kind: type[errors.DomainError] = errors.DomainError) -> list[type[errors.DomainError]]:
    below = [found for each in kind.__subclasses__() for found in every_error(each)]
    return [kind, *below]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_is_a_whole_problem(kind: type[errors.DomainError]) -> None:
    answer = problems.response(kind(field="name"), asked("/api/v1/x"))
    body = json.loads(answer.content)
    assert answer.status_code == body["status"] == kind.http_status
    assert (body["code"], body["field"], body["request_id"]) == (kind.code, "name", "r-1")
    assert body["title"]
    assert body["detail"]


def test_data_of_an_error_never_replaces_a_member() -> None:
    body = problems.problem(errors.Conflict("x", status="paused", code="y", detail="z", winner="Bob", title="t"))
    assert (body["status"], body["code"], body["detail"], body["winner"]) == (409, "conflict", "x", "Bob")


def test_values_of_any_kind_are_told() -> None:
    data: dict[str, Any] = {"id": UUID(int=1), "digest": b"\x01", "names": {"b", "a"}}
    body = json.loads(problems.response(errors.Invalid("x", **data), asked("/api/")).content)
    assert (body["id"], body["digest"], body["names"]) == (str(UUID(int=1)), "01", ["a", "b"])


def test_a_wait_is_said_in_the_header_too() -> None:
    assert problems.response(errors.LockTimeout(retry_after_s=2.4), asked("/api/"))["Retry-After"] == "2"
    assert problems.response(errors.Unavailable(), asked("/api/"))["Retry-After"] == "1"
    assert problems.response(TooManyTries(retry_after_s=600), asked("/api/"))["Retry-After"] == "600"
    assert "Retry-After" not in problems.response(errors.Conflict(), asked("/api/"))
    assert problems.response(errors.Unauthorised(), asked("/api/"))["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE[:-1]}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE[:-1]}X-00f067aa0ba902b7-01", ""),
        ("garbage", ""),
        ("", ""),
    ],
)
def test_the_trace_of_the_caller_is_named(traceparent: str, trace_id: str) -> None:
    headers: dict[str, Any] = {"traceparent": traceparent} if traceparent else {}
    request = asked("/api/", **headers)
    assert json.loads(problems.response(errors.NotFound(), request).content).get("trace_id", "") == trace_id


@pytest.mark.django_db
def test_a_person_gets_the_error_page_with_the_request_id() -> None:
    answer = refusals.answer(asked(), errors.NotFound("There is no such run <b>."))
    html = answer.content.decode()
    assert (answer.status_code, answer["Vary"]) == (404, "HX-Request")
    assert "<html" in html
    assert 'role="alert"' in html  # the template's, not the plain page below it
    assert "There is no such run &lt;b&gt;." in html
    assert "r-1" in html


@pytest.mark.django_db
def test_htmx_gets_the_fragment_of_the_same_page() -> None:
    page, fragment = (refusals.answer(asked(htmx=htmx), errors.Conflict("Bob was first.")) for htmx in (False, True))
    assert fragment.status_code == page.status_code == 409
    assert "<html" not in fragment.content.decode()
    assert 'role="alert"' in fragment.content.decode()
    assert "Bob was first." in fragment.content.decode()


@pytest.mark.parametrize("failure", [DatabaseError("gone"), errors.Unavailable("gone"), TemplateSyntaxError("x")])
def test_a_page_that_cannot_be_rendered_is_plain_and_says_the_same(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def broken(*args: Any, **options: Any) -> str:
        raise failure

    monkeypatch.setattr(refusals, "render_to_string", broken)
    answer = refusals.answer(asked(), errors.Unavailable("The database is <away>."))
    html = answer.content.decode()
    assert answer.status_code == 503
    assert "The database is &lt;away&gt;." in html
    assert "r-1" in html


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("handler", "status", "code"),
    [
        (refusals.bad_request, 400, "bad-request"),
        (refusals.forbidden, 403, "forbidden"),
        (refusals.not_found, 404, "not-found"),
    ],
)
def test_what_django_refuses_looks_the_same(handler: Any, status: int, code: str) -> None:
    page = handler(asked(), Exception())
    api = handler(asked("/api/v1/x"), Exception())
    assert page.status_code == api.status_code == status
    assert json.loads(api.content)["code"] == code
    assert 'role="alert"' in page.content.decode()


@pytest.mark.django_db
def test_a_crash_and_an_expired_form_have_their_page_and_problem() -> None:
    assert refusals.server_error(asked()).status_code == 500
    assert json.loads(refusals.server_error(asked("/api/v1/x")).content)["code"] == "server-error"
    assert json.loads(refusals.csrf_failure(asked("/api/v1/x")).content)["code"] == "form-expired"
    assert refusals.csrf_failure(asked(), "CSRF cookie not set.").status_code == 403
