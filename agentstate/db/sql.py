"""SQL by hand on Django's own connection: a psycopg cursor, bound on the server, with prepared plans.

Django's cursor binds on the client, which costs a fifth more per turn. This one bypasses execute_wrappers and query
counters, hence `watched()`. Inside `atomic()` it takes part in the transaction; outside each statement is its own.
jsonb comes back as text (Django takes psycopg's loader away): orjson reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any

import psycopg
from django.db import connection

Row = tuple[Any, ...]
_streams = count()  # names of server-side cursors: several may be open in one transaction
_seen: ContextVar[list[str] | None] = ContextVar("agentstate_sql_seen", default=None)


def rows(statement: str, args: Sequence[Any] | Mapping[str, Any] = (), *, binary: bool = False) -> list[Row]:
    """All rows of a query. `binary` as in row(). Raises: django.db errors, as the ORM does."""
    with connection.wrap_database_errors, _cursor() as cursor:
        return _execute(cursor, statement, args, binary=binary).fetchall()


def row(statement: str, args: Sequence[Any] | Mapping[str, Any] = (), *, binary: bool = False) -> Row | None:
    """The first row, or None. `binary`: bytes come as they are, not as twice as many digits."""
    with connection.wrap_database_errors, _cursor() as cursor:
        return _execute(cursor, statement, args, binary=binary).fetchone()


def execute(statement: str, args: Sequence[Any] | Mapping[str, Any] = ()) -> int:
    """Run a statement that returns no rows; how many it touched."""
    with connection.wrap_database_errors, _cursor() as cursor:
        return _execute(cursor, statement, args).rowcount


def stream(statement: str, args: Sequence[Any] = (), *, batch_rows: int = 2000) -> Iterator[Row]:
    """Rows one after the other in bounded memory, by a server-side cursor. Asserts that it is inside a transaction."""
    assert connection.in_atomic_block, "a server-side cursor lives in a transaction"
    connection.ensure_connection()
    name = f"agentstate_stream_{next(_streams)}"
    with connection.wrap_database_errors, psycopg.ServerCursor(connection.connection, name) as cursor:
        cursor.itersize = batch_rows
        cursor.execute(statement.encode(), args)
        yield from cursor


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collects the statements sent through this module: one entry is one round trip."""
    statements: list[str] = []
    token = _seen.set(statements)
    try:
        yield statements
    finally:
        _seen.reset(token)


def _cursor() -> psycopg.Cursor[Row]:
    connection.ensure_connection()
    return psycopg.Cursor(connection.connection)


def _execute(
    cursor: psycopg.Cursor[Row], statement: str, args: Sequence[Any] | Mapping[str, Any], *, binary: bool = False
) -> psycopg.Cursor[Row]:
    seen = _seen.get()
    if seen is not None:
        seen.append(statement)
    # Bytes: psycopg's type of a statement refuses a computed str, and ours is composed of constants and quoted names.
    return cursor.execute(statement.encode(), args, prepare=True, binary=binary)
