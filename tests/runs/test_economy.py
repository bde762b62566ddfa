"""What a claim, a turn and an admission cost in round trips, and who waits for whom: numbers that must not creep up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentstate.core.errors import LockTimeout, Unavailable
from agentstate.core.ids import parse_id
from agentstate.db import sql
from agentstate.dev.testing import superuser_url
from agentstate.sdk.store import Budget, StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.engine import leases, turns
from runs.models import AgentVersion, Run, Worker
from runs.services import admission, clock, registry
from tests.runs.conftest import SPEC, Desk


def round_trips(act: Callable[[], Any]) -> list[str]:
    """What `act` asks the database, transactions' own statements included; one entry a round trip."""
    with CaptureQueriesContext(connection) as by_django, sql.watched() as by_hand:
        act()
    return [query["sql"] for query in by_django.captured_queries] + by_hand


@pytest.fixture
def warm(committed_db: None, alice: Actor) -> Desk:
    """A desk that has admitted and claimed before: the agent is registered and keys are unwrapped."""
    desk = Desk(alice)
    desk.finish(claim := desk.start(), desk.begin(claim, "look").seq)
    return desk


def test_an_admission_is_two_round_trips(warm: Desk) -> None:
    assert len(found := round_trips(lambda: warm.store.admit("desk", {"page": 1}, tags=["a", "b"]))) == 2, found


def test_an_admission_under_a_name_is_six_round_trips(warm: Desk) -> None:
    # The declaration; begin with the scope, the name's lock, the run of that name; all rows; commit.
    assert len(found := round_trips(lambda: warm.store.admit("desk", {}, external_id="one"))) == 6, found


def test_a_first_claim_is_two_round_trips(warm: Desk) -> None:
    run = warm.store.admit("desk", {})
    assert len(found := round_trips(lambda: warm.take(run.run_id))) == 2, found


def test_a_plain_turn_is_one_round_trip(warm: Desk) -> None:
    claim = warm.start()
    begun = warm.begin(claim, "look")
    turn = Turn(finish=[StepFinish(begun.seq, output=1)], start=[StepStart("look#2", "look")], state={"n": 1})
    assert len(found := round_trips(lambda: warm.store.turn(claim, turn))) == 1, found


def take_a_step(desk: Desk, claim: Any, n: int) -> None:
    desk.store.turn(claim, Turn(start=[StepStart(f"look#{n}", "look")]))


def test_a_turn_survives_that_its_prepared_statement_is_thrown_away(warm: Desk) -> None:
    """psycopg does so after a rollback, and a pooler may."""
    claim = warm.start()
    take_a_step(warm, claim, 1)
    connection.connection.execute("DEALLOCATE ALL")
    take_a_step(warm, claim, 2)
    with tenant_scope(warm.tenant_id):
        assert Run.objects.get(id=parse_id("run", claim.run_id)).step_seq == 2


def test_a_turn_goes_on_over_a_fresh_connection(warm: Desk) -> None:
    claim = warm.start()
    take_a_step(warm, claim, 1)
    with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"])), autocommit=True) as superuser:
        superuser.execute("SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid])
    take_a_step(warm, claim, 2)
    with tenant_scope(warm.tenant_id):
        assert Run.objects.get(id=parse_id("run", claim.run_id)).step_seq == 2


def test_a_turn_that_waits_too_long_for_its_run_has_not_happened_and_is_sent_again(warm: Desk) -> None:
    claim = warm.start()
    take_a_step(warm, claim, 1)
    sql.execute("SET lock_timeout = '20ms'")
    with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"]))) as frozen:
        frozen.execute("SELECT FROM runs_run WHERE id = %s FOR UPDATE", [parse_id("run", claim.run_id)])
        with pytest.raises(LockTimeout):
            take_a_step(warm, claim, 2)
    sql.execute("RESET lock_timeout")
    take_a_step(warm, claim, 2)
    with tenant_scope(warm.tenant_id):
        assert Run.objects.get(id=parse_id("run", claim.run_id)).step_seq == 2


def test_who_froze_inside_a_transaction_lost_its_locks_and_is_told_that_nothing_is_known(
    warm: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    existing = admission._existing

    def frozen(wanted: admission.Admission, plain: bytes) -> Run | None:
        sql.row("SELECT set_config('idle_in_transaction_session_timeout', '50ms', false)")
        with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"])), autocommit=True) as superuser:
            pid, end = connection.connection.info.backend_pid, time.monotonic() + 30
            while superuser.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
                assert time.monotonic() < end
                time.sleep(0.01)
        return existing(wanted, plain)

    with monkeypatch.context() as patched:
        patched.setattr(admission, "_existing", frozen)
        with pytest.raises(Unavailable, match="nothing is known"):
            warm.store.admit("desk", {}, external_id="one")
    run = warm.store.admit("desk", {}, external_id="one")
    assert warm.try_take(run.run_id) is not None


def steps_of(desk: Desk) -> list[dict[str, Any]]:
    """A run of three plain steps, and the rows it has left: what differs from run to run only as there or not."""
    claim, seq = desk.start(), 0
    for n in range(1, 4):
        ends = [StepFinish(seq, output={"n": n})] if seq else []
        start = StepStart(f"look#{n}", "look", payload={"page": n}, effect="replayable")
        seq = desk.store.turn(claim, Turn(finish=ends, start=[start], state={"n": n})).begun[0].seq
    with tenant_scope(desk.tenant_id):
        run = parse_id("run", claim.run_id)
        tables = {"runs_run": "id", "runs_step": "run_id", "checkpoints_frame": "run_id", "runs_event": "run_id"}
        found = [
            sql.rows(f"SELECT to_jsonb(t) FROM {table} t WHERE {key} = %s", [run]) for table, key in tables.items()
        ]
    same = {"seq", "n", "status", "identity", "name", "kind", "effect", "outcome", "attempt", "fence", "generation"}
    same |= {"step_seq", "event_seq", "frame_n", "claims", "end_frame", "base_n", "schema_version", "plain_bytes"}
    same |= {"detail", "source", "model", "error_type", "sent", "retry", "has_probe", "tokens_in", "cost", "control"}
    rows = [json.loads(row[0]) for rows in found for row in rows]
    alike = [{name: value if name in same else value is None for name, value in row.items()} for row in rows]
    return sorted(alike, key=str)


def test_a_plain_turn_writes_what_the_whole_one_writes(
    committed_db: None, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, sent, plain = Desk(alice), list[Any](), turns.PLAIN_TURN

    def watched(args: Any) -> Any:
        sent.append(plain(args))
        return sent[-1]

    monkeypatch.setattr(turns, "PLAIN_TURN", watched)
    rows = steps_of(desk)
    assert sent == [b"1", b"2", b"3"]
    monkeypatch.setattr(turns, "PLAIN_TURN", lambda args: None)
    assert steps_of(desk) == rows


def test_what_is_not_plain_for_the_database_is_not_tried_for_a_while(
    warm: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here for a budget, of which there is enough: each of these turns goes on."""
    monkeypatch.setattr(turns, "CLOSER_FOR_S", 600.0)  # the machine may be slow
    claim = warm.take(warm.store.admit("desk", {}, budget=Budget(steps=10)).run_id)
    found = [len(round_trips(partial(take_a_step, warm, claim, n))) for n in (1, 2)]
    warm.store.session_of(claim.run_id, claim.fence).closer_until = time.monotonic()
    found += [len(round_trips(partial(take_a_step, warm, claim, n))) for n in (3, 4)]
    assert found == [2, 1, 2, 1]


def test_an_update_of_a_turn_touches_no_index(db: None, alice: Actor) -> None:
    """An index over a column that turns change would be written anew with each of them."""
    desk = Desk(alice)
    claim = desk.start()
    seq, before = desk.begin(claim, "look").seq, {table: updates(table) for table in ("runs_run", "runs_step")}
    for n in range(2, 5):
        start = StepStart(f"look#{n}", "look")
        seq = desk.store.turn(claim, Turn(finish=[StepFinish(seq, output=n)], start=[start])).begun[0].seq
    for table, (updated, hot) in before.items():
        assert updates(table) == (updated + 3, hot + 3), table


def updates(table: str) -> tuple[int, int]:
    """Updates in this transaction, and how many of them were heap-only."""
    found = sql.row(
        "SELECT pg_stat_get_xact_tuples_updated(%s::regclass), pg_stat_get_xact_tuples_hot_updated(%s::regclass)",
        [table, table],
    )
    assert found is not None
    return found[0], found[1]


def test_a_turn_reads_the_rows_it_changes_and_no_others(db: None, alice: Actor) -> None:
    """Also by a plan that was made while the tables were empty, when all indexes cost the same."""
    desk = Desk(alice)
    for _ in range(5):
        desk.start()
    claim, seq = desk.start(), 0
    for n in range(1, 21):
        before = {table: read(table) for table in ("runs_run", "runs_step")}
        finish = [StepFinish(seq, output=n)] if seq else []
        seq = desk.store.turn(claim, Turn(finish=finish, start=[StepStart(f"look#{n}", "look")])).begun[0].seq
        assert read("runs_run") == before["runs_run"] + 1
        assert read("runs_step") == before["runs_step"] + len(finish)


def read(table: str) -> int:
    """Rows of a table that this transaction has read, by an index or one after the other."""
    row = sql.row("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s", [table])
    assert row is not None
    return int(row[0])


@contextmanager
def another_registering(desk: Desk) -> Iterator[None]:
    """Another claim is just writing that it has seen the agent, and has not committed."""
    with psycopg.connect(settings.DATABASE_URL) as other:
        other.execute("SELECT set_config('agentstate.tenant', %s, true)", [str(desk.tenant_id)])
        assert other.execute("UPDATE runs_agentversion SET seen_at = clock_timestamp()").rowcount == 1
        assert other.execute("UPDATE runs_tool SET seen_at = clock_timestamp()").rowcount == 1
        yield
        other.rollback()


def test_claims_of_one_agent_do_not_wait_for_each_other(committed_db: None, alice: Actor) -> None:
    desk = Desk(alice)
    run = desk.store.admit("desk", {})
    age(desk)
    with another_registering(desk), impatient():
        assert desk.try_take(run.run_id) is not None


def age(desk: Desk) -> None:
    """Nobody has seen the agent for an hour, and this process remembers nothing."""
    registry.forget()
    with tenant_scope(desk.tenant_id):
        for table in ("runs_agentversion", "runs_tool"):
            sql.execute(f"UPDATE {table} SET seen_at = clock_timestamp() - interval '1 hour'")


@contextmanager
def impatient() -> Iterator[None]:
    sql.row("SELECT set_config('lock_timeout', '2s', false)")
    yield
    sql.row("SELECT set_config('lock_timeout', '0', false)")


def test_a_claim_refreshes_what_nobody_holds(committed_db: None, alice: Actor) -> None:
    desk = Desk(alice)
    age(desk)
    desk.start()
    with tenant_scope(desk.tenant_id):
        late = "SELECT 1 FROM {} WHERE seen_at < clock_timestamp() - interval '1 minute'"
        assert [sql.row(late.format(table)) for table in ("runs_agentversion", "runs_tool")] == [None, None]


def test_what_was_rolled_back_is_not_remembered(committed_db: None, alice: Actor) -> None:
    tenant_id = alice.tenant_id
    assert tenant_id is not None
    with pytest.raises(ZeroDivisionError), tenant_scope(tenant_id):
        registry.register(SPEC)
        raise ZeroDivisionError
    assert registry.known(tenant_id, SPEC) is None
    Desk(alice)
    assert registry.known(tenant_id, SPEC) is not None
    with tenant_scope(tenant_id):
        assert AgentVersion.objects.count() == 1


def test_a_claim_that_was_taken_over_before_it_was_loaded_is_none(
    committed_db: None, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = Desk(alice), Desk(alice)
    run = slow.store.admit("desk", {})
    taken: list[Any] = []

    def hit(name: str) -> None:
        if name == "claim.committed" and not taken:
            taken.append(None)
            with tenant_scope(slow.tenant_id):
                Run.objects.update(lease_until=clock.database_now())
            taken.append(quick.take(run.run_id))

    monkeypatch.setattr(leases, "hit", hit)
    assert slow.try_take(run.run_id) is None
    assert taken[1].fence == 2


def test_a_worker_that_was_taken_for_dead_claims_under_a_new_row(committed_db: None, alice: Actor) -> None:
    desk = Desk(alice)
    desk.start()
    Worker.objects.update(dead_at=clock.database_now(), dead_proof="by mistake")
    claim = desk.start()
    with tenant_scope(desk.tenant_id):
        run = Run.objects.select_related("worker").get(id=parse_id("run", claim.run_id))
    assert run.worker is not None and run.worker.dead_at is None


def test_a_claim_asks_again_over_a_fresh_connection(warm: Desk) -> None:
    """Nothing looks whether a connection still works before the call: that would be another round trip."""
    run = warm.store.admit("desk", {})
    with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"])), autocommit=True) as superuser:
        superuser.execute("SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid])
    assert warm.try_take(run.run_id) is not None
