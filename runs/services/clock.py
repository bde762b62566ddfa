"""The database's time: leases, timers and expiries compare it, never a worker's clock."""

from __future__ import annotations

from datetime import datetime

from agentstate.db import sql


def database_now() -> datetime:
    found = sql.row("SELECT clock_timestamp()")
    assert found is not None
    now: datetime = found[0]
    return now
