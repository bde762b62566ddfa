"""A resume, told before it happens: what answers from records, what may be called, what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson

from agentstate.db import sql
from runs.selectors.story import RunStory

EFFECTS_SHOWN = 50

# The open generation by the primary key's range (run_id, seq > generation_seq).
KEPT = """
select count(*) filter (where status in ('done', 'rejected', 'skipped')),
  count(*) filter (where status = 'done' and key is not null),
  count(*) filter (where status = 'in_doubt'), count(*) filter (where status in ('started', 'waiting'))
from runs_step where run_id = %s and seq > %s
"""
NAMED = f"""
select seq, name, effect, status, outcome, coalesce(key, ''), ended_at, attempt, sent, error_type from runs_step
where run_id = %s and seq > %s and (key is not null or status not in ('done', 'rejected', 'skipped'))
order by seq desc limit {EFFECTS_SHOWN}
"""
# The code the run was last claimed with, against the newest code that a worker registered for this agent.
CODE = """
select (select v.version from runs_agentversion v join runs_run r on r.version_id = v.id where r.id = %(run)s),
  (select v.fingerprint::text from runs_agentversion v join runs_run r on r.version_id = v.id where r.id = %(run)s),
  n.version, n.fingerprint::text, n.seen_at,
  (select max(w.seen_at) from runs_worker w where w.dead_at is null and %(agent)s = any(w.agents))
from (select version, fingerprint, seen_at from runs_agentversion where agent = %(agent)s
      order by seen_at desc, id desc limit 1) n
"""
OTHERS = """
select id from runs_run where session_key = %s and session_key <> '' and not held and id <> %s
  and status in ('queued', 'running', 'waiting', 'paused', 'in_doubt') limit 1
"""


@dataclass(frozen=True, slots=True)
class PlanStep:
    seq: int
    name: str
    effect: str
    status: str
    outcome: str
    key: str
    ended_at: datetime | None
    attempt: int
    sent: int
    error_type: str

    @property
    def is_effect(self) -> bool:
        return bool(self.key)


@dataclass(frozen=True, slots=True)
class CodeChange:
    before: str
    now: str
    changed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    registered_at: datetime | None = None
    worker_seen_at: datetime | None = None

    @property
    def differs(self) -> bool:
        return bool(self.changed or self.added or self.removed)


@dataclass(frozen=True, slots=True)
class ResumePlan:
    kept: int  # steps of the open generation that answer from their records
    before: int  # steps of closed generations: nothing of them runs again
    effects_kept: list[PlanStep]
    effects_done: int
    will_run: list[PlanStep]
    in_doubt: list[PlanStep]
    code: CodeChange | None
    live_of_session: UUID | None

    @property
    def blocked(self) -> bool:
        return bool(self.in_doubt or self.live_of_session)


def resume(run: RunStory) -> ResumePlan:
    """Reads only. A handled failure is told to the agent again as it was; the step the run failed at is called anew."""
    counts = sql.row(KEPT, [run.id, run.generation_seq])
    assert counts is not None
    named = [PlanStep(*row) for row in sql.rows(NAMED, [run.id, run.generation_seq])]
    named.reverse()
    other = sql.row(OTHERS, [run.session, run.id]) if run.session else None
    return ResumePlan(
        kept=counts[0],
        before=run.generation_seq,
        effects_kept=[step for step in named if step.is_effect and step.status == "done"],
        effects_done=counts[1],
        will_run=[step for step in named if _runs_again(step, run)],
        in_doubt=[step for step in named if step.status == "in_doubt"],
        code=_code(run),
        live_of_session=other[0] if other else None,
    )


def _runs_again(step: PlanStep, run: RunStory) -> bool:
    if step.status in ("started", "waiting"):
        return True
    return step.status == "failed" and (step.seq == run.error_step or step.outcome in ("not_sent", "resumed"))


def _code(run: RunStory) -> CodeChange | None:
    statement = CODE.replace("%(run)s", "%s").replace("%(agent)s", "%s")
    found = sql.row(statement, [run.id, run.id, run.agent, run.agent])
    if found is None:
        return None
    before, old, version, new, registered_at, seen_at = found
    was, is_now = orjson.loads(old or "null"), orjson.loads(new)
    if was is None:
        return CodeChange("", version, registered_at=registered_at, worker_seen_at=seen_at)
    return CodeChange(
        before,
        version,
        changed=sorted(part for part in was if part in is_now and was[part] != is_now[part]),
        added=sorted(set(is_now) - set(was)),
        removed=sorted(set(was) - set(is_now)),
        registered_at=registered_at,
        worker_seen_at=seen_at,
    )
