"""What a run leaves behind: checkpoints and the state in them, its acts in the audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agentstate.audit import history, notes
from agentstate.core.errors import NotFound
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from checkpoints import reading

FRAMES_SHOWN = 60
ACTS_SHOWN = 200

# The primary key (run_id, n), newest first.
FRAMES = f"""
select n, generation, step_seq, kind, base_n is null, plain_bytes, octet_length(body), created
from checkpoints_frame where run_id = %s order by n desc limit {FRAMES_SHOWN}
"""


@dataclass(frozen=True, slots=True)
class FrameRow:
    n: int
    generation: int
    step_seq: int | None
    kind: str
    keyframe: bool
    plain_bytes: int
    body_bytes: int
    created: datetime


@dataclass(frozen=True, slots=True)
class StateAt:
    frame: FrameRow
    state: Any
    before: Any  # the state in the frame before; None when that one is gone or there is none
    pending: list[str]
    has_before: bool


@dataclass(frozen=True, slots=True)
class Act:
    seq: int
    at: datetime
    action: str
    from_status: str
    to_status: str
    actor_kind: str
    actor_name: str
    reason: str
    detail: dict[str, Any]


def frames(run_id: UUID) -> list[FrameRow]:
    return [FrameRow(*row) for row in sql.rows(FRAMES, [run_id])]


def state_at(run_id: UUID, n: int) -> StateAt:
    """Raises: NotFound when the frame was compacted away, Corrupt when it does not verify."""
    before, found = _pair(run_id, n)
    head = found.head
    frame = FrameRow(
        head.n,
        head.generation,
        head.step_seq,
        head.kind,
        head.base_n is None,
        head.plain_bytes,
        head.body_bytes,
        head.created,
    )
    old = before.doc.get("state") if before else None
    return StateAt(frame, found.doc.get("state"), old, list(found.doc.get("pending", [])), before is not None)


def states_around(run_id: UUID, n: int) -> tuple[Any, Any] | None:
    """The agent's state before and after frame n; None when it is not kept. Raises: Corrupt."""
    try:
        before, after = _pair(run_id, n)
    except NotFound:
        return None
    return (before.doc.get("state") if before else None), after.doc.get("state")


def _pair(run_id: UUID, n: int) -> tuple[reading.Loaded | None, reading.Loaded]:
    """Frame n and the kept one just before it, in one walk. Raises: NotFound, Corrupt."""
    before = None
    for found in reading.history(current_tenant(), run_id, after=max(n - 2, 0)):
        if found.n >= n:
            break
        before = found
    else:
        raise NotFound(f"Checkpoint {n} is not kept any more.")
    if found.n != n:
        raise NotFound(f"Checkpoint {n} is not kept any more.")
    return (before if before and before.n == n - 1 else None), found


def acts(run_id: UUID) -> list[Act]:
    """Everything done to the run, newest first, with the reasons that people gave."""
    entries = list(history.of("run", run_id).order_by("-object_seq")[:ACTS_SHOWN])
    reasons = notes.read(entries)
    return [
        Act(
            entry.object_seq,
            entry.at,
            entry.action,
            entry.from_status,
            entry.to_status,
            entry.actor_kind,
            entry.actor_name,
            reasons.get(entry.note_id, "") if entry.note_id else "",
            entry.detail or {},
        )
        for entry in entries
    ]
