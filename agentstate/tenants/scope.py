"""The scope: which tenant's rows this transaction may touch. Outside one, every tenant-owned table raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from agentstate.db import sql

_SET = "SELECT set_config('agentstate.tenant', %s, true)"


@contextmanager
def tenant_scope(tenant_id: UUID, *, using: str = "default", durable: bool = False) -> Iterator[None]:
    """A transaction that sees and writes the rows of this tenant, and of no other.

    Costs two round trips: open one per part of a request, not one per query, and none around rendering. `durable`
    as in transaction.atomic. Nested in the scope of the same tenant it is a savepoint. Raises: RuntimeError inside
    the scope of another tenant.
    """
    assert isinstance(tenant_id, UUID), "text would compare as another tenant"
    connection = connections[using]
    outer = _scope_of(connection)
    if outer not in (None, tenant_id):
        raise RuntimeError("tenant_scope inside the scope of another tenant")
    # An outer atomic (or a TestCase) would keep our transaction-local setting after the savepoint is released.
    outlived = connection.in_atomic_block and outer is None
    with transaction.atomic(using=using, durable=durable):
        if outer is None:
            sql.first(_set(str(tenant_id)), using=using)
        connection.tenant_id = tenant_id  # type: ignore[attr-defined]
        try:
            yield
        finally:
            connection.tenant_id = outer  # type: ignore[attr-defined]
        if outlived:  # after an exception the rollback to the savepoint has restored it already
            sql.first(_set(""), using=using)


def scope_of(tenant_id: UUID) -> tuple[str, list[Any]]:
    """The statement that opens a scope, for sql.together(): what is asked behind it sees this tenant's rows."""
    assert isinstance(tenant_id, UUID), "text would compare as another tenant"
    return _SET, [str(tenant_id)]


def current_tenant(*, using: str = "default") -> UUID:
    """The tenant of the open scope. Raises: RuntimeError outside one."""
    tenant_id = _scope_of(connections[using])
    if tenant_id is None:
        raise RuntimeError("no tenant scope: open tenant_scope(tenant_id) around this")
    return tenant_id


def in_scope(*, using: str = "default") -> bool:
    return _scope_of(connections[using]) is not None


def _scope_of(connection: BaseDatabaseWrapper) -> UUID | None:
    return getattr(connection, "tenant_id", None)


def _set(tenant: str) -> str:
    """A tenant's id, or none: nothing in it wants quoting."""
    return f"SELECT set_config('agentstate.tenant', '{tenant}', true)"
