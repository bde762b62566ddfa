"""Signed-in browsers without a browser, and the world of runs they look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from django.test import Client

from agentstate.tenants.actors import Actor
from tests.web.world import World

if TYPE_CHECKING:
    from agentstate.tenants.models import Tenant, User


@pytest.fixture
def world(alice: Actor) -> World:
    return World(alice)


@pytest.fixture
def base(tenant: Tenant) -> str:
    return f"/t/{tenant.slug}"


@pytest.fixture
def signed_in() -> Callable[[User], Client]:
    def sign_in(user: User) -> Client:
        client = Client(raise_request_exception=True)
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def alice_client(signed_in: Callable[[User], Client], alice_user: User) -> Client:
    return signed_in(alice_user)


@pytest.fixture
def bob_client(signed_in: Callable[[User], Client], bob_user: User) -> Client:
    return signed_in(bob_user)


@pytest.fixture
def victor_client(signed_in: Callable[[User], Client], victor_user: User) -> Client:
    return signed_in(victor_user)


@pytest.fixture
def charlie_client(signed_in: Callable[[User], Client], charlie_user: User) -> Client:
    return signed_in(charlie_user)
