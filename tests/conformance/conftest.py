"""The stores under the suite. Another one joins by its name in STORES and its factory in `store_factory`."""

from __future__ import annotations

from typing import cast

import pytest

from tests.conformance.turns import Bench
from tests.conformance.worlds import Factory, MemoryWorld, World

STORES = ("memory",)


@pytest.fixture(params=STORES)
def store_factory(request: pytest.FixtureRequest) -> Factory:
    return cast(Factory, {"memory": MemoryWorld}[request.param])


@pytest.fixture
def world(store_factory: Factory) -> World:
    return store_factory()


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)
