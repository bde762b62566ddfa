"""What must be true of every tenant's rows whatever crashed when. Each rule is one query that finds where it is not.

Model-free SQL under the tenant's row security, so that no service's own idea of the tables can hide a violation. The
queries read one moment; the hashes, which need keys, are verified for the newest runs in Python. Shown on Health.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.db import connection, transaction

from agentstate.affairs import memory_rules
from agentstate.affairs.rules import Rule
from agentstate.audit import verification
from agentstate.core.errors import Corrupt
from agentstate.db import sql
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys, reading
from runs import sealing

SILENT_S = 60.0  # a lease that ended so long ago should have been taken over: nobody sweeps
HASHED_RUNS = 100  # the newest, and each live one, have their hashes verified
EFFECTS = "('keyed', 'probed', 'destructive')"


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    object_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.object_id}: {self.text}"


OF_RUNS = (
    Rule(
        "step_identity",
        "a step is recorded once in its generation",
        """SELECT run_id, format('%s is recorded %s times in generation %s', identity, count(*), generation)
        FROM runs_step GROUP BY run_id, generation, identity HAVING count(*) > 1""",
    ),
    Rule(
        "effect_key",
        "an idempotency key belongs to one step",
        """SELECT min(k.run_id::text), format('key %s… stands in %s steps', left(k.key, 12), count(*)) FROM (
          SELECT run_id, seq, key FROM runs_step WHERE key IS NOT NULL
          UNION SELECT run_id, seq, key FROM runs_stepattempt WHERE key IS NOT NULL) k
        GROUP BY k.key HAVING count(*) > 1""",
    ),
    Rule(
        "called_once",
        "a destructive effect is called once, and again only for each verdict that it did not happen",
        """SELECT c.object_id, format('key %s… was claimed %s times with %s verdicts', left(c.key, 12), c.n, v.n)
        FROM (SELECT object_id, detail->>'key' AS key, count(*) AS n FROM audit_entry
          WHERE object_type = 'run' AND action = 'effect.claimed' AND detail->>'class' = 'destructive'
          GROUP BY 1, 2) c
        CROSS JOIN LATERAL (SELECT count(*) AS n FROM audit_entry e WHERE e.object_type = 'run'
          AND e.object_id = c.object_id AND e.action = 'effect.did_not_happen' AND e.detail->>'key' = c.key) v
        WHERE c.n > v.n + 1""",
    ),
    Rule(
        "sent_as_authorised",
        "no destructive effect has more calls that may have happened than were authorised",
        """SELECT run_id, format('step %s %s: %s sends, %s authorised', seq, name, sent, authorised)
        FROM runs_step WHERE effect = 'destructive' AND sent > authorised + 1""",
    ),
    Rule(
        "authorised_by_somebody",
        "a further call is authorised by a verdict on record only",
        """SELECT s.run_id, format('step %s %s: nobody authorised its further call', s.seq, s.name)
        FROM runs_step s WHERE s.authorised > 0 AND NOT EXISTS (SELECT FROM audit_entry e
          WHERE e.object_type = 'run' AND e.object_id = s.run_id AND e.action = 'effect.did_not_happen'
          AND (e.detail->>'seq')::int = s.seq)""",
    ),
    Rule(
        "fence_of_writes",
        "nothing is written under a fence that was over",
        """SELECT f.run_id, format('frame %s was written under fence %s after fence %s began', f.n, f.fence, c.fence)
        FROM checkpoints_frame f JOIN LATERAL (SELECT (e.detail->>'fence')::bigint + 1 AS fence FROM audit_entry e
          WHERE e.object_type = 'run' AND e.object_id = f.run_id AND e.action = 'run.running' AND e.at < f.created
          ORDER BY e.object_seq DESC LIMIT 1) c ON c.fence > f.fence
        UNION ALL
        SELECT s.run_id, format('step %s ended under fence %s after fence %s began', s.seq, s.fence, c.fence)
        FROM runs_step s JOIN LATERAL (SELECT (e.detail->>'fence')::bigint + 1 AS fence FROM audit_entry e
          WHERE e.object_type = 'run' AND e.object_id = s.run_id AND e.action = 'run.running' AND e.at < s.ended_at
          ORDER BY e.object_seq DESC LIMIT 1) c ON c.fence > s.fence
        WHERE s.source = 'worker' AND s.status = 'done'""",
    ),
    Rule(
        "fence_never_falls",
        "fences only grow",
        """SELECT r.id, format('step %s has fence %s, its run %s', s.seq, s.fence, r.fence)
        FROM runs_run r JOIN runs_step s ON s.run_id = r.id WHERE s.fence > r.fence
        UNION ALL SELECT a.run_id, format('attempt %s of step %s has fence %s, after it %s', a.attempt, a.seq, a.fence,
          s.fence) FROM runs_stepattempt a JOIN runs_step s ON s.run_id = a.run_id AND s.seq = a.seq
        WHERE a.fence > s.fence
        UNION ALL SELECT f.run_id, format('frame %s has fence %s, the one before it %s', f.n, f.fence, f.before)
        FROM (SELECT run_id, n, fence, lag(fence) OVER (PARTITION BY run_id ORDER BY n) AS before
          FROM checkpoints_frame) f WHERE f.before > f.fence""",
    ),
    Rule(
        "effect_on_record",
        "an effect that is done says in the audit who settled it",
        f"""SELECT s.run_id, format('step %s %s is done and no entry says how', s.seq, s.name)
        FROM runs_step s WHERE s.effect IN {EFFECTS} AND s.status = 'done' AND s.sent > 0 AND NOT EXISTS (
          SELECT FROM audit_entry e WHERE e.object_type = 'run' AND e.object_id = s.run_id
          AND e.action IN ('effect.settled', 'effect.happened') AND e.detail->>'key' = s.key)""",
    ),
    Rule(
        "claimed_before_called",
        "an effect that may have been called says in the audit that it was claimed",
        f"""SELECT s.run_id, format('step %s %s was called and never claimed', s.seq, s.name)
        FROM runs_step s WHERE s.effect IN {EFFECTS} AND s.sent > 0 AND NOT EXISTS (
          SELECT FROM audit_entry e WHERE e.object_type = 'run' AND e.object_id = s.run_id
          AND e.action = 'effect.claimed' AND e.detail->>'key' = s.key)""",
    ),
    Rule(
        "status_on_record",
        "the status of a run or an approval is the one of its newest audited transition",
        """SELECT r.id, format('it is %s, its newest transition went to %s', r.status, coalesce(e.to_status, 'none'))
        FROM runs_run r LEFT JOIN LATERAL (SELECT to_status FROM audit_entry x WHERE x.object_type = 'run'
          AND x.object_id = r.id AND x.action LIKE 'run.%' AND x.to_status <> ''
          ORDER BY x.object_seq DESC LIMIT 1) e ON true
        WHERE r.status <> coalesce(e.to_status, 'queued')
        UNION ALL
        SELECT a.id, format('it is %s, its newest transition went to %s', a.status, coalesce(e.to_status, 'none'))
        FROM runs_approval a LEFT JOIN LATERAL (SELECT to_status FROM audit_entry x WHERE x.object_type = 'approval'
          AND x.object_id = a.id AND x.to_status <> '' ORDER BY x.object_seq DESC LIMIT 1) e ON true
        WHERE a.status <> coalesce(e.to_status, 'pending')""",
    ),
    Rule(
        "no_run_is_lost",
        "a live run has a lease, a timer, a question or somebody's pause",
        f"""SELECT r.id, format('%s for %s, and nothing will ever wake it', r.status, r.waiting_for)
        FROM runs_run r WHERE (r.status = 'queued' AND NOT r.held AND r.due_at IS NULL)
          OR (r.status = 'running' AND (r.lease_until IS NULL
            OR r.lease_until < clock_timestamp() - interval '{SILENT_S:.0f} s'))
          OR (r.status = 'waiting' AND r.waiting_for IN ('timer', 'retry', 'probe') AND r.due_at IS NULL)
          OR (r.status = 'waiting' AND r.waiting_for NOT IN ('timer', 'retry', 'probe') AND r.due_at IS NULL
            AND NOT EXISTS (SELECT FROM runs_approval a WHERE a.run_id = r.id AND a.status = 'pending'))
          OR (r.status = 'in_doubt' AND NOT EXISTS (SELECT FROM runs_approval a
            WHERE a.run_id = r.id AND a.status = 'pending' AND a.kind = 'settle'))
        UNION ALL SELECT r.id, 'held, and no live run of its session will release it'
        FROM runs_run r WHERE r.status = 'queued' AND r.held AND NOT EXISTS (SELECT FROM runs_run l
          WHERE l.session_key = r.session_key AND NOT l.held
          AND l.status IN ('queued', 'running', 'waiting', 'paused', 'in_doubt'))""",
    ),
    Rule(
        "doubt_is_asked",
        "every effect in doubt is put before people, unless nobody can read any more what it was",
        """SELECT s.run_id, format('step %s %s is in doubt and nobody is asked', s.seq, s.name)
        FROM runs_step s JOIN checkpoints_runkey k ON k.run_id = s.run_id
        WHERE s.status = 'in_doubt' AND s.authorised < s.sent AND k.destroyed_at IS NULL AND NOT EXISTS (
          SELECT FROM runs_approval a WHERE a.run_id = s.run_id AND a.step_seq = s.seq AND a.kind = 'settle'
          AND a.status = 'pending')
        -- Of an erased run nobody can read what was sent, so nobody is asked.
        AND NOT EXISTS (SELECT FROM affairs_erasure e WHERE s.run_id = ANY(e.stopped_ids))""",
    ),
    Rule(
        "success_is_whole",
        "a run that succeeded left no step open",
        """SELECT s.run_id, format('it succeeded and step %s %s is %s', s.seq, s.name, s.status)
        FROM runs_step s JOIN runs_run r ON r.id = s.run_id AND r.generation = s.generation
        WHERE r.status = 'succeeded' AND s.status IN ('started', 'waiting', 'in_doubt')""",
    ),
    Rule(
        "one_decision",
        "a question is decided once, by a vote that names the exact proposal",
        """SELECT a.id, format('%s with %s votes, %s of them for this proposal', a.status, v.n, v.exact)
        FROM runs_approval a CROSS JOIN LATERAL (SELECT count(*) AS n, count(*) FILTER (
            WHERE x.version = a.version AND x.proposal_hash = a.proposal_hash) AS exact
          FROM runs_approvalvote x WHERE x.approval_id = a.id) v
        WHERE (a.status IN ('approved', 'edited', 'rejected', 'responded') AND (v.n <> 1 OR v.exact <> 1))
          OR (a.status IN ('pending', 'expired', 'withdrawn') AND v.n > 0)""",
    ),
    Rule(
        "chain_of_frames",
        "a run's checkpoint is its newest frame",
        """SELECT r.id, format('it stands at frame %s, which is %s', r.frame_n,
            CASE WHEN f.n IS NULL THEN 'missing' ELSE 'not the one it was chained to' END)
        FROM runs_run r LEFT JOIN checkpoints_frame f ON f.run_id = r.id AND f.n = r.frame_n
        WHERE r.frame_n > 0 AND (f.n IS NULL OR f.chain <> r.chain)
        UNION ALL SELECT f.run_id, format('frame %s is newer than its run, which stands at %s', max(f.n), r.frame_n)
        FROM checkpoints_frame f JOIN runs_run r ON r.id = f.run_id GROUP BY f.run_id, r.frame_n
        HAVING max(f.n) > r.frame_n""",
    ),
    Rule(
        "run_has_a_key",
        "every run has its key, or the mark of its destruction",
        """SELECT r.id, 'nothing of it can be read: its key is missing' FROM runs_run r
        WHERE NOT EXISTS (SELECT FROM checkpoints_runkey k WHERE k.run_id = r.id)""",
    ),
    Rule(
        "result_has_a_hash",
        "a step that is done has a result with its hash",
        """SELECT run_id, format('step %s %s', seq, name) FROM runs_step
        WHERE (output IS NULL) <> (output_hash IS NULL)
          OR (status = 'done' AND kind NOT IN ('ask', 'timer') AND output IS NULL)""",
    ),
    Rule(
        "same_tenant",
        "what belongs to a run belongs to the run's tenant",
        # Row security hides other tenants' rows, so a parent of another tenant is a parent that is not there.
        " UNION ALL ".join(
            f"SELECT c.{parent}, '{table} without its parent in this tenant' FROM {table} c"
            f" WHERE NOT EXISTS (SELECT FROM {above} p WHERE p.id = c.{parent}) GROUP BY c.{parent}"
            for table, parent, above in (
                ("runs_step", "run_id", "runs_run"),
                ("runs_stepattempt", "run_id", "runs_run"),
                ("runs_latereply", "run_id", "runs_run"),
                ("runs_approval", "run_id", "runs_run"),
                ("runs_approvalvote", "approval_id", "runs_approval"),
                ("runs_tag", "run_id", "runs_run"),
                ("runs_event", "run_id", "runs_run"),
                ("checkpoints_frame", "run_id", "runs_run"),
                ("checkpoints_blob", "run_id", "runs_run"),
            )
        ),
    ),
)
RULES = (*OF_RUNS, *memory_rules.RULES)
# Newest first; live runs beyond them too, since those are the ones that will be read again.
_HASHED = f"""
SELECT id FROM (SELECT id, status, row_number() OVER (ORDER BY id DESC) AS place FROM runs_run) r
WHERE place <= {HASHED_RUNS} OR status IN ('queued', 'running', 'waiting', 'paused', 'in_doubt', 'failed')
"""
_RESULTS = """
SELECT seq, name, generation, identity, output, output_hash FROM runs_step
WHERE run_id = %s AND output IS NOT NULL ORDER BY seq
"""


def check(tenant_id: UUID, *, hashes: bool = True, audit: bool = True) -> list[Violation]:
    """Every violation in a tenant's rows; empty is good. Read-only; one moment, unless the caller has a transaction."""
    with _one_moment(tenant_id):
        found = [violation for rule in RULES for violation in broken(rule)]
        if hashes:
            found += [violation for (run_id,) in sql.rows(_HASHED) for violation in _corrupt(tenant_id, run_id)]
    if audit:
        found += [
            Violation("audit", finding.object_id, f"{finding.kind}: {finding.text}")
            for finding in verification.verify(tenant_id)
        ]
    return found


def broken(rule: Rule) -> list[Violation]:
    """Where this rule does not hold in the tenant of the scope."""
    found = sql.rows(rule.statement.replace("%", "%%"))  # format()'s, not placeholders
    return [Violation(rule.name, str(object_id), text) for object_id, text in found]


def _corrupt(tenant_id: UUID, run_id: UUID) -> Iterator[Violation]:
    """Stored bytes that do not verify: the newest checkpoint, and every result against its hash."""
    key = keys.several([run_id]).get(run_id)
    if key is None:  # erased: nothing of it can be read any more
        return
    try:
        reading.newest(tenant_id, run_id)
    except Corrupt as error:
        yield Violation("hashes", str(run_id), error.message)
        return
    for seq, name, generation, identity, output, output_hash in sql.rows(_RESULTS, [run_id]):
        try:
            plain = sealing.open_step(key, tenant_id, run_id, generation, identity, "output", output)
        except Corrupt as error:
            yield Violation("hashes", str(run_id), f"step {seq} {name}: {error.message}")
            continue
        if plain is not None and sealing.fingerprint(tenant_id, plain) != output_hash:
            yield Violation("hashes", str(run_id), f"step {seq} {name}: its result is another one than was recorded")


@contextmanager
def _one_moment(tenant_id: UUID) -> Iterator[None]:
    nested = connection.in_atomic_block
    with transaction.atomic():
        if not nested:
            sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        with tenant_scope(tenant_id):
            yield
