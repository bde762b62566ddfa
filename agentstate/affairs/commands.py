"""What the commands about subjects have in common: how an operator names a tenant and a subject."""

from __future__ import annotations

from uuid import UUID

from django.core.management.base import CommandError

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.services import subjects


def named_tenant(slug: str) -> Tenant:
    found = Tenant.objects.filter(slug=slug).first()
    if found is None:
        raise CommandError(f"There is no tenant {slug}.")
    return found


def named_subject(tenant: Tenant, text: str) -> UUID:
    """By external id, or by public id: one that is erased already has no row. Raises: NotFound."""
    with tenant_scope(tenant.id):
        try:
            return parse_id("subject", text)
        except NotFound:
            found = subjects.by_external_id(text)
    if found is None:
        raise NotFound(f"There is no subject {text}.")
    return found
