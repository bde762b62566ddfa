"""transition() and record(): the act and its entry are one, and the chain never forks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from agentstate.audit import history, notes, trail, verification
from agentstate.audit.models import AuditEntry, AuditNote
from agentstate.core.errors import Conflict, NotFound
from agentstate.db import sql
from agentstate.tenants import keyring
from agentstate.tenants.actors import Actor, system
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from runs.models import Run

type_new_run = Callable[[], Run]


@pytest.mark.django_db
def test_a_transition_writes_the_change_and_who_did_it(
    tenant: Tenant, alice: Actor, new_run: type_new_run, scope: None
) -> None:
    run = trail.transition(new_run(), to="paused", actor=alice, reason="the shop is closed", detail={"steps": 3})
    fresh = Run.objects.get(id=run.id)
    entry = history.of("run", run.id).get()
    assert (run.status, fresh.status) == ("paused", "paused")
    assert bytes(fresh.audit_head) == bytes(entry.sha) == run.audit_head
    assert (fresh.audit_seq, run.audit_seq, entry.object_seq) == (1, 1, 1)
    assert (entry.action, entry.from_status, entry.to_status) == ("paused", "queued", "paused")
    assert (entry.actor_kind, entry.actor_id, entry.actor_name) == ("user", alice.id, "Alice")
    assert entry.detail == {"steps": 3}
    assert notes.read([entry]) == {entry.note_id: "the shop is closed"}
    assert verification.verify(tenant.id) == []


@pytest.mark.django_db
def test_a_transition_also_sets_fields_and_brings_the_object_up_to_date(
    alice: Actor, new_run: type_new_run, scope: None
) -> None:
    run = new_run()
    moved = trail.transition(
        run,
        to="running",
        actor=alice,
        action="claimed",
        set={"fence": F("fence") + 1, "started_at": Now(), "control": "pause", "worker": None, "tags": ["a", "b"]},
    )
    assert moved is run
    fresh = Run.objects.get(id=run.id)
    assert (run.fence, run.control, run.tags, run.worker_id) == (1, "pause", ["a", "b"], None)
    assert (run.started_at, run.fence, run.status) == (fresh.started_at, fresh.fence, fresh.status)
    assert history.of("run", run.id).get().action == "claimed"


@pytest.mark.parametrize("reason", ["", "why"])
def test_a_transition_takes_two_round_trips_and_a_reason_one_more(
    committed_db: None,
    tenant: Tenant,
    alice: Actor,
    new_run: type_new_run,
    django_assert_num_queries: Any,
    reason: str,
) -> None:
    run = new_run()
    keyring.hmac(tenant.id, b"")  # a process unwraps a tenant's keys once, when they are committed
    with tenant_scope(tenant.id):
        with django_assert_num_queries(2 if reason else 1), sql.watched() as by_hand:
            trail.transition(run, to="paused", actor=alice, reason=reason, where={"fence": 0}, set={"control": ""})
        assert len(by_hand) == 1
        with django_assert_num_queries(1 if reason else 0), sql.watched() as by_hand:
            trail.record(run, action="seen", actor=alice, reason=reason)
        assert len(by_hand) == 2


@pytest.mark.django_db
def test_a_stale_object_loses_and_learns_the_status_of_now(alice: Actor, new_run: type_new_run, scope: None) -> None:
    run = new_run()
    stale = Run.objects.get(id=run.id)
    trail.transition(run, to="cancelled", actor=alice)
    with pytest.raises(Conflict, match="is cancelled by now, not queued") as refused:
        trail.transition(stale, to="paused", actor=alice, reason="too late")
    assert refused.value.data == {"status": "cancelled", "expected": "queued"}
    assert AuditEntry.objects.count() == 1
    assert AuditNote.objects.count() == 0


@pytest.mark.django_db
def test_a_condition_that_does_not_hold_is_a_conflict_and_writes_nothing(
    tenant: Tenant, alice: Actor, new_run: type_new_run, scope: None
) -> None:
    run = new_run()
    with pytest.raises(Conflict) as refused, transaction.atomic():
        trail.transition(run, to="running", actor=alice, reason="x", where={"fence": 7, "control": ""})
    assert refused.value.data == {"status": "queued", "conditions": ["control", "fence"]}
    fresh = Run.objects.get(id=run.id)
    assert (fresh.status, fresh.audit_seq, run.audit_seq, run.status) == ("queued", 0, 0, "queued")
    assert AuditEntry.objects.count() == 0
    trail.transition(run, to="running", actor=alice, where={"fence": 0})
    assert verification.verify(tenant.id) == []


@pytest.mark.django_db
def test_an_object_that_is_gone_is_not_found(alice: Actor, new_run: type_new_run, scope: None) -> None:
    run = new_run()
    Run.objects.filter(id=run.id).delete()
    with pytest.raises(NotFound):
        trail.transition(run, to="paused", actor=alice)
    with pytest.raises(NotFound):
        trail.record(run, action="x", actor=alice)


def test_an_entry_is_refused_outside_a_transaction(committed_db: None, alice: Actor, new_run: type_new_run) -> None:
    run = new_run()
    with pytest.raises(AssertionError):
        trail.transition(run, to="paused", actor=alice)


@pytest.mark.django_db
def test_text_does_not_fit_into_the_detail(alice: Actor, new_run: type_new_run, scope: None) -> None:
    with pytest.raises(AssertionError, match="ids, counts and HMACs"):
        trail.transition(new_run(), to="paused", actor=alice, detail={"letter": "x" * 5000})


@pytest.mark.django_db
def test_a_rolled_back_transition_leaves_no_entry(alice: Actor, new_run: type_new_run, scope: None) -> None:
    run = new_run()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        trail.transition(run, to="paused", actor=alice)
        raise ZeroDivisionError
    assert (AuditEntry.objects.count(), Run.objects.get(id=run.id).audit_seq) == (0, 0)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "statement", ["UPDATE audit_entry SET action = 'x'", "DELETE FROM audit_entry", "TRUNCATE audit_entry"]
)
def test_the_application_cannot_rewrite_the_trail(
    alice: Actor, new_run: type_new_run, scope: None, statement: str
) -> None:
    trail.transition(new_run(), to="paused", actor=alice)
    with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize("statement", ["UPDATE audit_entry SET action = 'x'", "DELETE FROM audit_entry"])
def test_the_owner_cannot_rewrite_the_trail_either(
    committed_db: None, tenant: Tenant, alice: Actor, new_run: type_new_run, statement: str
) -> None:
    run = new_run()
    with tenant_scope(tenant.id):
        trail.transition(run, to="paused", actor=alice)
    with (
        pytest.raises(DatabaseError, match="append-only"),
        tenant_scope(tenant.id, using="owner"),
        transaction.atomic(using="owner"),
    ):
        from django.db import connections

        with connections["owner"].cursor() as cursor:
            cursor.execute(statement)


@pytest.mark.django_db
def test_a_tenants_own_row_and_key_have_chains_too(tenant: Tenant, scope: None) -> None:
    trail.record(tenant, action="emergency_stop", actor=system("test"), detail={"agents": 2})
    trail.record(tenant, action="emergency_stop_lifted", actor=system("test"))
    assert [entry.object_seq for entry in history.of("tenant", tenant.id)] == [1, 2]
    assert verification.verify(tenant.id) == []


@pytest.mark.django_db
def test_another_tenant_reads_nothing_of_the_trail(
    tenant: Tenant, other_tenant: Tenant, alice: Actor, new_run: type_new_run
) -> None:
    run = new_run()
    with tenant_scope(tenant.id):
        trail.transition(run, to="paused", actor=alice, reason="canary")
        assert history.newest().count() == 1
    with tenant_scope(other_tenant.id):
        assert list(history.newest()) == list(history.of("run", run.id)) == []
        assert not AuditNote.objects.exists()


def test_of_two_concurrent_transitions_one_wins_and_the_other_learns_the_status(
    committed_db: None, tenant: Tenant, alice: Actor, bob: Actor, new_run: type_new_run
) -> None:
    run = new_run()
    ready = threading.Barrier(2)

    def move(to: str, actor: Actor) -> str:
        try:
            with tenant_scope(tenant.id):
                mine = Run.objects.get(id=run.id)
                ready.wait(10)
                trail.transition(mine, to=to, actor=actor)
                return to
        except Conflict as lost:
            return f"lost to {lost.data['status']}"
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        winner, loser = sorted(pool.map(move, ["paused", "cancelled"], [alice, bob]), key=len)
    assert loser == f"lost to {winner}"
    with tenant_scope(tenant.id):
        assert Run.objects.get(id=run.id).status == winner
        assert history.of("run", run.id).get().to_status == winner
    assert verification.verify(tenant.id) == []


def test_many_writers_on_different_and_the_same_objects_keep_every_chain(
    committed_db: None, tenant: Tenant, alice: Actor, new_run: type_new_run
) -> None:
    own, shared = [new_run() for _ in range(4)], new_run()

    def act(run: Run) -> None:
        try:
            for n in range(15):
                with tenant_scope(tenant.id):
                    for one in sorted([run, shared], key=lambda each: each.id):
                        trail.record(Run.objects.get(id=one.id), action="touched", actor=alice, detail={"n": n})
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, own))
    with tenant_scope(tenant.id):
        assert [Run.objects.get(id=run.id).audit_seq for run in own] == [15] * 4
        assert list(history.of("run", shared.id).values_list("object_seq", flat=True)) == list(range(1, 61))
    assert verification.verify(tenant.id) == []
