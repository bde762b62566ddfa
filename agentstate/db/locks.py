"""Locks: rows in one fixed order, and named advisory locks for what is not one row. All end with the transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TypeVar

from django.db import OperationalError, connection, models

from agentstate.core.errors import LockTimeout
from agentstate.db import sql

# The one order in which rows are locked. Two transactions that follow it cannot wait for each other in a ring.
# Tenants are locked by administrative acts only and come first.
ORDER = (
    *("tenant", "membership", "apikey", "session", "run", "step", "approval", "effect"),
    *("subject", "proposal", "item", "artifact"),
)

AnyModel = TypeVar("AnyModel", bound=models.Model)


def lock_in_order(*rows: AnyModel) -> list[AnyModel]:
    """Lock these rows, each read afresh, in the fixed order; answers in the order of the arguments.

    Raises: LockTimeout, Model.DoesNotExist. Locks: FOR NO KEY UPDATE, so that foreign keys to them are not held up.
    """
    assert connection.in_atomic_block, "a row lock outside a transaction is gone before it is of use"
    fresh = {}
    with translated():
        for row in sorted(rows, key=_rank):
            every = type(row)._default_manager.select_for_update(no_key=True)
            fresh[type(row), row.pk] = every.get(pk=row.pk)
    return [fresh[type(row), row.pk] for row in rows]


def hold(name: str, *parts: object) -> None:
    """Take the named lock for this transaction, waiting for it. Raises: LockTimeout."""
    assert connection.in_atomic_block, "a transaction's lock outside a transaction is gone at once"
    with translated():
        sql.row("SELECT pg_advisory_xact_lock(%s)", [number(name, *parts)])


def try_hold(name: str, *parts: object) -> bool:
    """Take the named lock for this transaction if it is free."""
    assert connection.in_atomic_block, "a transaction's lock outside a transaction is gone at once"
    found = sql.row("SELECT pg_try_advisory_xact_lock(%s)", [number(name, *parts)])
    return bool(found and found[0])


@contextmanager
def lock_timeout(wait_s: float) -> Iterator[None]:
    """Statements in this block wait at most so long for a lock. Raises: LockTimeout, also for a deadlock."""
    assert connection.in_atomic_block, "SET LOCAL does nothing outside a transaction"
    before = sql.row("SELECT current_setting('lock_timeout')")
    _set_lock_timeout(f"{max(1, int(wait_s * 1000))}ms")
    with translated():
        yield
    _set_lock_timeout(before[0] if before else "0")  # after an error the rollback restores it


@contextmanager
def translated() -> Iterator[None]:
    """Turn the database's "could not get the lock" into LockTimeout."""
    try:
        yield
    except OperationalError as error:
        if not sql.is_held(error):
            raise
        raise LockTimeout(retry_after_s=1) from error


def number(name: str, *parts: object) -> int:
    """The signed 64 bit number of a named lock."""
    text = "\0".join([name, *map(str, parts)])
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big", signed=True)


def _rank(row: models.Model) -> tuple[int, str, str]:
    name = row._meta.model_name or ""
    return ORDER.index(name) if name in ORDER else len(ORDER), name, str(row.pk)


def _set_lock_timeout(value: str) -> None:
    sql.row("SELECT set_config('lock_timeout', %s, true)", [value])
