"""How often memories were used: counts for lists, in one statement. Which runs: ledger.uses_of()."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from agentstate.db import sql

# Index: memory_injection_source.
COUNTS = """
select source_id, count(distinct run_id) from memory_injection
where source_id = any(%s) and run_id is not null group by source_id
"""
# The same index. An item that every call of a subject is given has many rows: the newest are enough to name runs.
USED = """
select (array_agg(run_id order by newest desc) filter (where run_id is not null))[1:200],
  count(run_id), coalesce(sum(calls), 0)::bigint, max(newest)
from (select run_id, max(at) as newest, count(distinct call_id) as calls from memory_injection
  where source_id = %s group by run_id) per_run
"""


def counts(source_ids: Sequence[UUID]) -> dict[UUID, int]:
    """In how many runs each source was used; those that never were are left out."""
    return dict(sql.rows(COUNTS, [list(source_ids)])) if source_ids else {}


@dataclass(frozen=True, slots=True)
class Used:
    """Where a memory was used: the runs it went into, the newest first, and how often in all."""

    run_ids: list[UUID] = field(default_factory=list)  # at most RUNS_MAX
    runs: int = 0
    calls: int = 0
    last_at: datetime | None = None


def of(source_id: UUID) -> Used:
    """One read."""
    found = sql.row(USED, [source_id])
    assert found is not None
    run_ids, runs, calls, last_at = found
    return Used(run_ids or [], runs, calls, last_at)
