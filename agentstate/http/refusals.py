"""Error pages: error.html for people, its partial `problem` for htmx; also for what Django itself refuses.

The URLconf names the handlers: handler400 = "agentstate.http.refusals.bad_request", 403 forbidden, 404 not_found, 500
server_error; settings.CSRF_FAILURE_VIEW = "agentstate.http.refusals.csrf_failure".
"""

from __future__ import annotations

import sys
from typing import Any

import structlog
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.html import format_html

from agentstate.core import errors
from agentstate.db import sql
from agentstate.http import problems

log = structlog.get_logger(__name__)
TEMPLATE, FRAGMENT = "error.html", "error.html#problem"
API, TENANT = "/api/", "/t/"
CSRF = "csrfmiddlewaretoken"


class BadRequest(errors.DomainError):
    """The request could not be read."""

    code = "bad-request"
    http_status = 400


class FormExpired(errors.Forbidden):
    """This form has expired."""

    code = "form-expired"


class ServerError(errors.DomainError):
    """Something broke on our side."""

    code = "server-error"
    http_status = 500


def answer(request: HttpRequest, error: errors.DomainError) -> HttpResponse:
    """The error in the form this caller reads: problem+json under /api/, a fragment for htmx, else the page."""
    return problems.response(error, request) if is_api(request) else page(request, error)


def refused(error: BaseException | None) -> errors.DomainError | None:
    """What an error means to who asked; None for one that nobody expected. A lost connection is left behind."""
    if isinstance(error, errors.DomainError):
        return error
    if error is None:
        return None
    if sql.is_held(error):
        return errors.LockTimeout(retry_after_s=1)
    if not sql.is_lost(error):
        return None
    log.warning("database.lost", error=type(error).__name__, cause=type(error.__cause__).__name__)
    connection.close_if_unusable_or_obsolete()  # what is shown now asks over a new one
    return errors.Unavailable("The database does not answer.", retry_after_s=1)


def page(request: HttpRequest, error: errors.DomainError) -> HttpResponse:
    """The error as a page, or as a fragment when htmx asked. Never fails: a broken template gives plain HTML."""
    shown = {**problems.shown(error, request), **_unsent(request, error)}
    is_fragment = bool(getattr(request, "htmx", False))
    try:
        html: str = render_to_string(FRAGMENT if is_fragment else TEMPLATE, shown, request=request)
    except Exception as failure:  # nobody stands behind this page: a database away, a broken template
        log.exception("error_page.failed", error=type(failure).__name__)
        html = _plain(shown)
    rendered = HttpResponse(html, status=error.http_status)
    rendered["Vary"] = "HX-Request"
    return problems.with_headers(rendered, error)


def is_api(request: HttpRequest) -> bool:
    return request.path.startswith(API)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, BadRequest())


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, errors.Forbidden())


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, errors.NotFound())


def server_error(request: HttpRequest) -> HttpResponse:
    """Also for what broke outside of a view: in the session, or in a page that was being rendered."""
    return answer(request, refused(sys.exc_info()[1]) or ServerError())


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's reason is for developers (it goes to the log); people need to reload."""
    log.info("csrf.refused", reason=reason, path=request.path)
    way_out = "Reload the page and send the form again; cookies must be allowed for this site."
    return answer(request, FormExpired(way_out=way_out))


def _unsent(request: HttpRequest, error: errors.DomainError) -> dict[str, Any]:
    """What somebody sent and nobody took, for a form that sends it again: of pages of a tenant, which ask no secrets.

    Only what came from a page of ours: nobody else chooses what stands behind a button of this page.
    """
    ours = getattr(request, "csrf_processing_done", False) and request.path.startswith(TENANT)
    if error.http_status != errors.Unavailable.http_status or request.method != "POST" or not ours:
        return {}
    sent = [(name, value) for name, values in request.POST.lists() if name != CSRF for value in values]
    way_out = "Nothing was half-written, and what you typed is kept here: send it again in a moment."
    return {"way_out": way_out, "again": {"address": request.get_full_path(), "sent": sent}}


def _plain(shown: dict[str, Any]) -> str:
    return format_html(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body><main>'
        "<h1>{title}</h1><p>{detail}</p><p>{way_out}</p><p>Request {request_id}</p></main></body></html>",
        **shown,
    )
