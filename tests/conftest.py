"""The people of the tests, and fixtures of pytest-django that must be ours: those of a -p plugin lose to it.

Alice, Bob, Olga and Victor share `tenant`; Charlie is the admin of `other_tenant` and must get nothing of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from agentstate.dev.testing import django_db_setup
from tests.serving import server

if TYPE_CHECKING:
    from agentstate.tenants.actors import Actor
    from agentstate.tenants.models import Tenant, User

__all__ = ["django_db_setup", "server"]


@pytest.fixture
def tenant(db: None) -> Tenant:
    return _tenant("acme", "Acme")


@pytest.fixture
def other_tenant(db: None) -> Tenant:
    return _tenant("globex", "Globex")


@pytest.fixture
def scope(tenant: Tenant) -> Iterator[None]:
    """The test's body runs inside tenant_scope(tenant.id)."""
    from agentstate.tenants.scope import tenant_scope

    with tenant_scope(tenant.id):
        yield


@pytest.fixture
def alice_user(tenant: Tenant) -> User:
    return _member("alice", "admin", tenant)


@pytest.fixture
def bob_user(tenant: Tenant) -> User:
    return _member("bob", "approver", tenant)


@pytest.fixture
def olga_user(tenant: Tenant) -> User:
    return _member("olga", "operator", tenant)


@pytest.fixture
def victor_user(tenant: Tenant) -> User:
    return _member("victor", "viewer", tenant)


@pytest.fixture
def charlie_user(other_tenant: Tenant) -> User:
    return _member("charlie", "admin", other_tenant)


@pytest.fixture
def alice(tenant: Tenant, alice_user: User) -> Actor:
    """Admin."""
    return _actor(alice_user, tenant)


@pytest.fixture
def bob(tenant: Tenant, bob_user: User) -> Actor:
    """Approver."""
    return _actor(bob_user, tenant)


@pytest.fixture
def olga(tenant: Tenant, olga_user: User) -> Actor:
    """Operator."""
    return _actor(olga_user, tenant)


@pytest.fixture
def victor(tenant: Tenant, victor_user: User) -> Actor:
    """Viewer."""
    return _actor(victor_user, tenant)


@pytest.fixture
def charlie(other_tenant: Tenant, charlie_user: User) -> Actor:
    """Admin of the other tenant."""
    return _actor(charlie_user, other_tenant)


def _tenant(slug: str, name: str) -> Tenant:
    from agentstate.tenants import keyring
    from agentstate.tenants.models import Tenant

    made = Tenant.objects.create(slug=slug, name=name)
    keyring.ensure(made.id)
    return made


def _member(name: str, role: str, tenant: Tenant) -> User:
    from agentstate.tenants.models import Membership, User
    from agentstate.tenants.scope import tenant_scope

    user = User.objects.create_user(f"{name}@example.test", name=name.title())  # tests sign in by force_login
    with tenant_scope(tenant.id):
        Membership.objects.create(user=user, role=role)
    return user


def _actor(user: User, tenant: Tenant) -> Actor:
    from agentstate.tenants import members

    return members.membership(user, tenant)
