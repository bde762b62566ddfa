"""The last step of every page here: what stands around its content is read in the scope that is open anyway."""

from __future__ import annotations

from django.http import HttpResponse

from agentstate.http import pages
from agentstate.http.pages import TenantRequest
from runs.selectors import standing


def show(
    request: TenantRequest, template: str, context: dict[str, object], *, partial: str = "", status: int = 200
) -> HttpResponse:
    """Asserts a tenant scope. The page, or for htmx its partial (which needs no counts around it)."""
    if not (partial and request.htmx):
        request.standing = standing.read()  # type: ignore[attr-defined]  # read by agentstate.web.context
    return pages.show(request, template, context, partial=partial, status=status)
