"""The trace of a run by number: append-only, so a reader that remembers the last number misses nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from checkpoints import keys
from runs import sealing

# The partition's primary key (month, run_id, seq).
AFTER = """
select e.seq, e.kind, e.detail::text, e.body, e.tokens, e.at from runs_event e
where e.month = %s and e.run_id = %s and e.seq > %s order by e.seq limit %s
"""


@dataclass(frozen=True, slots=True)
class EventRow:
    seq: int
    kind: str
    detail: dict[str, Any]
    entry: dict[str, Any] | None  # the scratchpad entry, opened
    tokens: int
    at: datetime


def after(run_id: UUID, *, created_at: datetime, seq: int, rows_max: int) -> list[EventRow]:
    """Events with a greater number, oldest first. `created_at` is the run's. Raises: Corrupt."""
    found = sql.rows(AFTER, [created_at.date().replace(day=1), run_id, seq, rows_max])
    key = keys.existing(run_id) if any(body is not None for _, _, _, body, _, _ in found) else b""
    return [_opened(run_id, key, row) for row in found]


def _opened(run_id: UUID, key: bytes, row: tuple[Any, ...]) -> EventRow:
    seq, kind, detail, body, tokens, at = row
    known = orjson.loads(detail) if detail else {}
    entry = None
    if kind == "entry" and body is not None:
        entry = sealing.open_entry(key, current_tenant(), run_id, known["n"], body)
    return EventRow(seq, kind, known, entry, tokens, at)
