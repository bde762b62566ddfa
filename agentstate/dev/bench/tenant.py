"""The one tenant of the bench and a key for its HTTP callers."""

from __future__ import annotations

from agentstate.tenants import api_keys, keyring
from agentstate.tenants.actors import VERBS, system
from agentstate.tenants.models import Tenant


def found() -> str:
    """Make the tenant; the token of a key that may do everything."""
    tenant = Tenant.objects.create(slug="bench", name="Bench")
    keyring.ensure(tenant.id)
    token, _ = api_keys.issue(name="bench", scopes=VERBS, actor=system("bench", tenant_id=tenant.id))
    return token
