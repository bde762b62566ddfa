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
from struct import Struct
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections
from psycopg import pq
from psycopg.adapt import Dumper

Row = tuple[Any, ...]
Args = Sequence[Any] | Mapping[str, Any]
Query = tuple[str, Args]  # a statement and its arguments
_streams = count()  # names of server-side cursors: several may be open in one transaction
_seen: ContextVar[list[str] | None] = ContextVar("agentstate_sql_seen", default=None)


class Bodies(list[bytes]):
    """An argument `%b::bytea[]`, packed at once: psycopg looks at each element of a list several times."""


class _BodiesDumper(Dumper):
    oid = 1001  # bytea[]
    format = pq.Format.BINARY
    _LENGTH = Struct("!i")
    _HEAD = Struct("!iiIii")  # dimensions, has nulls, element type, length, first index

    def dump(self, obj: Bodies) -> bytes:
        parts = [self._HEAD.pack(1, 0, 17, len(obj), 1)]
        for body in obj:
            parts += (self._LENGTH.pack(len(body)), body)
        return b"".join(parts)


psycopg.adapters.register_dumper(Bodies, _BodiesDumper)


def rows(statement: str, args: Args = (), *, binary: bool = False) -> list[Row]:
    """All rows of a query. `binary` as in row(). Raises: django.db errors, as the ORM does."""
    wrapper = _connected()
    with wrapper.wrap_database_errors:
        return _execute(wrapper, statement, args, binary=binary).fetchall()


def row(statement: str, args: Args = (), *, binary: bool = False) -> Row | None:
    """The first row, or None. `binary`: bytes come as they are, not as twice as many digits."""
    wrapper = _connected()
    with wrapper.wrap_database_errors:
        return _execute(wrapper, statement, args, binary=binary).fetchone()


def execute(statement: str, args: Args = ()) -> int:
    """Run a statement that returns no rows; how many it touched."""
    wrapper = _connected()
    with wrapper.wrap_database_errors:
        return _execute(wrapper, statement, args).rowcount


def together(*asked: Query, binary: bool = False) -> list[list[Row]]:
    """The rows of several statements in one round trip and one transaction: their own, or the open one.

    A statement without rows gives none. `binary` as in row(). Raises: the first one's error; then none of them has
    happened.
    """
    wrapper = _connected()
    with wrapper.wrap_database_errors:
        _note("; ".join(statement for statement, _ in asked))
        with wrapper.connection.pipeline():
            sent = [_send(wrapper, statement, args, binary=binary) for statement, args in asked]
        return [cursor.fetchall() if cursor.description else [] for cursor in sent]


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


def _connected() -> Any:
    """Django's connection of this thread itself: each attribute of the proxy costs as much as a look into a dict."""
    wrapper = connections[DEFAULT_DB_ALIAS]
    if wrapper.connection is None:
        wrapper.ensure_connection()
    return wrapper


def _execute(wrapper: Any, statement: str, args: Args, *, binary: bool = False) -> psycopg.Cursor[Row]:
    _note(statement)
    return _send(wrapper, statement, args, binary=binary)


def _send(wrapper: Any, statement: str, args: Args, *, binary: bool = False) -> psycopg.Cursor[Row]:
    cursor: psycopg.Cursor[Row] = psycopg.Cursor(wrapper.connection)
    # Bytes: psycopg's type of a statement refuses a computed str, and ours is composed of constants and quoted names.
    return cursor.execute(statement.encode(), args, prepare=True, binary=binary)


def _note(statement: str) -> None:
    seen = _seen.get()
    if seen is not None:
        seen.append(statement)
