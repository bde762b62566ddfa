"""Pins keep a frame, whatever compaction thinks of it: a fork holds the frame that it started from."""

from __future__ import annotations

from uuid import UUID

from agentstate.core.errors import NotFound
from agentstate.core.ids import public_id
from agentstate.db import locks, sql

LOCK = "checkpoints.run"  # also in checkpoints_put_blob


def pin(run_id: UUID, n: int, *, holder: UUID) -> None:
    """Keep frame `n` of the run until `holder` releases it. Idempotent.

    Raises: NotFound when the frame is gone already. Locks: the run's compaction, until the transaction ends.
    """
    locks.hold(LOCK, run_id)
    if not sql.row("SELECT 1 FROM checkpoints_frame WHERE run_id = %s AND n = %s", [run_id, n]):
        raise NotFound(f"Frame {n} of {public_id('run', run_id)} is no longer kept.")
    sql.execute(
        "INSERT INTO checkpoints_pin (run_id, n, holder) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [run_id, n, holder],
    )


def release(holder: UUID) -> int:
    """Let go of everything `holder` pinned; how many frames that were."""
    return sql.execute("DELETE FROM checkpoints_pin WHERE holder = %s", [holder])


def pinned(run_id: UUID) -> frozenset[int]:
    """Numbers of the run's pinned frames."""
    return frozenset(n for (n,) in sql.rows("SELECT n FROM checkpoints_pin WHERE run_id = %s", [run_id]))
