"""The people of a drill: one who starts runs, a careful approver, and one who must be refused.

The careful one settles a doubt as a careful person would: by looking at the other side's ledger, and saying "did not
happen" only when the service allows it and nothing is under way over there. Before that somebody without the right
says "did not happen" at once. (An approver who lies when the service allows it is beyond what a runtime can mend.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any
from uuid import UUID

import psycopg
from django.db import InterfaceError, OperationalError, connection

from agentstate.core.errors import Conflict, Forbidden
from agentstate.db import sql
from agentstate.dev.drill import mutants
from agentstate.tenants import keyring, members
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Membership, Tenant, User
from agentstate.tenants.scope import tenant_scope
from runs.engine import hosting
from runs.services import admission, approvals, settling

Json = Any  # what json.loads gives
NAMES = {"olga": "operator", "bob": "approver", "victor": "viewer"}
AGAIN_S = 0.05
HELD_MS = 200
FUNCTIONS = "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE proname = ANY(%s)"
GONE = (OperationalError, InterfaceError)


def settle_in() -> UUID:
    """The tenant, its people, and the agents as a worker's start registers them."""
    tenant = Tenant.objects.create(slug="drill", name="Drill")
    keyring.ensure(tenant.id)
    for name, role in NAMES.items():
        user = User.objects.create_user(f"{name}@example.test", name=name.title())
        with tenant_scope(tenant.id):
            Membership.objects.create(user=user, role=role)
    hosting.register_everywhere()
    return tenant.id


@cache
def _actor(name: str) -> Actor:
    tenant = Tenant.objects.get(slug="drill")
    return members.membership(User.objects.get(email=f"{name}@example.test"), tenant)


def admit(case_id: str, case: Json) -> UUID:
    """Idempotent by the case's id."""
    given = {"case": case_id, "effect": case["effect"], "timing": case["timing"]}
    wanted = admission.Admission(agent="drill", input=given, external_id=case_id)
    return admission.admit(wanted, actor=_actor("olga"))[0].id


def decide(approval_id: str, version: int, proposal_hash: str) -> None:
    """Idempotent: the same click sent twice."""
    approvals.decide(
        UUID(approval_id),
        actor=_actor("bob"),
        decision="approve",
        version=version,
        proposal_hash=proposal_hash,
        client_token=approval_id,
    )


def settle(approval_id: str, version: int, proposal_hash: str, verdict: str, output: Json = None) -> bool:
    """False when it is not open yet. Idempotent."""
    said: Json = {"version": version, "proposal_hash": proposal_hash, "reason": "The ledger says so."}
    try:
        settling.settle(
            UUID(approval_id), actor=_actor("bob"), verdict=verdict, output=output, client_token=approval_id, **said
        )
    except Conflict as error:
        if "opens_at" in error.data:
            return False
        raise
    return True


VERBS: dict[str, Callable[..., Any]] = {"admit": admit, "decide": decide, "settle": settle}


def be_hasty(approval_id: str, version: int, proposal_hash: str) -> None:
    """Say "did not happen" without a look and without the right. The service has to refuse; the ledger tells if not."""
    said: Json = {"version": version, "proposal_hash": proposal_hash, "reason": "It surely did not."}
    with suppress(Forbidden):
        settling.settle(UUID(approval_id), actor=_actor("victor"), verdict="did_not_happen", **said)


def persist(act: Callable[[], Any]) -> Any:
    """Again until the database is there; a person who gets an error page tries once more. Raises: DomainError."""
    for _ in range(200):
        try:
            return act()
        except GONE as error:
            if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            connection.close()
            time.sleep(AGAIN_S)
    raise RuntimeError("the database did not come back")


def unless_held(act: Callable[[], Any]) -> bool:
    """persist(), but not now (False) if somebody holds a row of it: a process that was stopped inside a transaction
    keeps its locks until whoever asks this lets it go on."""
    try:
        persist(lambda: (sql.execute(f"SET lock_timeout = '{HELD_MS}ms'"), act()))
        return True
    except OperationalError as error:
        if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            raise
        return False
    finally:
        persist(lambda: sql.execute("RESET lock_timeout"))


def change_database(superuser_url: str, *, mutant: str) -> None:
    """The half of a mutant that lives in SQL, in this throw-away database."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        if mutant == "no_fence":
            connection.execute("ALTER TABLE runs_step DISABLE TRIGGER runs_step_frozen")
        for name, definition in connection.execute(FUNCTIONS, [mutants.functions()]).fetchall():
            changed = mutants.sql_of(mutant, name, definition)
            if changed != definition:
                connection.execute(changed.encode())


# What they see

RUNS = """
SELECT id, external_id, status, waiting_for, fence, entry_seq FROM runs_run WHERE external_id = ANY(%s)
"""
# A lease is granted for so long at least; who takes the run sooner needs to know by then that its holder is gone.
EARLY = """
SELECT e.object_id, extract(epoch FROM e.at - p.at)::float8 FROM audit_entry e
JOIN LATERAL (SELECT * FROM audit_entry x WHERE x.object_type = 'run' AND x.object_id = e.object_id
  AND x.action = 'run.running' AND x.object_seq < e.object_seq ORDER BY x.object_seq DESC LIMIT 1) p ON true
LEFT JOIN runs_worker w ON w.id::text = p.actor_id
WHERE e.object_type = 'run' AND e.action = 'run.running' AND e.from_status = 'running'
  AND e.at < p.at + make_interval(secs => %s) AND (w.dead_at IS NULL OR w.dead_at > e.at) AND e.object_id = ANY(%s)
"""
QUESTIONS = """
SELECT a.id, a.kind, a.version, encode(a.proposal_hash, 'hex'), a.run_id, s.key, s.name, s.call_by
FROM runs_approval a LEFT JOIN runs_step s ON s.run_id = a.run_id AND s.seq = a.step_seq
WHERE a.status = 'pending' AND a.run_id = ANY(%s)
"""
KEYS = """
SELECT run_id, key FROM runs_step WHERE run_id = ANY(%s) AND key IS NOT NULL
UNION SELECT run_id, key FROM runs_stepattempt WHERE run_id = ANY(%s) AND key IS NOT NULL
"""
# Where a run stands that should be over by now: its last moves, so many seconds ago, and its open steps.
UNFINISHED = """
SELECT r.id, format('fence %%s, attempt %%s, %%s claims; moves %%s; open %%s', r.fence, r.attempt, r.claims,
  (SELECT string_agg(m.to_status || ' ' || extract(epoch FROM clock_timestamp() - m.at)::int, ', ')
   FROM (SELECT * FROM audit_entry e WHERE e.object_type = 'run' AND e.object_id = r.id AND e.to_status <> ''
     ORDER BY e.object_seq DESC LIMIT 6) m),
  (SELECT string_agg(format('%%s %%s, attempt %%s', s.name, s.status, s.attempt), ', ')
   FROM runs_step s WHERE s.run_id = r.id AND s.status NOT IN ('done', 'failed')))
FROM runs_run r WHERE r.id = ANY(%s) AND r.status NOT IN ('succeeded', 'failed', 'cancelled')
"""
EVERY_KEY = """
SELECT key FROM runs_step WHERE key IS NOT NULL UNION SELECT key FROM runs_stepattempt WHERE key IS NOT NULL
"""
ATTEMPTS = "SELECT run_id, name, attempt FROM runs_step WHERE run_id = ANY(%s)"


def look(statement: str, *args: Any, tenant_id: UUID) -> list[tuple[Any, ...]]:
    def read() -> list[tuple[Any, ...]]:
        with tenant_scope(tenant_id):
            return sql.rows(statement, args)

    found: list[tuple[Any, ...]] = persist(read)
    return found
