"""Something with a status to act on, and the hand of somebody who may do anything to the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from agentstate.tenants.models import Tenant
    from runs.models import Run

type_new_run = "Callable[[], Run]"


@pytest.fixture
def new_run(tenant: Tenant) -> Callable[[], Run]:
    """Makes a queued run of the tenant, in a scope of its own."""
    from agentstate.core.clock import now
    from agentstate.tenants.scope import tenant_scope
    from runs.models import Run

    def make() -> Run:
        with tenant_scope(tenant.id):
            return Run.objects.create(
                agent="cleaner",
                trace_id="0" * 32,
                started_by_kind="user",
                started_by_id="alice",
                started_by_name="Alice",
                input=b"",
                created_at=now(),
            )

    return make


@pytest.fixture
def sabotage(settings: Any) -> Callable[..., int]:
    """Runs SQL as the superuser with triggers and policies off; how many rows it touched."""
    from agentstate.dev.testing import superuser_url

    def run(statement: str, *args: Any) -> int:
        with psycopg.connect(superuser_url(settings.DATABASES["default"]["NAME"]), autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            return connection.execute(statement.encode(), args).rowcount

    return run
