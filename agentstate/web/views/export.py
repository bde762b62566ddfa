"""Everything that is remembered of a subject, as a file."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET

from agentstate.affairs import exports
from agentstate.core.errors import Conflict
from agentstate.http.pages import TenantRequest, tenant_page
from agentstate.tenants.actors import require
from memory.selectors import directory
from memory.services import exporting


@require_GET
@tenant_page("runs.read")
def export(request: TenantRequest, subject: str) -> HttpResponseBase:
    """Raises: NotFound, Conflict while it is being erased."""
    require(request.actor, "memory.erase")
    row, words = directory.find(subject)
    if words.erased:
        raise Conflict("This subject is being erased: nothing of it can be read any more.", status=row.status)
    return exports.answer(exporting.export(request.tenant.id, row.id, actor=request.actor), name=row.public_id)
