"""Rows the tests of this folder start from."""

from __future__ import annotations

from agentstate.tenants import members
from agentstate.tenants.actors import Actor, system
from agentstate.tenants.models import Tenant, User


def make_tenant(slug: str) -> Tenant:
    """A tenant whose admin is admin@<slug>."""
    admin = make_user(f"admin@{slug}.example")
    return members.found(slug=slug, name=slug.title(), admin=admin)


def make_user(email: str) -> User:
    return User.objects.create_user(email, name=email.partition("@")[0].title())


def admin_of(tenant: Tenant) -> Actor:
    return members.membership(User.objects.get(email=f"admin@{tenant.slug}.example"), tenant)


def ourselves(tenant: Tenant) -> Actor:
    return system("test", tenant_id=tenant.pk)
