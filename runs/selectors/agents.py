"""Agents as their workers registered them, with the newest version, their tools, and when a worker was last seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from agentstate.core.clock import now
from agentstate.core.errors import NotFound
from agentstate.db import sql

AGENTS = """
select v.agent, v.version, v.mode, v.description, v.digest, v.seen_at,
  (select max(w.seen_at) from runs_worker w where w.dead_at is null and v.agent = any(w.agents)),
  (select count(*) from runs_worker w where w.dead_at is null and v.agent = any(w.agents)
     and w.seen_at > now() - interval '30 s'),
  (select count(*) from runs_tool t where t.agent = v.agent)
from (select distinct on (agent) * from runs_agentversion order by agent, seen_at desc) v
order by v.agent limit 200
"""
ONE = """
select v.agent, v.version, v.mode, v.description, v.digest, v.seen_at,
  (select max(w.seen_at) from runs_worker w where w.dead_at is null and v.agent = any(w.agents)),
  (select count(*) from runs_worker w where w.dead_at is null and v.agent = any(w.agents)
     and w.seen_at > now() - interval '30 s'),
  0, v.input_schema::text, v.fingerprint::text,
  (select coalesce(json_agg(json_build_object('name', t.name, 'effect', t.effect, 'approve', t.approve, 'risk', t.risk,
     'note', t.note, 'window_s', t.window_s, 'has_probe', t.has_probe) order by t.name), '[]')::text
   from runs_tool t where t.agent = v.agent)
from runs_agentversion v where v.agent = %s order by v.seen_at desc limit 1
"""
WORKERS = """
select w.name, w.kind, w.host, w.pid, w.agents, w.started_at, w.seen_at, w.dead_at, w.dead_proof,
  (select count(*) from runs_run r where r.status = 'running' and r.worker_id = w.id)
from runs_worker w where w.dead_at is null or w.dead_at > now() - interval '10 minutes'
order by w.dead_at is not null, w.name limit 50
"""


@dataclass(frozen=True, slots=True)
class AgentRow:
    name: str
    version: str
    mode: str
    description: str
    digest: str
    registered_at: datetime
    worker_seen_at: datetime | None
    workers: int
    tools: int


@dataclass(frozen=True, slots=True)
class AgentDetail:
    row: AgentRow
    input_schema: dict[str, Any]
    fingerprint: dict[str, str]
    tools: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    name: str
    kind: str
    host: str
    pid: int
    agents: list[str]
    started_at: datetime
    seen_at: datetime
    dead_at: datetime | None
    dead_proof: str
    runs: int

    @property
    def shown(self) -> str:
        if self.dead_at is not None:
            return "stopped"
        return "silent" if (now() - self.seen_at).total_seconds() > 30 else "ok"


def agents() -> list[AgentRow]:
    return [AgentRow(*row) for row in sql.rows(AGENTS)]


def names() -> list[str]:
    return [name for (name,) in sql.rows("select distinct agent from runs_agentversion order by agent limit 200")]


def find(name: str) -> AgentDetail:
    """Raises: NotFound."""
    found = sql.row(ONE, [name]) if "\0" not in name else None
    if found is None:
        raise NotFound("No worker has registered an agent of this name here.")
    schema, fingerprint, tools = (orjson.loads(part) for part in found[9:])
    return AgentDetail(AgentRow(*found[:9]), schema, fingerprint, tools)


def workers() -> list[WorkerRow]:
    return [WorkerRow(*row) for row in sql.rows(WORKERS)]
