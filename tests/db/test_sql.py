"""The raw cursor: inside the transaction, bound on the server, streaming in bounded memory."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from celery.fixups.django import DjangoWorkerFixup
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, connection, transaction

from agentstate.celery import app
from agentstate.db import sql
from agentstate.tenants.models import Tenant

pytestmark = pytest.mark.django_db


def test_rows_take_part_in_the_transaction() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        sql.execute(
            "INSERT INTO tenants_tenant (id, slug, name, colour, production, created, audit_head, audit_seq)"
            " VALUES (gen_random_uuid(), 'x', 'X', '', false, now(), '', 0)"
        )
        assert Tenant.objects.filter(slug="x").exists()
        raise ZeroDivisionError
    assert sql.rows("SELECT slug FROM tenants_tenant WHERE slug = %s", ["x"]) == []


def test_row_gives_the_first_row_or_none() -> None:
    assert sql.row("SELECT %s::int + 1, %s::text", [1, "a"]) == (2, "a")
    assert sql.row("SELECT 1 WHERE false") is None


def test_errors_are_djangos(tenant: Tenant) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        sql.execute("UPDATE tenants_tenant SET name = NULL WHERE id = %s", [tenant.id])
    with pytest.raises(DatabaseError), transaction.atomic():
        sql.rows("SELECT nonsense")


def test_a_table_of_tenants_raises_outside_a_scope() -> None:
    with pytest.raises(DatabaseError, match="no tenant scope"), transaction.atomic():
        sql.rows("SELECT 1 FROM tenants_apikey")


def test_stream_reads_more_than_a_batch_and_several_at_once() -> None:
    numbers = sql.stream("SELECT generate_series(1, %s::int)", [5000], batch_rows=100)
    again = sql.stream("SELECT generate_series(1, 5000)", batch_rows=1000)
    assert [pair for pair in zip(numbers, again, strict=True) if pair[0] != pair[1]] == []
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors WHERE name LIKE 'agentstate_stream%%'", [])
        assert cursor.fetchone()[0] == 0


def test_watched_counts_one_entry_a_round_trip() -> None:
    sql.row("SELECT 0")
    with sql.watched() as statements:
        sql.row("SELECT 1")
        sql.rows("SELECT 2")
    sql.row("SELECT 3")
    assert statements == ["SELECT 1", "SELECT 2"]


SUM = sql.Call("test_sum", "SELECT ($1::int + (coalesce($2::int[], '{10}'))[1])::text", binary=(2,))


def test_a_call_takes_part_in_the_transaction_and_its_errors_are_djangos() -> None:
    assert (SUM([b"1", sql.integers([2, 3])]), SUM([b"1", None])) == (b"3", b"11")
    with pytest.raises(DataError), transaction.atomic():
        SUM([b"one", None])
    with pytest.raises(DatabaseError, match="current transaction is aborted"), transaction.atomic():
        with contextlib.suppress(DataError):
            SUM([b"one", None])
        SUM([b"1", None])
    assert SUM([b"1", None]) == b"11"


@pytest.mark.parametrize(
    ("items", "width", "expected"),
    [([], 0, "{}"), ([], 2, "{}"), ([b"a", None], 0, "{a,NULL}"), ([b"a", b"", None, b"d"], 2, '{{a,""},{NULL,d}}')],
)
def test_arrays_in_binary(items: list[bytes | None], width: int, expected: str) -> None:
    shown = sql.Call("test_shown", "SELECT ($1::text[])::text", binary=(1,))
    assert shown([sql.array(items, of=sql.TEXT, width=width)]) == expected.encode()


def roll_back() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        sql.row("SELECT 1")
        raise ZeroDivisionError


def roll_back_a_part() -> None:
    with transaction.atomic():
        roll_back()


def crowd_out() -> None:
    """psycopg closes its oldest prepared statement only with the statement after the next."""
    connection.connection.prepared_max = 1
    sql.together(("SELECT 1", ()), ("SELECT 2", ()), ("SELECT 3", ()))


def deallocate() -> None:
    connection.connection.execute("DEALLOCATE ALL")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lose", [roll_back, roll_back_a_part, crowd_out, deallocate])
def test_a_call_never_asks_for_a_plan_that_psycopg_threw_away(
    lose: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server says that it is not there; a pooler ends the connection."""
    connection.close()  # what a test before has left prepared
    monkeypatch.setattr(sql, "_NOT_PREPARED", b"")
    try:
        for _ in range(3):
            assert SUM([b"1", None]) == b"11"
            lose()
        assert SUM([b"1", None]) == b"11"
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_call_is_prepared_again_when_somebody_else_threw_it_away() -> None:
    assert SUM([b"1", None]) == b"11"
    connection.connection.pgconn.exec_(b"DEALLOCATE ALL")
    assert SUM([b"1", None]) == b"11"


def _in_transaction() -> None:
    with transaction.atomic():
        sql.first("SELECT 1")


@pytest.mark.parametrize(
    "ask", [partial(sql.Call("gone", "SELECT $1::text"), [b"a"]), partial(sql.rows, "SELECT 1"), _in_transaction]
)
def test_a_server_that_is_gone_without_a_word_is_a_lost_connection(ask: Callable[[], Any]) -> None:
    def act() -> OperationalError:
        connection.ensure_connection()
        assert connection.connection is not None
        with socket.socket(fileno=os.dup(connection.connection.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)
        try:
            with pytest.raises(OperationalError) as lost:
                ask()
        finally:
            connection.close()
        return lost.value

    with ThreadPoolExecutor(1) as elsewhere:
        assert sql.is_lost(elsewhere.submit(act).result(30))


def test_a_connection_is_kept_until_its_server_is_gone() -> None:
    """What a task finds: see celery_signals."""

    def act() -> tuple[int, int, bool]:
        try:
            first = _backend()
            sql.drop_dead()
            kept = _backend()
            with socket.socket(fileno=os.dup(connection.connection.pgconn.socket)) as line:
                line.shutdown(socket.SHUT_RDWR)
            sql.drop_dead()
            return first, kept, _backend() not in (first, kept)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as elsewhere:
        first, kept, is_fresh = elsewhere.submit(act).result(30)
    assert first == kept and is_fresh


def _backend() -> int:
    return int(sql.rows("SELECT pg_backend_pid()")[0][0])


def test_celery_leaves_the_connection_to_its_children() -> None:
    fixup = DjangoWorkerFixup(app)
    fixup.close_database()
    before = _backend()
    fixup.close_database()
    assert _backend() == before and fixup.db_reuse_max == app.conf.worker_max_tasks_per_child
