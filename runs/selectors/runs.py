"""The run list: filters, keyset pages, counts; and one run by the id in an address.

Keyset pages need no total: an id is a UUIDv7, so its order is the order of creation and a time bound is an id bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from agentstate.core.clock import now
from agentstate.core.errors import Corrupt, NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.core.limits import EXTERNAL_ID_CHARS_MAX, NAME_CHARS_MAX, PAGE_ROWS, TAG_CHARS_MAX
from agentstate.db import sql
from agentstate.http.redaction import redact
from agentstate.tenants.scope import current_tenant
from checkpoints import keys
from runs import sealing
from runs.states import RunStatus

NEEDS_PERSON = (RunStatus.WAITING, RunStatus.IN_DOUBT, RunStatus.FAILED)
STATES = {"person": "Needs a person", **{str(status): str(status).replace("_", " ") for status in RunStatus}}
STATES[RunStatus.SUCCEEDED] = "done"
SPANS = {"hour": ("Last hour", 3600), "day": ("Last 24 hours", 86_400), "week": ("Last 7 days", 7 * 86_400)}
COUNT_MAX = 10_000  # of one live status; above, the page says "at least"

COLUMNS = """r.id, r.agent, r.status, r.waiting_for, r.control, r.external_id, r.tags, r.error_type, r.error_step,
  r.step_seq, r.tokens_in + r.tokens_out, r.cost, r.created_at, r.started_at, r.ended_at, r.due_at, r.held,
  case when r.status = 'waiting' then
    (select a.tool from runs_approval a where a.run_id = r.id and a.status = 'pending' order by a.id limit 1) end"""

# runs_run_live for what is not over; the rest from the folded counts and the deltas not yet folded.
COUNTS = f"""
select status, count(*) from (select status from runs_run
    where status not in ('succeeded', 'cancelled') limit {COUNT_MAX}) live group by status
union all
select status, sum(n) from (
    select status, count as n from runs_statuscount union all select status, delta from runs_statusdelta) over_
  group by status
"""


SHORT_INPUTS = "select id, input from runs_run where id = any(%s) and octet_length(input) < 1000"
SUMMARY_CHARS_MAX = 90


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of the list."""

    id: UUID
    agent: str
    status: str
    waiting_for: str
    control: str
    external_id: str | None
    tags: list[str]
    error_type: str
    error_step: int | None
    steps: int
    tokens: int
    cost: float
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    held: bool
    asks_for: str | None  # tool that waits for approval

    @property
    def public_id(self) -> str:
        return public_id("run", self.id)

    @property
    def shown_status(self) -> str:
        return shown_status(self.status, self.control, self.waiting_for)

    @property
    def took(self) -> timedelta | None:
        if self.started_at is None:
            return None
        return (self.ended_at or now()) - self.started_at


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What the address asks for. Unknown values are dropped, so that an old link still opens."""

    state: str = ""
    agent: str = ""
    tag: str = ""
    external_id: str = ""
    error: str = ""
    span: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def active(self) -> bool:
        return self != RunFilter()

    @property
    def extended(self) -> bool:
        return bool(self.tag or self.since or self.until or self.error)

    def words(self) -> str:
        parts = [
            STATES.get(self.state, ""),
            self.agent and f"agent {self.agent}",
            self.tag and f"tag {self.tag}",
            self.external_id and f"external id {self.external_id}",
            self.error and f"error {self.error}",
            SPANS.get(self.span, ("", 0))[0].lower(),
            self.since and f"from {self.since:%d %b %H:%M}",
            self.until and f"to {self.until:%d %b %H:%M}",
        ]
        return ", ".join(str(part) for part in parts if part)


@dataclass(frozen=True, slots=True)
class RunPage:
    rows: list[RunRow]
    newer: str  # id to go on from, or ""
    older: str


@dataclass(frozen=True, slots=True)
class Counts:
    by_status: dict[str, int]

    def shown(self) -> list[tuple[str, int]]:
        order = ("queued", "running", "waiting", "paused", "in_doubt", "failed", "succeeded", "cancelled")
        return [(status, self.by_status.get(status, 0)) for status in order]


def shown_status(status: str, control: str, waiting_for: str) -> str:
    """A pause or cancel that was asked for is shown as such until the worker has stopped; a timer calls for nobody."""
    if status == RunStatus.RUNNING and control in ("pause", "cancel"):
        return {"pause": "pausing", "cancel": "cancelling"}[control]
    if status == RunStatus.WAITING and waiting_for in ("timer", "retry", "probe"):
        return "timer"
    return status


def read_filter(query: Mapping[str, str]) -> RunFilter:
    """Raises nothing: what cannot be read does not filter."""
    return RunFilter(
        state=_one_of(query.get("state", ""), STATES),
        agent=query.get("agent", "")[:NAME_CHARS_MAX].replace("\0", ""),
        tag=query.get("tag", "").strip()[:TAG_CHARS_MAX].replace("\0", ""),
        external_id=query.get("q", "").strip()[:EXTERNAL_ID_CHARS_MAX].replace("\0", ""),
        error=query.get("error", "")[:NAME_CHARS_MAX].replace("\0", ""),
        span=_one_of(query.get("time", ""), SPANS),
        since=_moment(query.get("from", "")),
        until=_moment(query.get("to", "")),
    )


def page(wanted: RunFilter, *, after: str = "", before: str = "", rows_max: int = PAGE_ROWS) -> RunPage:
    """Newest first. `after`: ids older than this one; `before`: the page just newer than this one."""
    conditions, args = _conditions(wanted)
    backwards = bool(before)
    if before or after:
        conditions.append("r.id > %s" if backwards else "r.id < %s")
        args.append(_place(before or after))
    tagged = "runs_tag t join runs_run r on r.id = t.run_id" if wanted.tag else "runs_run r"
    where = f"where {' and '.join(conditions)}" if conditions else ""
    statement = f"select {COLUMNS} from {tagged} {where} order by r.id {'asc' if backwards else 'desc'} limit %s"
    found = [RunRow(*row) for row in sql.rows(statement, [*args, rows_max + 1])]
    return _paged(found, rows_max, backwards=backwards, after=after)


def _paged(found: list[RunRow], rows_max: int, *, backwards: bool, after: str) -> RunPage:
    more = len(found) > rows_max
    rows = found[:rows_max]
    if backwards:
        rows.reverse()
    if not rows:
        return RunPage([], "", "")
    newer = rows[0].public_id if (more if backwards else after) else ""
    older = rows[-1].public_id if (backwards or more) else ""
    return RunPage(rows, newer, older)


def _conditions(wanted: RunFilter) -> tuple[list[str], list[object]]:
    parts: list[tuple[str, object]] = []
    if wanted.state == "person":
        parts.append(("r.status = any(%s)", [str(status) for status in NEEDS_PERSON]))
    elif wanted.state:
        parts.append(("r.status = %s", wanted.state))
    for condition, value in (
        ("t.tag = %s", wanted.tag),
        ("r.agent = %s", wanted.agent),
        ("r.external_id = %s", wanted.external_id),
        ("r.error_type = %s", wanted.error),
    ):
        if value:
            parts.append((condition, value))
    since = wanted.since or (now() - timedelta(seconds=SPANS[wanted.span][1]) if wanted.span else None)
    if since:
        parts.append(("r.id >= %s", first_id_at(since)))
    if wanted.until:
        parts.append(("r.id < %s", first_id_at(wanted.until)))
    return [condition for condition, _ in parts], [value for _, value in parts]


def counts() -> Counts:
    found: dict[str, int] = {}
    for status, count in sql.rows(COUNTS):
        found[status] = found.get(status, 0) + int(count)
    return Counts(found)


def first_id_at(at: datetime) -> UUID:
    """The smallest UUIDv7 of that millisecond."""
    ms = min(max(int(at.timestamp() * 1000), 0), (1 << 48) - 1)
    return UUID(int=ms << 80 | 0x7 << 76 | 0b10 << 62)


def newer_than(wanted: RunFilter, newest: str) -> int:
    """How many runs came since the newest one shown (at most 100): the one-line summary above a list."""
    conditions, args = _conditions(replace(wanted, until=None))
    tagged = "runs_tag t join runs_run r on r.id = t.run_id" if wanted.tag else "runs_run r"
    where = " and ".join([*conditions, "r.id > %s"])
    found = sql.row(f"select count(*) from (select 1 from {tagged} where {where} limit 100) n", [*args, _place(newest)])
    return int(found[0]) if found else 0


def summaries(rows: list[RunRow]) -> dict[UUID, str]:
    """What each run is about, from its input where that is short: "order 4467, depth 2". Two statements."""
    wanted = [row.id for row in rows if not row.external_id]
    found = sql.rows(SHORT_INPUTS, [wanted]) if wanted else []
    opened = keys.several(run_id for run_id, _ in found)
    inputs = {}
    for run_id, sealed in found:
        if run_id in opened:
            inputs[run_id] = _summary(redact(_input(run_id, opened[run_id], sealed)))
    return {run_id: text for run_id, text in inputs.items() if text}


def _input(run_id: UUID, key: bytes, sealed: bytes) -> Any:
    try:
        return sealing.open_run(key, current_tenant(), run_id, "input", sealed)
    except Corrupt:  # the run's own page says so
        return None


def _summary(value: Any) -> str:
    if isinstance(value, dict):
        parts = [
            f"{name.replace('_', ' ')} {part}" for name, part in value.items() if isinstance(part, str | int | float)
        ]
        value = ", ".join(parts[:3])
    text = value if isinstance(value, str) else ""
    return text if len(text) <= SUMMARY_CHARS_MAX else f"{text[:SUMMARY_CHARS_MAX]}…"


def _place(text: str) -> UUID:
    return parse_id("run", text)


def by_external_id(external_id: str) -> UUID | None:
    found = sql.row("select id from runs_run where external_id = %s", [external_id])
    return found[0] if found else None


def find(text: str) -> UUID:
    """A run by its public id. Raises: NotFound; absent and another tenant's look the same."""
    run_id = parse_id("run", text)
    if sql.row("select 1 from runs_run where id = %s", [run_id]) is None:
        raise NotFound("There is no such run here. It may be in another tenant or past its retention.")
    return run_id


def _one_of(value: str, allowed: Mapping[str, object]) -> str:
    return value if value in allowed else ""


def _moment(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
