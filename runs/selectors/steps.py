"""Steps of a run: windows by number, one step with its attempts, the overview of all.

seq counts 1, 2, 3, ... without holes, so a window is a range of the primary key: as fast at 100,000 as at 10.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from agentstate.core.clock import now
from agentstate.core.errors import Corrupt, NotFound
from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from checkpoints import keys
from runs import sealing

WINDOW = 200
KINDS = {
    "tool": "Tools",
    "model": "Models",
    "effect": "Effects only",
    "trouble": "Failed and in doubt",
    "ask": "Questions",
    "value": "Recorded values",
    "memory": "Memory",
    "summary": "Summaries",
}

ROW_COLUMNS = 23
ROW = """s.seq, s.parent_seq, s.identity, s.name, s.kind, s.effect, s.status, s.outcome, s.attempt, s.sent, s.source,
  s.error_type, s.model, s.tokens_in + s.tokens_out, s.cost, s.started_at, s.first_called_at, s.due_at, s.ended_at,
  s.fence, coalesce(s.key, ''), case when s.attempt > 1 then (select json_agg(json_build_array(a.attempt,
    a.started_at, a.ended_at, a.status, a.outcome) order by a.attempt)::text
    from runs_stepattempt a where a.run_id = s.run_id and a.seq = s.seq)
  end, (select p.requested_at from runs_approval p where p.run_id = s.run_id and p.step_seq = s.seq
    and p.kind in ('tool', 'ask') order by p.id limit 1)"""

DETAIL = f"""
select {ROW}, s.generation, s.retry, s.edit_version, s.authorised, encode(s.payload_hash, 'hex'),
  s.input, s.output, s.error, s.call_by, s.timeout_s, s.window_s, s.settles_within_s, s.has_probe, s.probes_unknown,
  s.end_frame, coalesce(w.name, ''),
  (select json_build_array(p.name, n.name)::text from (select 1) one
    left join runs_step p on p.run_id = s.run_id and p.seq = s.seq - 1
    left join runs_step n on n.run_id = s.run_id and n.seq = s.seq + 1),
  (select json_build_object('lookup_url', t.lookup_url, 'note', t.note, 'risk', t.risk, 'approve', t.approve)::text
    from runs_tool t join runs_run r on r.agent = t.agent where r.id = s.run_id and t.name = s.name),
  exists (select 1 from runs_latereply l where l.run_id = s.run_id and l.seq = s.seq),
  exists (select 1 from runs_approval a where a.run_id = s.run_id and a.step_seq = s.seq),
  case when w.dead_proof <> '' then w.dead_at end
from runs_step s left join runs_worker w on w.id = s.worker_id
where s.run_id = %s and s.seq = %s
"""

ATTEMPTS = """
select a.attempt, a.status, a.outcome, a.key, a.error, a.error_type, a.fence, coalesce(w.name, ''), a.source, a.sent,
  a.started_at, a.ended_at
from runs_stepattempt a left join runs_worker w on w.id = a.worker_id
where a.run_id = %s and a.seq = %s order by a.attempt limit 100
"""

LATE = """
select id, fence, outcome, body, after_settled, received_at from runs_latereply
where run_id = %s and seq = %s order by received_at limit 20
"""


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt as the time line draws it."""

    attempt: int
    started_at: datetime
    ended_at: datetime | None
    status: str
    outcome: str


@dataclass(frozen=True, slots=True)
class StepRow:
    seq: int
    parent_seq: int | None
    identity: str
    name: str
    kind: str
    effect: str
    status: str
    outcome: str
    attempt: int
    sent: int
    source: str
    error_type: str
    model: str
    tokens: int
    cost: float
    started_at: datetime
    first_called_at: datetime | None
    due_at: datetime | None
    ended_at: datetime | None
    fence: int
    key: str
    earlier: list[Try]
    asked_at: datetime | None  # a person was asked; started_at is when it ran after the answer

    @property
    def is_effect(self) -> bool:
        return self.effect in ("keyed", "probed", "destructive")

    @property
    def took(self) -> timedelta | None:
        if self.status == "waiting" or (self.kind == "value"):
            return None
        return (self.ended_at or now()) - self.started_at

    @property
    def waited(self) -> timedelta | None:
        """Between the question (or the attempt before) and the start; None when it started at once."""
        since = self.earlier[-1].ended_at if self.earlier else self.asked_at
        return self.started_at - since if since and since < self.started_at else None

    @property
    def trouble(self) -> bool:
        return self.status in ("failed", "in_doubt")


@dataclass(frozen=True, slots=True)
class Window:
    rows: list[StepRow]
    first: int  # number asked for
    total: int
    filtered: bool

    @property
    def start(self) -> int:
        return self.rows[0].seq if self.rows else 0

    @property
    def end(self) -> int:
        return self.rows[-1].seq if self.rows else 0

    @property
    def earlier(self) -> int | None:
        return max(self.start - WINDOW, 1) if self.rows and self.start > 1 and not self.filtered else None

    @property
    def later(self) -> int | None:
        more = self.end < self.total and (not self.filtered or len(self.rows) == WINDOW)
        return self.end + 1 if self.rows and more else None

    @property
    def at_end(self) -> bool:
        return not self.rows or self.end >= self.total


@dataclass(frozen=True, slots=True)
class Attempt:
    attempt: int
    status: str
    outcome: str
    key: str | None
    error: dict[str, Any] | None
    error_type: str
    fence: int
    worker: str
    source: str
    sent: int
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class LateAnswer:
    id: UUID
    fence: int
    outcome: str
    body: Any
    after_settled: bool
    received_at: datetime


@dataclass(frozen=True, slots=True)
class StepDetail:
    row: StepRow
    generation: int
    retry: int
    edit_version: int
    authorised: int
    payload_hash: str
    input: Any
    output: Any
    error: dict[str, Any] | None
    call_by: datetime | None
    timeout_s: float | None
    window_s: float | None
    settles_within_s: float | None
    has_probe: bool
    probes_unknown: int
    end_frame: int | None
    worker: str
    before_name: str
    after_name: str
    lookup_url: str
    note: str
    risk: str
    corrupt: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    late: list[LateAnswer] = field(default_factory=list)
    asked: bool = False  # there are questions about it
    worker_dead_at: datetime | None = None  # proven, not only silent

    @property
    def key(self) -> str:
        return self.row.key


def window(run_id: UUID, *, first: int, total: int, kind: str = "", name: str = "") -> Window:
    """Up to WINDOW steps from number `first` on; `kind` and `name` leave others out."""
    first = max(first, 1)
    conditions, args = ["s.run_id = %s", "s.seq >= %s"], [run_id, first]
    if kind in KINDS:
        conditions.append(_KIND_SQL[kind])
    if name:
        conditions.append("s.name ilike %s")
        args.append(f"%{_like(name[:NAME_CHARS_MAX])}%")
    found = sql.rows(
        f"select {ROW} from runs_step s where {' and '.join(conditions)} order by s.seq limit {WINDOW}", args
    )
    return Window([row_of(row) for row in found], first, total, filtered=bool(name or kind in KINDS))


_KIND_SQL = {
    "tool": "s.kind = 'tool'",
    "summary": "s.kind = 'summary'",
    "model": "s.kind = 'model'",
    "effect": "s.key is not null",
    "trouble": "s.status in ('failed', 'in_doubt')",
    "ask": "s.kind = 'ask'",
    "value": "s.kind = 'value'",
    "memory": "s.kind = 'memory'",
}


def changed(run_id: UUID, *, first: int, last: int) -> list[StepRow]:
    """The steps first..last again, for a page that shows them already."""
    statement = f"select {ROW} from runs_step s where s.run_id = %s and s.seq between %s and %s order by s.seq limit %s"
    return [row_of(row) for row in sql.rows(statement, [run_id, first, last, WINDOW])]


def row_of(row: tuple[Any, ...]) -> StepRow:
    *plain, earlier, asked_at = row
    tries = [
        Try(number, _at(start) or now(), _at(end), status, outcome)
        for number, start, end, status, outcome in orjson.loads(earlier or "[]")
    ]
    columns: list[Any] = [*plain, tries, asked_at]
    return StepRow(*columns)


def depths(rows: list[StepRow]) -> dict[int, int]:
    """How deep each step of a window is nested, at most 3 (the width of a phone)."""
    found: dict[int, int] = {}
    for row in rows:
        found[row.seq] = 0 if row.parent_seq is None else min(found.get(row.parent_seq, 0) + 1, 3)
    return found


def detail(run_id: UUID, seq: int) -> StepDetail:
    """Everything about one step, bodies opened; a body that does not verify is said in `corrupt`. Raises: NotFound."""
    found = sql.row(DETAIL, [run_id, seq])
    if found is None:
        raise NotFound("This run has no such step.")
    row = row_of(found[:ROW_COLUMNS])
    plain, sealed, facts = found[ROW_COLUMNS:28], list(found[28:31]), found[31:39]
    names, tool = orjson.loads(found[39]), orjson.loads(found[40] or "{}")
    key, corrupt = _key(run_id)
    opened = _open(run_id, key, row, plain[0], sealed) if key else (None, None, None, corrupt)
    columns: list[Any] = [row, *plain, *opened[:3], *facts, names[0] or "", names[1] or ""]
    columns += [tool.get("lookup_url", ""), tool.get("note", ""), tool.get("risk", ""), opened[3]]
    columns.append(attempts(run_id, row, plain[0], key) if key and row.attempt > 1 else [])
    columns.append(late(run_id, row.seq, key) if found[41] else [])
    return StepDetail(*columns, *found[42:])


def _key(run_id: UUID) -> tuple[bytes, str]:
    """The run's key, or why there is none: a page of an erased run still shows what is not sealed."""
    try:
        return keys.existing(run_id), ""
    except Corrupt as problem:
        return b"", problem.message


def _open(
    run_id: UUID, key: bytes, row: StepRow, generation: int, sealed: list[bytes | None]
) -> tuple[Any, Any, Any, str]:
    tenant_id = current_tenant()
    try:
        plain = [
            sealing.open_step(key, tenant_id, run_id, generation, row.identity, part, body)
            for part, body in zip(("input", "output", "error"), sealed, strict=True)
        ]
    except Corrupt as problem:
        return None, None, None, problem.message
    opened = [None if body is None else orjson.loads(body) for body in plain]
    return opened[0], opened[1], opened[2], ""


def attempts(run_id: UUID, row: StepRow, generation: int, key: bytes) -> list[Attempt]:
    found = []
    for number, status, outcome, sent_key, error, *rest in sql.rows(ATTEMPTS, [run_id, row.seq]):
        failure = _open(run_id, key, row, generation, [None, None, error])[2]
        found.append(Attempt(number, status, outcome, sent_key, failure, *rest))
    return found


def late(run_id: UUID, seq: int, key: bytes) -> list[LateAnswer]:
    """Without a key (it was destroyed): that they came, and how they ended."""
    found: list[LateAnswer] = []
    for late_id, fence, outcome, body, after_settled, received_at in sql.rows(LATE, [run_id, seq]):
        opened = sealing.open_late(key, current_tenant(), late_id, body) if key else None
        found.append(LateAnswer(late_id, fence, outcome, opened, after_settled, received_at))
    return found


def _at(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("\0", "")
