"""One run as its page shows it: facts, first failure, open questions, takeovers, earlier claims.

What lists need is plain in the row; bodies are sealed and opened here with the run's key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from agentstate.core.clock import now
from agentstate.core.errors import Corrupt, NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from checkpoints import keys
from runs import sealing
from runs.selectors.runs import shown_status

RUN = """
select r.id, r.agent, r.mode, r.status, r.waiting_for, r.wake_reason, r.control, r.held, r.external_id, r.session_key,
  r.tags, r.trace_id, r.started_by_kind, r.started_by_id, r.started_by_name, r.input,
  r.output, r.error, r.error_type, r.error_step,
  r.fence, r.lease_until, r.due_at, r.claims, r.attempt, r.generation, r.generation_seq, r.step_seq, r.event_seq,
  r.frame_n, r.tokens_in, r.tokens_out, r.cost, r.budget_steps, r.budget_tokens, r.budget_cost, r.budget_wall_s,
  r.created_at, r.started_at, r.ended_at, coalesce(v.version, ''), coalesce(w.name, ''),
  (select min(x.seen_at) from runs_worker x where x.id = r.worker_id and r.status = 'running')
from runs_run r
  left join runs_agentversion v on v.id = r.version_id and v.tenant_id = r.tenant_id
  left join runs_worker w on w.id = r.worker_id
where r.id = %s
"""

# runs_approval_step, and the primary key (month, run_id, seq) of the run's partition; few rows of both.
AROUND = """
select (select coalesce(json_agg(q order by q.id), '[]')::text from (select id, step_seq, kind, tool, risk,
    requested_at, expires_at from runs_approval where run_id = %s and status = 'pending' order by id limit 20) q),
  (select coalesce(json_agg(e order by e.seq desc), '[]')::text from (select seq, at, detail from runs_event
    where month = %s and run_id = %s and kind = 'status' and detail->>'from' = 'running' and detail->>'to' = 'running'
    order by seq desc limit 20) e)
"""


@dataclass(frozen=True, slots=True)
class RunStory:
    id: UUID
    agent: str
    mode: str
    status: str
    waiting_for: str
    wake_reason: str
    control: str
    held: bool
    external_id: str | None
    session: str
    tags: list[str]
    trace_id: str
    started_by_kind: str
    started_by_id: str
    started_by: str
    input_sealed: bytes
    output_sealed: bytes | None
    error_sealed: bytes | None
    error_type: str
    error_step: int | None
    fence: int
    lease_until: datetime | None
    due_at: datetime | None
    claims: int
    attempt: int
    generation: int
    generation_seq: int
    steps: int
    event_seq: int
    frame_n: int
    tokens_in: int
    tokens_out: int
    cost: float
    budget_steps: int | None
    budget_tokens: int | None
    budget_cost: float | None
    budget_wall_s: float | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    version: str
    worker: str
    worker_seen_at: datetime | None

    @property
    def public_id(self) -> str:
        return public_id("run", self.id)

    @property
    def shown_status(self) -> str:
        return shown_status(self.status, self.control, self.waiting_for)

    @property
    def over(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")

    @property
    def took(self) -> timedelta | None:
        return None if self.started_at is None else (self.ended_at or now()) - self.started_at

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out

    @property
    def may_pause(self) -> bool:
        return self.status in ("queued", "running", "waiting") and not self.control

    @property
    def may_cancel(self) -> bool:
        return self.status in ("queued", "running", "waiting", "paused", "in_doubt") and self.control != "cancel"

    @property
    def may_resume(self) -> bool:
        return self.status in ("paused", "failed", "in_doubt")


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    id: UUID
    step_seq: int | None
    kind: str
    tool: str
    risk: str
    requested_at: datetime
    expires_at: datetime | None

    @property
    def public_id(self) -> str:
        return public_id("apr", self.id)


@dataclass(frozen=True, slots=True)
class Takeover:
    """A worker was lost and another went on: the trace says running to running."""

    at: datetime
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bodies:
    input: Any
    output: Any
    error: dict[str, Any] | None
    corrupt: str  # why a body could not be opened; the page says so and shows the rest


def find(public: str) -> RunStory:
    """Raises: NotFound; absent and another tenant's look the same."""
    found = sql.row(RUN, [parse_id("run", public)])
    if found is None:
        raise NotFound("There is no such run here. It may be in another tenant or past its retention.")
    return RunStory(*found)


def bodies(run: RunStory) -> Bodies:
    tenant_id = current_tenant()
    try:
        key = keys.existing(run.id)
        return Bodies(
            sealing.open_run(key, tenant_id, run.id, "input", run.input_sealed),
            sealing.open_run(key, tenant_id, run.id, "output", run.output_sealed),
            sealing.open_run(key, tenant_id, run.id, "error", run.error_sealed),
            "",
        )
    except Corrupt as problem:
        return Bodies(None, None, None, problem.message)


def around(run: RunStory) -> tuple[list[OpenQuestion], list[Takeover]]:
    """Questions that wait for a person, and takeovers, newest first."""
    found = sql.row(AROUND, [run.id, run.created_at.date().replace(day=1), run.id])
    assert found is not None
    questions, takeovers = (orjson.loads(part) for part in found)
    return [_question(part) for part in questions], [
        Takeover(datetime.fromisoformat(part["at"]), part["detail"] or {}) for part in takeovers
    ]


def _question(part: dict[str, Any]) -> OpenQuestion:
    return OpenQuestion(
        UUID(part["id"]),
        part["step_seq"],
        part["kind"],
        part["tool"],
        part["risk"],
        datetime.fromisoformat(part["requested_at"]),
        datetime.fromisoformat(part["expires_at"]) if part["expires_at"] else None,
    )
