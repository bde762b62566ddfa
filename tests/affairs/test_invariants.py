"""Each invariant holds in a tenant with a past, and one planted violation of it turns the check red."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.conf import settings
from django.db import connection, connections, transaction

from agentstate.affairs import invariants, memory_rules, tasks
from agentstate.affairs.invariants import Violation
from agentstate.affairs.rules import Rule
from agentstate.core.ids import parse_id
from agentstate.dev.testing import delete_all, superuser_url, tables_to_empty
from agentstate.sdk.store import Claim, End, Park, Question, StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.models import Approval
from runs.services import approvals, settling
from tests.affairs import memories, people
from tests.runs.conftest import Desk

REFUND: dict[str, Any] = {"effect": "destructive", "kind": "tool", "timeout_s": 2.0}


@dataclass
class Past:
    """Runs of one tenant: `whole` succeeded after a doubt, the others are on their way."""

    desk: Desk
    other: UUID  # another tenant, with nothing
    whole: UUID
    asking: UUID
    doubtful: UUID
    decided: UUID
    running: UUID
    held: UUID
    memories: memories.Memories


@pytest.fixture(scope="module")
def past(django_db_setup: None, django_db_blocker: Any) -> Iterator[Past]:
    """Committed once for this module: each plant is rolled back."""
    with django_db_blocker.unblock(), psycopg.connect(_superuser(), autocommit=True) as connection:
        tables = tables_to_empty(connection)
        try:
            yield _past()
        finally:
            connections.close_all()
            delete_all(connection, tables)


def _past() -> Past:
    tenant = people.make_tenant("acme", "Acme")
    other = people.make_tenant("globex", "Globex")
    alice, bob = (people.make_actor(name, role, tenant) for name, role in (("alice", "admin"), ("bob", "approver")))
    desk = Desk(alice)
    whole = _whole(desk, bob)
    asking, doubtful, decided = _asking(desk), _doubtful(desk), _asking(desk)
    _decide(desk, bob, decided)
    patient = Desk(alice, lease_s=3_600)  # its lease does not end while this module is busy
    running = patient.start()
    patient.begin(running, "look")
    desk.store.admit("desk", {}, session="s")
    held = desk.store.admit("desk", {}, session="s", session_policy="queue")
    runs = {"whole": whole, "asking": asking, "doubtful": doubtful, "decided": decided, "running": running}
    made = {name: _id(claim.run_id) for name, claim in runs.items()}
    return Past(desk, other.id, held=_id(held.run_id), memories=memories.remembered(alice), **made)


@pytest.fixture
def saboteur(past: Past, django_db_blocker: Any) -> Iterator[Saboteur]:
    """Django's connection is the superuser's in this test, and everything is rolled back."""
    with django_db_blocker.unblock():
        ours, theirs = connections["default"], connections["default"].copy()
        theirs.settings_dict = {**theirs.settings_dict, "USER": "postgres"}
        connections["default"] = theirs
        try:
            with transaction.atomic():
                yield Saboteur(past)
                transaction.set_rollback(True)
        finally:
            theirs.close()
            connections["default"] = ours


class Saboteur:
    """Writes with triggers, foreign keys and policies off; reads with the application's rights."""

    def __init__(self, past: Past) -> None:
        self._past = past

    def plant(self, statement: str, **args: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(statement, args)
            assert cursor.rowcount, "nothing was planted"
            cursor.execute("SET LOCAL session_replication_role = origin")

    def broken(self, tenant_id: UUID | None = None, *, audit: bool = True) -> set[str]:
        with as_application():
            found = invariants.check(tenant_id or self._past.desk.tenant_id, audit=audit)
        return {violation.rule for violation in found}

    def found_by(self, rule: Rule) -> list[Violation]:
        with as_application(), tenant_scope(self._past.desk.tenant_id):
            return invariants.broken(rule)


@contextmanager
def as_application() -> Iterator[None]:
    """The superuser steps down: row security holds again."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {settings.APP_ROLE}")
        yield
        cursor.execute("RESET ROLE")


def _superuser() -> str:
    return superuser_url(str(settings.DATABASES["default"]["NAME"]))


def _id(run_id: str) -> UUID:
    return parse_id("run", run_id)


def _whole(desk: Desk, bob: Actor) -> Claim:
    """A pure step, and a refund whose first call was lost, did not happen, and was made again."""
    claim = desk.start(tags=["vip"])
    look = desk.begin(claim, "look")
    large = {"found": "x" * 70_000}
    desk.store.turn(claim, Turn(finish=[StepFinish(look.seq, output={"n": 1})], state=large))
    lost = claim
    refund = desk.begin(claim, "refund", **REFUND)
    claim = desk.retake(claim)
    assert desk.begin(claim, "refund", **REFUND).action == "doubt"
    desk.store.turn(claim, Turn(then=Park("in_doubt")))
    desk.store.late(lost, StepFinish(refund.seq, "unknown"))
    desk.age(claim, refund.seq, seconds=60)
    _settle(desk, bob)
    claim = desk.take(claim.run_id)
    again = desk.begin(claim, "refund", **REFUND)
    assert again.action == "execute"
    desk.store.turn(claim, Turn(finish=[StepFinish(again.seq, output={"paid": 5})], then=End("succeeded", {"ok": 1})))
    return claim


def _settle(desk: Desk, bob: Actor) -> None:
    with tenant_scope(desk.tenant_id):
        doubt = Approval.objects.get(kind="settle", status="pending")
    said: dict[str, Any] = {"version": doubt.version, "proposal_hash": bytes(doubt.proposal_hash).hex()}
    settling.settle(doubt.id, actor=bob, verdict="did_not_happen", reason="not in the ledger", **said)


def _asking(desk: Desk) -> Claim:
    claim = desk.start()
    question = Question(title="Refund?", tool="refund", args={"amount": 5})
    start = StepStart("refund#1", "refund", "tool", "destructive", question=question, timeout_s=2.0)
    desk.store.turn(claim, Turn(start=[start], then=Park("approval")))
    return claim


def _doubtful(desk: Desk) -> Claim:
    claim = desk.start()
    desk.begin(claim, "refund", **REFUND)
    claim = desk.retake(claim)
    desk.begin(claim, "refund", **REFUND)
    desk.store.turn(claim, Turn(then=Park("in_doubt")))
    return claim


def _decide(desk: Desk, bob: Actor, claim: Claim) -> None:
    with tenant_scope(desk.tenant_id):
        asked = Approval.objects.get(run_id=_id(claim.run_id))
    approvals.decide(
        asked.id, actor=bob, decision="approve", version=asked.version, proposal_hash=bytes(asked.proposal_hash).hex()
    )


COPY = "INSERT INTO {table} SELECT (jsonb_populate_record(t, '{change}')).* FROM {table} t WHERE {where}"

# (rule, the run it happens to, SQL with %(run)s)
PLANTED = [
    (
        "called_once",
        "whole",
        COPY.format(
            table="audit_entry",
            change='{"id": 999999, "object_seq": 999}',
            where="object_id = %(run)s AND action = 'effect.claimed' AND object_seq ="
            " (SELECT max(object_seq) FROM audit_entry WHERE object_id = %(run)s AND action = 'effect.claimed')",
        ),
    ),
    ("sent_as_authorised", "whole", "UPDATE runs_step SET sent = 3 WHERE run_id = %(run)s AND effect = 'destructive'"),
    ("authorised_by_somebody", "doubtful", "UPDATE runs_step SET authorised = 1 WHERE run_id = %(run)s"),
    (
        "fence_of_writes",
        "whole",
        "UPDATE checkpoints_frame SET fence = 1 WHERE run_id = %(run)s"
        " AND n = (SELECT frame_n FROM runs_run WHERE id = %(run)s)",
    ),
    ("fence_of_writes", "whole", "UPDATE runs_step SET fence = 1 WHERE run_id = %(run)s AND seq = 2"),
    ("fence_never_falls", "whole", "UPDATE runs_run SET fence = 0 WHERE id = %(run)s"),
    ("fence_never_falls", "whole", "UPDATE runs_stepattempt SET fence = 99 WHERE run_id = %(run)s"),
    ("fence_never_falls", "whole", "UPDATE checkpoints_frame SET fence = 99 WHERE run_id = %(run)s AND n = 1"),
    ("effect_on_record", "whole", "DELETE FROM audit_entry WHERE object_id = %(run)s AND action = 'effect.settled'"),
    ("claimed_before_called", "whole", "DELETE FROM audit_entry WHERE object_id = %(run)s AND action LIKE '%%claimed'"),
    ("status_on_record", "running", "UPDATE runs_run SET status = 'paused' WHERE id = %(run)s"),
    ("status_on_record", "asking", "UPDATE runs_approval SET status = 'expired' WHERE run_id = %(run)s"),
    ("no_run_is_lost", "decided", "UPDATE runs_run SET due_at = NULL WHERE id = %(run)s"),
    ("no_run_is_lost", "running", "UPDATE runs_run SET lease_until = NULL WHERE id = %(run)s"),
    ("no_run_is_lost", "running", "UPDATE runs_run SET lease_until = now() - interval '1 h' WHERE id = %(run)s"),
    ("no_run_is_lost", "asking", "UPDATE runs_approval SET status = 'withdrawn' WHERE run_id = %(run)s"),
    ("no_run_is_lost", "asking", "UPDATE runs_run SET waiting_for = 'timer' WHERE id = %(run)s"),
    ("no_run_is_lost", "doubtful", "UPDATE runs_approval SET status = 'withdrawn' WHERE run_id = %(run)s"),
    ("no_run_is_lost", "held", "UPDATE runs_run SET session_key = 'another' WHERE id = %(run)s"),
    ("doubt_is_asked", "doubtful", "DELETE FROM runs_approval WHERE run_id = %(run)s"),
    ("success_is_whole", "whole", "UPDATE runs_step SET status = 'started' WHERE run_id = %(run)s AND seq = 1"),
    (
        "one_decision",
        "decided",
        COPY.format(
            table="runs_approvalvote",
            change='{"id": "00000000-0000-7000-8000-000000000001", "client_token": "again"}',
            where="approval_id = (SELECT id FROM runs_approval WHERE run_id = %(run)s)",
        ),
    ),
    (
        "one_decision",
        "decided",
        "UPDATE runs_approvalvote SET proposal_hash = '\\x00'"
        " WHERE approval_id = (SELECT id FROM runs_approval WHERE run_id = %(run)s)",
    ),
    (
        "one_decision",
        "decided",
        "DELETE FROM runs_approvalvote WHERE approval_id = (SELECT id FROM runs_approval WHERE run_id = %(run)s)",
    ),
    ("chain_of_frames", "whole", "UPDATE runs_run SET chain = '\\x00' WHERE id = %(run)s"),
    ("chain_of_frames", "whole", "UPDATE runs_run SET frame_n = frame_n - 1 WHERE id = %(run)s"),
    ("chain_of_frames", "whole", "UPDATE runs_run SET frame_n = frame_n + 1 WHERE id = %(run)s"),
    ("run_has_a_key", "whole", "DELETE FROM checkpoints_runkey WHERE run_id = %(run)s"),
    ("result_has_a_hash", "whole", "UPDATE runs_step SET output_hash = NULL WHERE run_id = %(run)s AND seq = 1"),
    ("result_has_a_hash", "whole", "UPDATE runs_step SET output = NULL, output_hash = NULL WHERE run_id = %(run)s"),
    ("hashes", "whole", "UPDATE runs_step SET output_hash = sha256('x') WHERE run_id = %(run)s AND seq = 1"),
    (
        "hashes",
        "whole",
        "UPDATE runs_step SET output = set_byte(output, 20, 255 - get_byte(output, 20)) WHERE run_id = %(run)s",
    ),
    (
        "hashes",
        "whole",
        "UPDATE runs_step s SET output = o.output FROM runs_step o"
        " WHERE s.run_id = %(run)s AND o.run_id = s.run_id AND s.seq = 1 AND o.seq = 2",
    ),
    ("hashes", "whole", "UPDATE checkpoints_frame SET body = set_byte(body, 20, 255 - get_byte(body, 20))"),
    ("audit", "whole", "UPDATE audit_entry SET actor_id = 'victor' WHERE object_id = %(run)s AND object_seq = 2"),
]


def test_a_tenant_with_a_past_breaks_no_rule(past: Past, saboteur: Saboteur) -> None:
    assert saboteur.broken() == set()


@pytest.mark.parametrize(("rule", "run", "statement"), PLANTED)
def test_a_planted_violation_is_found(past: Past, saboteur: Saboteur, rule: str, run: str, statement: str) -> None:
    saboteur.plant(statement, run=getattr(past, run))
    assert rule in saboteur.broken()


@pytest.mark.parametrize("rule", memory_rules.RULES, ids=lambda rule: rule.name)
def test_a_planted_violation_of_memory_is_found(past: Past, saboteur: Saboteur, rule: Rule) -> None:
    assert saboteur.found_by(rule) == []
    for statement in [statement for name, statement in memories.PLANTED if name == rule.name]:
        with transaction.atomic():
            saboteur.plant(statement, **asdict(past.memories))
            assert saboteur.found_by(rule), statement
            transaction.set_rollback(True)


CHILDREN = (
    *("runs_step", "runs_stepattempt", "runs_latereply", "runs_approval", "runs_approvalvote"),
    *("runs_tag", "runs_event", "checkpoints_frame", "checkpoints_blob"),
)


@pytest.mark.parametrize("table", CHILDREN)
def test_a_row_in_another_tenant_than_its_run_is_found(past: Past, saboteur: Saboteur, table: str) -> None:
    saboteur.plant(f"UPDATE {table} SET tenant_id = %(other)s", other=past.other)
    assert "same_tenant" in saboteur.broken(past.other, audit=False)


def test_a_step_recorded_twice_is_found(past: Past, saboteur: Saboteur) -> None:
    saboteur.plant("ALTER TABLE runs_step DROP CONSTRAINT runs_step_identity")  # even a superuser obeys an index
    copy = COPY.format(table="runs_step", change='{"seq": 99}', where="run_id = %(run)s AND seq = 1")
    saboteur.plant(copy, run=past.whole)
    assert "step_identity" in saboteur.broken()


def test_a_key_of_two_steps_is_found(past: Past, saboteur: Saboteur) -> None:
    saboteur.plant("DROP INDEX runs_step_key")
    change = '{"seq": 99, "identity": "other#1"}'
    saboteur.plant(COPY.format(table="runs_step", change=change, where="run_id = %(run)s AND seq = 2"), run=past.whole)
    assert "effect_key" in saboteur.broken()


def test_every_rule_has_a_planted_violation() -> None:
    planted = {rule for rule, *_ in [*PLANTED, *memories.PLANTED]} | {"same_tenant", "step_identity", "effect_key"}
    assert planted == {rule.name for rule in invariants.RULES} | {"hashes", "audit"}


def test_the_check_sees_its_own_tenant_only(past: Past, saboteur: Saboteur) -> None:
    saboteur.plant("UPDATE runs_run SET fence = 0 WHERE id = %(run)s", run=past.whole)
    assert saboteur.broken(past.other) == set()


def test_the_task_counts_what_is_broken_over_all_tenants(past: Past, saboteur: Saboteur) -> None:
    with as_application():
        assert tasks.check_invariants() == 0
    saboteur.plant("UPDATE runs_run SET due_at = NULL WHERE id = %(run)s", run=past.decided)
    with as_application():
        assert tasks.check_invariants() == 1
