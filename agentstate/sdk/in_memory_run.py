"""One run of a MemoryStore, and how a turn changes all of it or nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from agentstate.core import canonical
from agentstate.core.errors import TooLarge
from agentstate.core.limits import STATE_BYTES_MAX
from agentstate.sdk.judgement import Approval, Row
from agentstate.sdk.store import Budget, Control, Entry, Failure, StepFinish, StepRecord, Turn, TurnReply


@dataclass(slots=True)
class Run:
    """One run with everything that belongs to it."""

    id: str
    agent: str
    input: Any
    external_id: str = ""
    session: str = ""
    trace_id: str = ""
    tags: tuple[str, ...] = ()
    budget: Budget | None = None
    status: str = "queued"
    reason: str = "start"
    detail: str = ""
    fence: int = 0
    lease_until: float = 0.0
    due_at: float | None = None
    control: Control | None = None
    generation: int = 0
    base: Any = None
    state: Any = None
    rows: dict[str, Row] = field(default_factory=dict)  # of the open generation, by identity
    closed_rows: list[Row] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)  # all of them, in full
    window: list[Entry] = field(default_factory=list)  # in force
    noted: dict[str, int] = field(default_factory=dict)
    context_budget_tokens: int | None = None
    live_entries: list[Entry] = field(default_factory=list)
    seq: int = 0
    claims: int = 0
    idle_claims: int = 0  # without progress
    tokens: int = 0
    cost: float = 0.0
    created_at: float = 0.0
    output: Any = None
    failure: Failure | None = None
    failed_steps: tuple[int, ...] = ()
    fingerprint: dict[str, str] | None = None
    late: list[StepFinish] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    last: tuple[int, bytes, TurnReply] | None = None  # fence, the turn, its answer
    events: list[str] = field(default_factory=list)
    admitted_by: str = ""  # Idempotency-Key of the admission

    def all_rows(self) -> list[Row]:
        return [*self.closed_rows, *self.rows.values()]


@contextmanager
def atomic(run: Run, turn: Turn) -> Iterator[Run]:
    """All of a turn or nothing of it: what it may touch is put back in place."""
    named = {start.identity for start in turn.start}
    ended = {end.seq for end in turn.finish}
    rows = [row for row in run.rows.values() if row.identity in named or row.seq in ended]
    touched: list[Any] = [run, *rows, *(row.approval for row in rows if row.approval is not None)]
    before = [(thing, {name: _kept(getattr(thing, name)) for name in thing.__slots__}) for thing in touched]
    try:
        yield run
    except BaseException:
        for thing, values in before:
            for name, value in values.items():
                setattr(thing, name, value)
        raise


def _kept(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, (list, dict)) else value


def settled(value: Any) -> Any:
    return canonical.loads(canonical.dumps(value))


def checked_state(value: Any) -> Any:
    raw = canonical.dumps(value, where="/state")
    if len(raw) > STATE_BYTES_MAX:
        raise TooLarge(f"The state is {len(raw):,} bytes, at most {STATE_BYTES_MAX:,} are kept.", field="/state")
    return canonical.loads(raw)


def record_of(row: Row) -> StepRecord:
    record = row.record()
    object.__setattr__(record, "output", settled(record.output))
    return record
