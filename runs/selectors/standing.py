"""What every page of a tenant says about it: open approvals, emergency stops, silent workers. One statement."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import orjson

from agentstate.db import sql

WORKER_SILENT_S = 30  # two heartbeats of a worker missed
WORKER_FORGOTTEN_S = 3600  # one that went without a word is no longer news
COUNT_MAX = 1000  # nobody reads an exact larger number in the navigation

# runs_approval_inbox, runs_stop_active, runs_worker_living, runs_latereply (small)
STANDING = f"""
select
  (select count(*) from (select 1 from runs_approval where status = 'pending' limit {COUNT_MAX}) a),
  (select coalesce(json_agg(json_build_object('agent', s.agent, 'since', s.created_at, 'by', e.actor_name)), '[]')::text
     from runs_stop s left join audit_entry e
       on e.object_type = 'stop' and e.object_id = s.id and e.object_seq = 1
     where s.status = 'active'),
  w.living, w.silent, w.silent_since,
  exists (select 1 from runs_latereply l where l.after_settled and l.received_at > now() - interval '7 days')
from (select count(*) as living,
    count(*) filter (where seen_at < now() - interval '{WORKER_SILENT_S} s') as silent,
    max(seen_at) filter (where seen_at < now() - interval '{WORKER_SILENT_S} s') as silent_since
  from runs_worker where dead_at is null and seen_at > now() - interval '{WORKER_FORGOTTEN_S} s') w
"""


@dataclass(frozen=True, slots=True)
class ActiveStop:
    agent: str  # empty: all agents
    since: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Standing:
    pending: int = 0
    stops: list[ActiveStop] = field(default_factory=list)
    workers: int = 0
    silent: int = 0
    silent_since: datetime | None = None
    doubled: bool = False  # a late answer came after "it did not happen"


def read() -> Standing:
    """Asserts nothing: the tenant is the scope's."""
    found = sql.row(STANDING)
    assert found is not None
    pending, stops, workers, silent, silent_since, doubled = found
    return Standing(pending, [_stop(stop) for stop in orjson.loads(stops)], workers, silent, silent_since, doubled)


def _stop(stop: dict[str, str]) -> ActiveStop:
    return ActiveStop(stop["agent"], datetime.fromisoformat(stop["since"]), stop["by"] or "")
