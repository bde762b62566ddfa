"""SQL by hand on Django's own connection: a psycopg cursor, bound on the server, with prepared plans.

Django's cursor binds on the client, which costs a fifth more per turn. This one bypasses execute_wrappers and query
counters, hence `watched()`. Inside `atomic()` it takes part in the transaction; outside each statement is its own.
jsonb comes back as text (Django takes psycopg's loader away): orjson reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from select import select
from struct import Struct
from typing import Any, cast

import psycopg
from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connection, connections
from psycopg import pq

Row = tuple[Any, ...]
Args = Sequence[Any] | Mapping[str, Any]
Query = tuple[str, Args]  # a statement and its arguments
_HELD = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
_streams = count()  # names of server-side cursors: several may be open in one transaction
_seen: ContextVar[list[str] | None] = ContextVar("agentstate_sql_seen", default=None)


class Call:
    """One hot statement with one value as its answer, prepared once per connection and sent by libpq itself.

    psycopg's cursor costs several times the processor time of the call that it makes. Placeholders are $1, $2, ..;
    arguments are text, but binary where their number (from 1) stands in `binary`.
    """

    def __init__(self, name: str, statement: str, *, binary: Collection[int] = ()) -> None:
        self.statement, self._name, self._bytes = statement, name.encode(), statement.encode()
        self._formats = [int(n + 1 in binary) for n in range(statement.count("$"))]
        self._key = (self._bytes, ())  # in psycopg's list; its own statements of that text have types of arguments

    def __call__(self, args: Sequence[bytes | None]) -> bytes | None:
        """Raises: django.db errors, as the ORM does."""
        wrapper = _connected()
        with wrapper.wrap_database_errors:
            _note(self.statement)
            connection: psycopg.Connection[Any] = wrapper.connection
            send = self._prepared if connection.autocommit else self._in_transaction
            result = send(connection, args)
            if result.status != pq.ExecStatus.TUPLES_OK:
                raise _error(connection, result)
            return result.get_value(0, 0)

    def _prepared(self, connection: psycopg.Connection[Any], args: Sequence[bytes | None]) -> pq.abc.PGresult:
        """Its name stands in psycopg's list of what is prepared, which a rollback empties together with the server's.

        Of a name that is not prepared a server says so before it does anything, but a pooler ends the connection.
        """
        with connection.lock:
            listed = connection._prepared
            for _ in range(2):
                if self._key in listed._names:
                    listed._names.move_to_end(self._key)
                else:
                    connection.wait(listed.maintain_gen(connection))  # what waits to be closed may be this name
                    made = connection.pgconn.prepare(self._name, self._bytes)
                    if made.status != pq.ExecStatus.COMMAND_OK:
                        return made
                    listed._names[self._key] = self._name
                # psycopg's type of the arguments forgets that they may be null.
                result = connection.pgconn.exec_prepared(self._name, cast("Sequence[bytes]", args), self._formats)
                if result.error_field(pq.DiagnosticField.SQLSTATE) != _NOT_PREPARED:
                    break
                del listed._names[self._key]
        return result

    def _in_transaction(self, connection: psycopg.Connection[Any], args: Sequence[bytes | None]) -> pq.abc.PGresult:
        """Parsed anew: that a prepared one is missing would be the end of the transaction."""
        if connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            connection.execute("SELECT 1")  # psycopg begins a transaction with its own first statement
        with connection.lock:
            return connection.pgconn.exec_params(self._bytes, args, None, self._formats)


_NOT_PREPARED = b"26000"


def _error(connection: psycopg.Connection[Any], result: pq.abc.PGresult) -> psycopg.Error:
    if connection.pgconn.status != pq.ConnStatus.OK or not result.error_field(pq.DiagnosticField.SQLSTATE):
        return psycopg.OperationalError(connection.pgconn.get_error_message())  # the server said nothing: it is gone
    return psycopg.errors.error_from_result(result)


_INT = Struct("!i")
_ARRAY = Struct("!iii")  # dimensions, may hold nulls, element type
_DIMENSION = Struct("!ii")  # length, first index
_NULL = _INT.pack(-1)
BYTEA, TEXT = 17, 25  # types of elements


def array(items: Sequence[bytes | None], *, of: int, width: int = 0) -> bytes:
    """An array in binary; with a width it has two dimensions: rows of so many items, one behind the other."""
    if not items:
        return _ARRAY.pack(0, 0, of)
    parts = [_ARRAY.pack(2 if width else 1, 1, of), _DIMENSION.pack(len(items) // (width or 1), 1)]
    if width:
        parts.append(_DIMENSION.pack(width, 1))
    for item in items:
        if item is None:
            parts.append(_NULL)
        else:
            parts += (_INT.pack(len(item)), item)
    return b"".join(parts)


def integers(items: Sequence[int]) -> bytes:
    """An int[] in binary."""
    return array([_INT.pack(item) for item in items], of=23)


def first(statement: str, *, using: str = DEFAULT_DB_ALIAS) -> None:
    """Run a statement without arguments inside `atomic()`: in one round trip with its BEGIN if it is the first.

    psycopg sends the BEGIN by itself and waits for the answer. Part of how a transaction opens: `watched()` does not
    collect it. Raises: django.db errors, as the ORM does.
    """
    wrapper: Any = connections[using]
    wrapper.ensure_connection()
    with wrapper.wrap_database_errors:
        connection: psycopg.Connection[Any] = wrapper.connection
        with connection.lock:
            begun = connection.autocommit or connection.pgconn.transaction_status != pq.TransactionStatus.IDLE
            result = connection.pgconn.exec_((statement if begun else f"BEGIN; {statement}").encode())
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise _error(connection, result)


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
        return [cursor.fetchall() if _has_rows(cursor) else [] for cursor in sent]


def stream(statement: str, args: Sequence[Any] = (), *, batch_rows: int = 2000) -> Iterator[Row]:
    """Rows one after the other in bounded memory, by a server-side cursor. Asserts that it is inside a transaction."""
    assert connection.in_atomic_block, "a server-side cursor lives in a transaction"
    connection.ensure_connection()
    name = f"agentstate_stream_{next(_streams)}"
    with connection.wrap_database_errors, psycopg.ServerCursor(connection.connection, name) as cursor:
        cursor.itersize = batch_rows
        cursor.execute(statement.encode(), args)
        yield from cursor


def is_held(error: BaseException) -> bool:
    """Whether a lock did not come in time, or two waited for each other: nothing happened, the connection stands."""
    return getattr(error.__cause__, "sqlstate", None) in _HELD


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, and with it the open transaction: a server away, a session that it ended.

    Of a transaction that was idle for too long the server speaks as of an internal error. So does psycopg itself when
    two answers came: a server's last word, and what its pooler says of that.
    """
    cause, idle = error.__cause__, psycopg.errors.IdleInTransactionSessionTimeout
    is_gone = isinstance(error, OperationalError | InterfaceError) and not is_held(error)
    return is_gone or isinstance(cause, idle) or (isinstance(cause, psycopg.InternalError) and cause.sqlstate is None)


def drop_dead() -> None:
    """Close this thread's connection if its server is gone; the next use opens a new one. Costs no round trip.

    Nobody asked anything: a server that has something to say then says that it is going, or has gone.
    """
    wrapper: Any = connections[DEFAULT_DB_ALIAS]
    wrapper.close_if_unusable_or_obsolete()
    if wrapper.connection is not None and _has_news(wrapper.connection):
        wrapper.close()


def _has_news(connection: psycopg.Connection[Any]) -> bool:
    if connection.pgconn.status != pq.ConnStatus.OK:
        return True
    return bool(select([connection.pgconn.socket], [], [], 0)[0])


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


def _has_rows(cursor: psycopg.Cursor[Row]) -> bool:
    """Asking its description would make an object for each column."""
    return cursor.pgresult is not None and cursor.pgresult.status == pq.ExecStatus.TUPLES_OK


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
