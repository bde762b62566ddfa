"""The stores under the suite: in memory, on the service's database, and over REST to a real web process."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.conformance.turns import Bench
from tests.conformance.worlds import Factory, MemoryWorld, World

STORES = ("memory", "local", "http")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Another process sees committed rows only; the fixture is asked for too late to say so itself."""
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("store_factory") == "http":
            item.add_marker(pytest.mark.django_db(transaction=True, databases=["default", "owner"]), append=False)


@pytest.fixture(params=STORES)
def store_factory(request: pytest.FixtureRequest) -> Factory:
    if request.param == "memory":
        return cast(Factory, MemoryWorld)
    return request.getfixturevalue(f"{request.param}_factory")  # type: ignore[no-any-return]


@pytest.fixture
def local_factory(alice: Any) -> Factory:
    from tests.conformance import served

    return lambda: served.local(alice)


@pytest.fixture
def http_factory(committed_db: None, alice: Any, server: str) -> Factory:
    from agentstate.sdk.http import HttpStore
    from agentstate.tenants import actors, api_keys
    from agentstate.tenants.scope import tenant_scope
    from tests.conformance import served

    with tenant_scope(alice.tenant_id):
        token, _ = api_keys.issue(name="suite", scopes=sorted(actors.VERBS), actor=alice)
    return lambda: served.ServedWorld(alice, HttpStore(server, token))


@pytest.fixture
def world(store_factory: Factory) -> World:
    return store_factory()


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)
