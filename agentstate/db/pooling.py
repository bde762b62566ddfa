"""Poolers between us and Postgres: what may go through one, and what must not.

One that pools by transaction may carry everything but a worker's lock, if it keeps prepared plans. A server tells a
client the number of its process; a pooler makes that number up. So it is asked of the connection, not of a setting.
"""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
from psycopg import pq

Connection = psycopg.Connection[Any]
CONNECT_S_MAX = 5
POOLER_WITH_PLANS = "PgBouncer 1.22 or newer with max_prepared_statements above 0"
_GO_PAST = "set DATABASE_DIRECT_URL to the server itself"
_SHOWN = "SELECT EXISTS (SELECT 1 FROM pg_prepared_statements WHERE name = %s)"
_DATABASE = "SELECT pg_postmaster_start_time()::text, oid::text FROM pg_database WHERE datname = current_database()"


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands before the server, by session or by transaction."""
    found = connection.execute("SELECT pg_backend_pid()").fetchone()
    return found is None or found[0] != connection.info.backend_pid


def plans_trouble(name: str, url: str) -> str:
    """One sentence about a pooler that loses prepared plans, or "". Opens up to two connections. Raises: psycopg.Error.

    A pooler that keeps them gives them names of its own. One that pools by session need not: nobody else comes to
    that server while we are there.
    """
    plan = f"agentstate_{secrets.token_hex(8)}"
    with _connected(url) as connection:
        if not is_pooled(connection):
            return ""
        with connection.transaction():
            _prepare(connection, plan)
            is_kept = not _shows(connection, plan)
        if is_kept and _follows_deallocate(connection, plan):
            return ""
        if not is_kept and not _others_see(url, plan):
            return ""
    return f"{name} goes through a pooler that loses prepared plans; use {POOLER_WITH_PLANS}, or the server itself."


def lock_trouble(direct_url: str, *, database_url: str) -> str:
    """One sentence about why a worker's lock cannot be held there, or "". Raises: psycopg.Error."""
    name = direct_name(direct_url, database_url=database_url)
    with _connected(direct_url) as direct:
        if is_pooled(direct):
            return f"{name} goes through a pooler, which would keep a worker's lock after its death; {_GO_PAST}."
        if name == "DATABASE_URL":
            return ""
        with _connected(database_url) as pooled:
            is_same = direct.execute(_DATABASE).fetchone() == pooled.execute(_DATABASE).fetchone()
    return "" if is_same else f"{name} names another database than DATABASE_URL; {_GO_PAST}, and the same database."


def direct_name(direct_url: str, *, database_url: str) -> str:
    """Which variable names the way past a pooler."""
    return "DATABASE_URL" if direct_url == database_url else "DATABASE_DIRECT_URL"


def _connected(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S_MAX)


def _prepare(connection: Connection, plan: str) -> bool:
    return connection.pgconn.prepare(plan.encode(), b"SELECT 1").status == pq.ExecStatus.COMMAND_OK


def _shows(connection: Connection, plan: str) -> bool:
    found = connection.execute(_SHOWN, [plan], prepare=False).fetchone()
    return bool(found and found[0])


def _follows_deallocate(connection: Connection, plan: str) -> bool:
    """psycopg says so after each rollback. Who does not listen takes the same name for a second one."""
    connection.execute("DEALLOCATE ALL")
    return _prepare(connection, plan)


def _others_see(url: str, plan: str) -> bool:
    """Whether another client comes to the server at which we prepared it, while we are there; it is removed then."""
    with _connected(url) as other, other.transaction():
        seen = _shows(other, plan)
        if seen:
            other.execute(f"DEALLOCATE {plan}".encode())
    return seen
