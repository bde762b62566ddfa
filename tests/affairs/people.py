"""Tenants and people for fixtures that outlive one test."""

from __future__ import annotations

from agentstate.tenants import keyring, members
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Membership, Tenant, User
from agentstate.tenants.scope import tenant_scope


def make_tenant(slug: str, name: str) -> Tenant:
    made = Tenant.objects.create(slug=slug, name=name)
    keyring.ensure(made.id)
    return made


def make_actor(name: str, role: str, tenant: Tenant) -> Actor:
    user = User.objects.create_user(f"{name}@example.test", name=name.title())
    with tenant_scope(tenant.id):
        Membership.objects.create(user=user, role=role)
    return members.membership(user, tenant)
