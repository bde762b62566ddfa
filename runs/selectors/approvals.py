"""The inbox and one question to a person, with its proposal opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from agentstate.core.errors import Corrupt, NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.core.limits import PAGE_ROWS
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from checkpoints import keys
from runs import sealing
from runs.selectors.runs import first_id_at

SORTS = {"due": "Due first", "risk": "Risk first", "oldest": "Oldest first", "newest": "Newest first"}
_ORDER = {
    "due": "a.expires_at asc nulls last, a.id",
    "risk": "a.risk = 'high' desc, a.id",
    "oldest": "a.id",
    "newest": "a.id desc",
}
COLUMNS = """a.id, a.run_id, a.step_seq, a.kind, a.tool, a.agent, a.risk, a.status, a.version,
  encode(a.proposal_hash, 'hex'), a.proposal, a.decision, a.decided_by_kind, a.decided_by_name, a.requested_at,
  a.decided_at, a.expires_at, a.use_within_s, a.use_by, a.used_at"""

# What was decided about this tool in the last 30 days: runs_approval_tool.
ALIKE = """
select status, count(*) from (select status from runs_approval
  where tool = %s and id > %s and status <> 'pending' and id <> %s order by id desc limit 1000) x group by status
"""

STEP_FACTS = """
select coalesce(s.name, ''), coalesce(s.effect, ''), coalesce(s.key, ''), coalesce(s.status, ''),
  coalesce(s.attempt, 0), coalesce(s.sent, 0), s.window_s, s.settles_within_s, coalesce(s.has_probe, false),
  coalesce(t.lookup_url, ''), coalesce(t.note, ''), r.started_by_kind,
  r.started_by_name, r.status, coalesce(v.version, ''),
  r.external_id, r.started_by_id, r.step_seq
from runs_run r left join runs_step s on s.run_id = r.id and s.seq = %s
  left join runs_tool t on t.agent = r.agent and t.name = %s
  left join runs_agentversion v on v.id = r.version_id
where r.id = %s
"""


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    id: UUID
    run_id: UUID
    step_seq: int | None
    kind: str
    tool: str
    agent: str
    risk: str
    status: str
    version: int
    proposal_hash: str
    proposal: Mapping[str, Any]
    decision: Mapping[str, Any]
    decided_by_kind: str
    decided_by: str
    requested_at: datetime
    decided_at: datetime | None
    expires_at: datetime | None
    use_within_s: float | None
    use_by: datetime | None
    used_at: datetime | None
    corrupt: str = ""

    @property
    def public_id(self) -> str:
        return public_id("apr", self.id)

    @property
    def run(self) -> str:
        return public_id("run", self.run_id)

    @property
    def title(self) -> str:
        return str(self.proposal.get("title") or self.tool or "A question")

    @property
    def args(self) -> Any:
        return self.proposal.get("args")

    @property
    def schema(self) -> Mapping[str, Any]:
        return self.proposal.get("schema") or {}

    @property
    def pending(self) -> bool:
        return self.status == "pending"

    @property
    def high(self) -> bool:
        return self.risk == "high"


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What we know of the call ourselves, beside what the agent claims."""

    name: str
    effect: str
    key: str
    status: str
    attempt: int
    sent: int
    window_s: float | None
    settles_within_s: float | None
    has_probe: bool
    lookup_url: str
    note: str
    started_by_kind: str
    started_by: str
    run_status: str
    version: str
    external_id: str | None
    started_by_id: str
    steps: int


@dataclass(frozen=True, slots=True)
class Alike:
    by_status: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.by_status.values())


@dataclass(frozen=True, slots=True)
class Inbox:
    rows: list[ApprovalRow]
    pending: int
    tools: list[str]
    more: bool


def inbox(*, tool: str = "", risk: str = "", sort: str = "due", decided: bool = False) -> Inbox:
    """Open questions (or the newest decided ones), at most a page; their titles opened with one read of keys."""
    conditions, args = ["a.status <> 'pending'" if decided else "a.status = 'pending'"], []
    if tool:
        conditions.append("a.tool = %s")
        args.append(tool)
    if risk in ("low", "high"):
        conditions.append("a.risk = %s")
        args.append(risk)
    order = "a.id desc" if decided else _ORDER.get(sort, _ORDER["due"])
    statement = f"select {COLUMNS} from runs_approval a where {' and '.join(conditions)} order by {order} limit %s"
    found = sql.rows(statement, [*args, PAGE_ROWS + 1])
    names = sql.rows(
        "select tool, count(*) from (select tool from runs_approval where status = 'pending' limit 1000) x group by 1"
    )
    return Inbox(
        _opened(found[:PAGE_ROWS]),
        sum(count for _, count in names),
        sorted(name for name, _ in names if name),
        len(found) > PAGE_ROWS,
    )


def find(public: str) -> ApprovalRow:
    """Raises: NotFound."""
    found = sql.rows(f"select {COLUMNS} from runs_approval a where a.id = %s", [parse_id("apr", public)])
    if not found:
        raise NotFound("There is no such question here. It may be in another tenant or past its retention.")
    return _opened(found)[0]


def of_run(run_id: UUID, *, step_seq: int | None = None) -> list[ApprovalRow]:
    """All questions of a run, or of one step, oldest first."""
    condition = "" if step_seq is None else "and a.step_seq = %s"
    args: list[object] = [run_id] if step_seq is None else [run_id, step_seq]
    statement = f"select {COLUMNS} from runs_approval a where a.run_id = %s {condition} order by a.id limit 100"
    return _opened(sql.rows(statement, args))


def _opened(found: list[tuple[Any, ...]]) -> list[ApprovalRow]:
    opened_keys = keys.several(row[1] for row in found)
    return [_open(row, opened_keys.get(row[1])) for row in found]


def _open(row: tuple[Any, ...], key: bytes | None) -> ApprovalRow:
    proposal, decision, corrupt = None, None, ""
    try:
        if key is None:
            raise Corrupt("The key of this run is gone, so its question cannot be read.")
        proposal = sealing.open_approval(key, current_tenant(), row[0], "proposal", row[10])
        decision = sealing.open_approval(key, current_tenant(), row[0], "decision", row[11])
    except Corrupt as problem:
        corrupt = problem.message
    columns: list[Any] = [*row[:10], proposal or {}, decision or {}, *row[12:], corrupt]
    return ApprovalRow(*columns)


def facts(approval: ApprovalRow) -> StepFacts:
    found = sql.row(STEP_FACTS, [approval.step_seq, approval.tool, approval.run_id])
    if found is None:
        raise NotFound("The run of this question is gone.")
    columns: list[Any] = list(found)
    return StepFacts(*columns)


def alike(approval: ApprovalRow) -> Alike:
    since = first_id_at(approval.requested_at - timedelta(days=30))
    return Alike({status: int(count) for status, count in sql.rows(ALIKE, [approval.tool, since, approval.id])})
