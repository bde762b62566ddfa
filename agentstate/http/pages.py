"""Who may open a page: sign-in, tenant from the address, verb. Absent and not yours give the same answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import urlencode

import orjson
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django_htmx.middleware import HtmxDetails

from agentstate.core.errors import NotFound
from agentstate.http.redaction import redact
from agentstate.tenants import members
from agentstate.tenants.actors import Actor, require
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope

P = ParamSpec("P")
SEE_OTHER = 303


class TenantRequest(HttpRequest):
    """A request below /t/<tenant>/ after tenant_page let it in."""

    actor: Actor
    tenant: Tenant
    tenants: list[Tenant]
    htmx: HtmxDetails


def tenant_page(
    verb: str = "runs.read", *, scoped: bool = True
) -> Callable[
    [Callable[Concatenate[TenantRequest, P], HttpResponseBase]],
    Callable[Concatenate[HttpRequest, str, P], HttpResponseBase],
]:
    """Decorates view(request, ...) of /t/<tenant>/...; sets request.actor and request.tenant.

    A GET reads inside the tenant's scope and is rendered after it. A POST is not in a scope: services open their own
    durable transaction, and the view opens a scope for what it shows afterwards. `scoped=False`: neither is a GET,
    because its view asks somebody outside (a model) before it reads.
    """

    def decorate(view: Callable[Concatenate[TenantRequest, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def guarded(request: HttpRequest, tenant: str, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request)
            entered = enter(request, tenant, verb=verb)
            if scoped and request.method in ("GET", "HEAD"):
                with tenant_scope(entered.tenant.id):
                    return view(entered, *args, **kwargs)
            return view(entered, *args, **kwargs)

        return guarded

    return decorate


def enter(request: HttpRequest, slug: str, *, verb: str) -> TenantRequest:
    """Raises: NotFound when the signed-in person is no member; Forbidden when the role does not cover the verb."""
    entered: TenantRequest = request  # type: ignore[assignment]  # HttpRequest is open; the attributes come now
    entered.tenants = members.tenants_of(request.user)
    entered.tenant = find(entered.tenants, slug)
    entered.actor = _actor(request, entered.tenant)
    require(entered.actor, verb)
    return entered


def _actor(request: HttpRequest, tenant: Tenant) -> Actor:
    # The role came with the list of tenants: no second round trip for the same row.
    role: str = tenant.member_role  # type: ignore[attr-defined]
    return Actor(kind="user", id=str(request.user.pk), name=str(request.user), tenant_id=tenant.pk, role=role)


def find(tenants: list[Tenant], slug: str) -> Tenant:
    for tenant in tenants:
        if tenant.slug == slug:
            return tenant
    raise NotFound("There is no such page, or it belongs to a tenant you are no member of.")


def redirect_to_login(request: HttpRequest) -> HttpResponse:
    wanted = request.get_full_path() if request.method == "GET" else ""
    target = reverse("login") + (f"?{urlencode({'next': wanted})}" if wanted else "")
    if getattr(request, "htmx", False):
        return HttpResponse(status=204, headers={"HX-Redirect": target})
    return HttpResponseRedirect(target)


def see_other(request: HttpRequest, address: str) -> HttpResponse:
    """After a POST: the browser goes on with a GET; htmx gets the same address to go to."""
    if getattr(request, "htmx", False):
        return HttpResponse(status=204, headers={"HX-Redirect": address})
    return HttpResponseRedirect(address, status=SEE_OTHER)


def show(
    request: TenantRequest, template: str, context: dict[str, object], *, partial: str = "", status: int = 200
) -> TemplateResponse:
    """The whole page, or for htmx the named partial of the same template. Rendered after the scope is closed."""
    name = f"{template}#{partial}" if partial and request.htmx else template
    response = TemplateResponse(request, name, context, status=status)
    patch_vary_headers(response, ("HX-Request",))
    return response


def twin(value: object) -> HttpResponse:
    """The JSON twin of a page: the same facts, redacted in the same way."""
    body = orjson.dumps(redact(value), default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    return HttpResponse(body, content_type="application/json")
