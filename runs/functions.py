"""SQL of this tier as migration operations; the text stands in runs/sql/, one file per concern."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations
from django.db.migrations.operations.base import Operation

from agentstate.tenants.functions import crossing, only_application

_SQL = Path(__file__).parent / "sql"

# Runs that somebody should look at now, the tenants taking turns. Ids only. why: queued | timer | lapsed | dead.
# A queued run had its hint at its commit; only one that is still there a second later needs another.
_DUE = """
SELECT d.tenant_id, d.id, d.why, d.fence FROM (
  SELECT c.*, row_number() OVER (PARTITION BY c.tenant_id ORDER BY c.due_at, c.id) AS turn FROM (
    (SELECT r.tenant_id, r.id, 'queued' AS why, r.fence, r.due_at
      FROM runs_run r WHERE r.status = 'queued' AND r.due_at <= clock_timestamp() - interval '1 second' AND NOT r.held
        AND (p_agents IS NULL OR r.agent = ANY (p_agents)) ORDER BY r.due_at LIMIT p_limit * 4)
    UNION ALL
    (SELECT r.tenant_id, r.id, 'timer', r.fence, r.due_at
      FROM runs_run r WHERE r.status = 'waiting' AND r.due_at <= clock_timestamp()
        AND (p_agents IS NULL OR r.agent = ANY (p_agents)) ORDER BY r.due_at LIMIT p_limit * 4)
    UNION ALL
    (SELECT r.tenant_id, r.id, 'lapsed', r.fence, r.lease_until
      FROM runs_run r WHERE r.status = 'running' AND r.lease_until <= clock_timestamp()
        AND (p_agents IS NULL OR r.agent = ANY (p_agents)) LIMIT p_limit * 4)
    UNION ALL
    (SELECT r.tenant_id, r.id, 'dead', r.fence, r.lease_until
      FROM runs_run r JOIN runs_worker w ON w.id = r.worker_id
      WHERE r.status = 'running' AND w.dead_at IS NOT NULL AND r.lease_until > clock_timestamp()
        AND (p_agents IS NULL OR r.agent = ANY (p_agents)) LIMIT p_limit * 4)
  ) c
) d ORDER BY d.turn, d.due_at LIMIT p_limit"""

_EXPIRED = """
SELECT a.tenant_id, a.id FROM runs_approval a
WHERE a.status = 'pending' AND a.expires_at <= clock_timestamp() ORDER BY a.expires_at LIMIT p_limit"""


def operations() -> list[Operation]:
    return [
        migrations.RunSQL(
            _read("turn.sql"), "DROP FUNCTION runs_turn; DROP FUNCTION runs_within_budget; DROP FUNCTION runs_renew"
        ),
        migrations.RunSQL(_read("plain_turn.sql"), "DROP FUNCTION runs_turn_plain"),
        migrations.RunSQL(_read("claim.sql"), "DROP FUNCTION runs_claim"),
        migrations.RunSQL(_read("frozen.sql"), _read("frozen_undo.sql")),
        migrations.RunSQL(_read("events.sql"), "DROP FUNCTION runs_ensure_partitions"),
        only_application("runs_ensure_partitions(integer)"),
        migrations.RunSQL(_read("workers.sql"), migrations.RunSQL.noop),
        migrations.RunSQL(_read("storage.sql"), migrations.RunSQL.noop),
        crossing(
            "runs_due(text[], integer)",
            arguments="p_agents text[], p_limit integer",
            returns="TABLE (tenant_id uuid, run_id uuid, why text, fence bigint)",
            body=_DUE,
        ),
        crossing(
            "runs_expired(integer)",
            arguments="p_limit integer",
            returns="TABLE (tenant_id uuid, approval_id uuid)",
            body=_EXPIRED,
        ),
    ]


def _read(name: str) -> str:
    return (_SQL / name).read_text()
