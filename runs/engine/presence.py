"""A worker process's presence: a direct connection that holds its advisory lock and carries the heartbeats.

Postgres frees the lock within milliseconds after the process is killed. The connection must not go through a
transaction pooler: the lock would stay with the pool.
"""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import psycopg
from django.db import connections

from agentstate.core.errors import Fenced, Unavailable
from agentstate.core.ids import public_id
from agentstate.sdk.store import Renewal
from runs.services.workers import LOCK_CLASS

RENEW = "SELECT runs_renew(%s::uuid, %s::uuid, %s::bigint, %s::float8)"
_OPTIONS = "-c client_connection_check_interval=200 -c statement_timeout=5000"
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


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
        wrapper = connections["default"]
        wanted = {
            name: value
            for name, value in wrapper.get_connection_params().items()
            if name in {"dbname", "user", "password", "host", "port", "sslmode", "sslrootcert"}
        }
        connection = psycopg.connect(**wanted, autocommit=True, options=_OPTIONS, connect_timeout=5, **_KEEPALIVES)
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, self._number])
        return connection

    def _reopen(self) -> None:
        try:
            self._connection.close()
            self._connection = self._open()
        except psycopg.OperationalError:
            return  # the next heartbeat tries again
