"""Now: what needs a person, which errors are new, how much flows. Few statements, each over a partial index."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from agentstate.core.clock import now
from agentstate.core.ids import public_id
from agentstate.db import sql
from runs.selectors.runs import first_id_at

SLICES = 12  # of five minutes
FAILED_MAX = 2_000

# runs_run_live: failed runs by id, which is the order of creation; a run that failed today was created lately.
FAILED = f"""
select error_type, error_step, agent, id, ended_at from runs_run
where status = 'failed' and id > %s order by id desc limit {FAILED_MAX}
"""
# runs_step_in_doubt. Of an erased run nobody can say any more what was sent, so nobody is asked about it.
IN_DOUBT = """
select s.run_id, s.seq, s.name, s.started_at, s.effect from runs_step s
where s.doubted_at is not null and s.status = 'in_doubt'
  and not exists (select from checkpoints_runkey k where k.run_id = s.run_id and k.destroyed_at is not null)
order by s.run_id limit 50
"""
# The last good version: the newest version of the agent with a success before the first such failure is not asked of
# history here; the page shows the version that failed and when it was registered.
VERSIONS = """
select distinct on (agent) agent, version, created_at from runs_agentversion
where agent = any(%s) order by agent, seen_at desc
"""


@dataclass(frozen=True, slots=True)
class Doubt:
    run_id: UUID
    seq: int
    name: str
    since: datetime
    effect: str

    @property
    def run(self) -> str:
        return public_id("run", self.run_id)


@dataclass(slots=True)
class ErrorGroup:
    error_type: str
    agent: str
    runs: int = 0
    first: datetime | None = None
    newest_run: UUID | None = None
    version: str = ""
    version_since: datetime | None = None

    @property
    def run(self) -> str:
        return public_id("run", self.newest_run) if self.newest_run else ""


@dataclass(frozen=True, slots=True)
class Failures:
    last_hour: int
    usual: float  # an hour, over the day before
    slices: list[int]  # five minutes each, oldest first
    groups: list[ErrorGroup] = field(default_factory=list)
    today: int = 0

    @property
    def unusual(self) -> bool:
        return self.last_hour > max(3.0, 2 * self.usual)


def doubts() -> list[Doubt]:
    return [Doubt(*row) for row in sql.rows(IN_DOUBT)]


def failures() -> Failures:
    """Failed and not yet resumed; what was resumed since is no longer news."""
    at = now()
    found = sql.rows(FAILED, [first_id_at(at - timedelta(days=2))])
    recent = [(kind, step, agent, run_id, ended or at) for kind, step, agent, run_id, ended in found]
    ages = [(at - ended).total_seconds() for *_, ended in recent]
    slices = [0] * SLICES
    for age in ages:
        if age < 3600:
            slices[SLICES - 1 - int(age // 300)] += 1
    day = [age for age in ages if 3600 <= age < 90_000]
    return Failures(sum(slices), len(day) / 24, slices, _groups(recent, at), sum(age < 86_400 for age in ages))


def _groups(recent: list[tuple[str, int | None, str, UUID, datetime]], at: datetime) -> list[ErrorGroup]:
    groups: dict[tuple[str, str], ErrorGroup] = {}
    for kind, _, agent, run_id, ended in recent:
        if (at - ended).total_seconds() > 86_400:
            continue
        group = groups.setdefault((kind, agent), ErrorGroup(kind or "Error", agent))
        group.runs += 1
        group.first = min(group.first or ended, ended)
        group.newest_run = group.newest_run or run_id
    shown = sorted(groups.values(), key=lambda group: (-group.runs, group.error_type))[:8]
    _add_versions(shown)
    return shown


def _add_versions(groups: list[ErrorGroup]) -> None:
    if not groups:
        return
    versions = {row[0]: row[1:] for row in sql.rows(VERSIONS, [sorted({group.agent for group in groups})])}
    for group in groups:
        group.version, group.version_since = versions.get(group.agent, ("", None))
