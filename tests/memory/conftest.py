"""A subject of Acme to remember things about, and actors who do. Alice and the others stand in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.models import Subject
from memory.services import subjects


@pytest.fixture
def agent(tenant: Tenant) -> Actor:
    """A worker that may write memory."""
    return Actor("worker", "desk-1", "desk-1", tenant.id, scopes=frozenset({"runs.work", "memory.write"}))


@pytest.fixture
def upkeep_actor(tenant: Tenant) -> Actor:
    return actors.system("upkeep", tenant_id=tenant.id)


@pytest.fixture
def new_subject(tenant: Tenant) -> Callable[[str], Subject]:
    """Makes a subject of Acme with this external id (a fresh one when empty), in a scope of its own."""

    def make(external_id: str = "") -> Subject:
        with tenant_scope(tenant.id):
            return subjects.resolve(external_id=external_id or f"customer-{uuid4().hex[:8]}")

    return make


@pytest.fixture
def subject(new_subject: Callable[[str], Subject]) -> Subject:
    """Ada, a customer of Acme."""
    return new_subject("ada")
