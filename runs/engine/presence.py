"""A worker process's presence: a direct connection that holds its advisory lock and carries the heartbeats.

Postgres frees the lock within milliseconds after the process is killed. The connection must not go through a pooler:
the lock would stay with the pool, so none is taken there.
"""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import psycopg
from django.conf import settings

from agentstate.core.errors import Fenced, Unavailable
from agentstate.core.ids import public_id
from agentstate.db import pooling
from agentstate.sdk.store import Renewal
from runs.services.workers import LOCK_CLASS

RENEW = "SELECT runs_renew(%s::uuid, %s::uuid, %s::bigint, %s::float8)"
# Only for a session of ours: a pooler refuses them at the start, or leaves them to whoever comes next.
_SETTINGS = """SELECT set_config('client_connection_check_interval', '200ms', false),
  set_config('statement_timeout', '5s', false)"""
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def trouble() -> str:
    """One sentence about why no process could hold its lock here, or ""; also while the database is away."""
    try:
        return pooling.lock_trouble(settings.DATABASE_DIRECT_URL, database_url=settings.DATABASE_URL)
    except psycopg.Error:
        return ""


class Presence:
    """Open it after the fork; it closes with the process."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._lock = threading.Lock()
        self._connection = self._open()

    def renew(self, tenant_id: UUID, run_id: UUID, *, fence: int, lease_s: float) -> Renewal:
        """Raises: Fenced, Unavailable when the connection is lost (it is opened anew; the lease is not renewed)."""
        with self._lock:
            try:
                found = self._connection.execute(RENEW, [tenant_id, run_id, fence, lease_s], prepare=True).fetchone()
            except psycopg.OperationalError as error:
                self._reopen()
                raise Unavailable("The database did not take the heartbeat.") from error
        if found is None or found[0] is None:
            raise Fenced(f"The lease of {public_id('run', run_id)} under fence {fence} has ended.")
        return Renewal(lease_s=lease_s, control=found[0] or None)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        url = settings.DATABASE_DIRECT_URL
        connection = psycopg.connect(url, autocommit=True, connect_timeout=pooling.CONNECT_S_MAX, **_KEEPALIVES)
        try:
            if pooling.is_pooled(connection):
                raise psycopg.OperationalError("A pooler would keep this worker's lock: set DATABASE_DIRECT_URL.")
            connection.execute(_SETTINGS)
            connection.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, self._number])
        except BaseException:
            connection.close()
            raise
        return connection

    def _reopen(self) -> None:
        try:
            self._connection.close()
            self._connection = self._open()
        except psycopg.OperationalError:
            return  # the next heartbeat tries again
