"""The REST API under /api/v1: the tiers' routers joined; every address below /api answers with JSON or a problem."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase, HttpResponseNotAllowed
from django.urls import URLPattern, include, path, re_path
from django.views.decorators.csrf import csrf_exempt

from agentstate.affairs import api as affairs
from agentstate.api import auth, errors
from agentstate.api.bodies import JsonRenderer, StrictParser
from agentstate.api.document import Api
from agentstate.core.errors import NotFound
from memory.api import documents, items, policies, proposals, reading, sessions, subjects
from runs.api import agents, approvals, events, runs, work

api = Api(
    title="agentstate",
    version="1",
    description="Durable runs, approvals and checkpoints of agents. Errors are RFC 9457 problems.",
    urls_namespace="api",
    docs_url=None,  # the page of ninja loads scripts from a CDN, which our policy forbids
    openapi_url="/openapi.json",
    auth=auth.KeyAuth(),
    parser=StrictParser(),
    renderer=JsonRenderer(),
)
errors.install(api)
api.add_router("", work.router, tags=["work"], auth=auth.WorkerAuth())  # before the rest: /runs/claim is no run
api.add_router("", runs.router, tags=["runs"])
api.add_router("", events.router, tags=["runs"])
api.add_router("", approvals.router, tags=["approvals"])
api.add_router("", agents.router, tags=["agents"])
for part in (subjects, items, sessions, reading, proposals, documents, policies):
    api.add_router("", part.router, tags=["memory"])
api.add_router("", affairs.router, tags=["memory"])


@csrf_exempt
async def absent(request: HttpRequest) -> HttpResponse:
    return errors.answer(request, NotFound(f"There is no address {request.path[:200]} here; see docs/API.md."))


def guarded(view: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a body that is too large before it is parsed, and say a refused method as a problem."""

    async def around(request: HttpRequest, **given: Any) -> HttpResponseBase:
        refused = _too_large(request)
        if refused is not None:
            return refused
        response = view(request, **given)
        return _said(request, await response if isawaitable(response) else response)

    return csrf_exempt(around)


def _too_large(request: HttpRequest) -> HttpResponse | None:
    sent = request.headers.get("Content-Length", "")
    stated = int(sent) if sent.isascii() and sent.isdigit() else len(request.body)
    return errors.answer(request, errors.too_large()) if stated > errors.BODY_BYTES_MAX else None


def _said(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if not isinstance(response, HttpResponseNotAllowed):
        return response
    allowed = response.headers["Allow"]
    refused = errors.answer(request, errors.MethodNotAllowed(f"{request.method} is not possible here; use {allowed}."))
    refused["Allow"] = allowed
    return refused


def _guarded_routes() -> list[URLPattern]:
    routes = [route for route in api.urls[0] if isinstance(route, URLPattern)]
    return [URLPattern(route.pattern, guarded(route.callback), route.default_args, route.name) for route in routes]


urlpatterns = [
    path("v1/", include((_guarded_routes(), "api"))),
    re_path(r"", absent),
]
