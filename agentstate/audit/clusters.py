"""Which Postgres cluster counts our transactions. After a restore into another one its numbers start lower."""

from __future__ import annotations

from django.db import transaction

from agentstate.db import locks, sql

LOCK_WAIT_S = 2.0
SEEN = "SELECT c.epoch, c.system_id = s.system_identifier FROM audit_cluster c, pg_control_system() s"
ENTER = """
INSERT INTO audit_cluster (id, epoch, system_id, since)
SELECT 1, 1, s.system_identifier, statement_timestamp() FROM pg_control_system() s
ON CONFLICT (id) DO UPDATE SET epoch = audit_cluster.epoch + 1, system_id = excluded.system_id, since = excluded.since
WHERE audit_cluster.system_id <> excluded.system_id
"""


def observe() -> int:
    """The epoch of this cluster; a cluster seen for the first time opens the next one.

    Raises: LockTimeout while a transaction that wrote under the former epoch is open. Locks: the table, so that
    whoever read the former epoch has ended and whoever comes later reads the new one. Idempotent.
    """
    if is_known():
        return current()
    with transaction.atomic():
        if sql.row(SEEN):  # before the first seal everybody writes epoch 1 anyway: nobody to wait for
            with locks.lock_timeout(LOCK_WAIT_S):
                sql.execute("LOCK TABLE audit_cluster IN ACCESS EXCLUSIVE MODE")
        sql.execute(ENTER)
    return current()


def current() -> int:
    """The epoch that entries are written under now."""
    seen = sql.row(SEEN)
    return int(seen[0]) if seen else 1


def is_known() -> bool:
    """Whether this cluster opened the current epoch; False between a restore and the next seal."""
    seen = sql.row(SEEN)
    return bool(seen and seen[1])
