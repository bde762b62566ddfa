"""How runs start, go on, are stopped, and end; and what bad input leaves behind: nothing."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from agentstate.core.errors import Conflict, Fenced, Forbidden, Invalid, NonDeterminism, NotFound, TooLarge
from agentstate.core.ids import parse_id
from agentstate.core.limits import CLAIMS_WITHOUT_PROGRESS_MAX
from agentstate.sdk.store import (
    AgentSpec,
    Budget,
    Claim,
    Continue,
    End,
    Entry,
    Failure,
    Park,
    StepFinish,
    StepStart,
    Turn,
    Usage,
)
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from checkpoints import reading
from runs import scratchpad
from runs.engine import leases
from runs.engine import session as sessions
from runs.models import AdmissionKey, Event, Run, StatusDelta, Step
from runs.services import admission, approvals, clock, control, sweep, timers
from tests.runs.conftest import SPEC, Desk


def test_the_same_external_id_is_the_same_run(desk: Desk) -> None:
    first = desk.store.admit("desk", {}, external_id="order-1")
    second = desk.store.admit("desk", {"other": 1}, external_id="order-1")
    assert (first.created, second.created, second.run_id) == (True, False, first.run_id)


def test_the_same_idempotency_key_is_the_same_run_and_never_another_body(desk: Desk) -> None:
    first = desk.store.admit("desk", {"a": 1}, idempotency_key="k")
    assert desk.store.admit("desk", {"a": 1}, idempotency_key="k").run_id == first.run_id
    with pytest.raises(Conflict, match="another body"):
        desk.store.admit("desk", {"a": 2}, idempotency_key="k")
    with tenant_scope(desk.tenant_id):
        assert Run.objects.count() == AdmissionKey.objects.count() == 1


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"input": {"text": "a\0b"}}, "/input/text"),
        ({"input": {"text": "\ud800"}}, "/input/text"),
        ({"input": {"n": float("nan")}}, "/input/n"),
        ({"input": {"n": 2**63}}, "/input/n"),
        ({"tags": ["ok", ""]}, "/tags/1"),
        ({"tags": ["x"] * 21}, "/tags"),
        ({"external_id": "x" * 201}, "/external_id"),
        ({"budget": Budget(steps=0)}, "/budget/steps"),
    ],
)
def test_bad_input_names_the_field_and_leaves_nothing(desk: Desk, more: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        desk.store.admit("desk", more.pop("input", {}), **more)
    assert refused.value.field == field
    with tenant_scope(desk.tenant_id):
        assert not Run.objects.exists()


def test_input_of_depth_1000_and_of_20_mb_are_refused(desk: Desk) -> None:
    deep: Any = 0
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(Invalid):
        desk.store.admit("desk", deep)
    with pytest.raises(TooLarge):
        desk.store.admit("desk", {"text": "x" * (20 * 1024 * 1024 + 1)})
    with tenant_scope(desk.tenant_id):
        assert not Run.objects.exists()


def test_an_unknown_agent_is_named_with_what_there_is(desk: Desk) -> None:
    with pytest.raises(NotFound, match="known: desk"):
        desk.store.admit("nobody", {})


def test_input_must_fit_the_agents_schema(desk: Desk) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    desk.store.register(AgentSpec("strict", "1", input_schema=schema))
    with pytest.raises(Invalid) as refused:
        desk.store.admit("strict", {"n": "one"})
    assert refused.value.field == "/input/n"


def test_starting_needs_the_right(victor: Actor, desk: Desk) -> None:
    with pytest.raises(Forbidden):
        admission.admit(admission.Admission("desk", {}), actor=victor)


def test_a_large_payload_becomes_blobs_and_comes_back_whole(desk: Desk) -> None:
    claim = desk.start()
    text = "lorem ipsum " * 20_000
    desk.store.turn(claim, Turn(start=[StepStart("a#1", "a")], state={"text": text}))
    assert desk.retake(claim).state == {"text": text}


def test_state_over_the_cap_names_its_largest_key_and_is_not_written(desk: Desk) -> None:
    claim = desk.start()
    with pytest.raises(TooLarge, match="big"):
        state = {"big": [str(n) * 40 for n in range(30_000)], "small": 1}
        desk.store.turn(claim, Turn(start=[StepStart("a#1", "a")], state=state))
    assert desk.run(claim).frame_n == 0


def test_another_payload_is_nondeterminism(desk: Desk) -> None:
    claim = desk.start()
    desk.begin(claim, "look", payload={"q": 1})
    claim = desk.retake(claim)
    with pytest.raises(NonDeterminism, match="another payload"):
        desk.begin(claim, "look", payload={"q": 2})


def test_a_turn_sent_twice_gives_the_same_answer(desk: Desk) -> None:
    """COMMIT's reply was lost: the frame with this chain is there already."""
    claim = desk.start()
    session = desk.store.session_of(claim.run_id, claim.fence)
    first = desk.begin(claim, "look", payload={"q": 1})
    again = desk.begin(claim, "look", payload={"q": 1}, attempt=1)
    assert (again.action, again.seq, again.attempt) == (first.action, first.seq, first.attempt)
    assert session.step_seq == 1


def test_a_committed_turn_whose_reply_was_lost_is_not_written_again(desk: Desk, monkeypatch: Any) -> None:
    from runs.engine import turns

    claim = desk.start()
    real = turns.PLAIN_TURN
    calls: list[Any] = []

    def lossy(args: Any) -> Any:
        found = real(args)
        if not calls:
            calls.append(found)
            raise ConnectionResetError("the reply of COMMIT is lost")
        return found

    monkeypatch.setattr(turns, "PLAIN_TURN", lossy)
    turn = Turn(start=[StepStart("look#1", "look", payload={"q": 1})], state={"n": 1})
    with pytest.raises(ConnectionResetError):
        desk.store.turn(claim, turn)
    reply = desk.store.turn(claim, turn)
    assert (reply.begun[0].action, reply.begun[0].seq) == ("execute", 1)
    assert desk.run(claim).step_seq == 1


def test_an_old_fence_writes_nothing(desk: Desk) -> None:
    old = desk.start()
    desk.begin(old, "look")
    new = desk.retake(old)
    assert new.fence > old.fence
    for act in (
        lambda: desk.begin(old, "more"),
        lambda: desk.finish(old, 1, output=1),
        lambda: desk.store.renew(old),
        lambda: desk.store.turn(old, Turn(then=End("succeeded"))),
    ):
        with pytest.raises(Fenced):
            act()
    assert desk.run(new).status == "running"


def test_a_live_lease_cannot_be_taken(desk: Desk) -> None:
    claim = desk.start()
    assert desk.try_take(claim.run_id) is None
    assert desk.store.renew(claim).lease_s == 5


def test_a_lapsed_lease_is_not_renewed(desk: Desk) -> None:
    claim = desk.start()
    desk.lose(claim)
    with pytest.raises(Fenced):
        desk.store.renew(claim)


def test_pausing_a_driven_run_begins_nothing_more(desk: Desk, alice: Actor) -> None:
    claim = desk.start()
    begun = desk.begin(claim, "look")
    control.pause(parse_id("run", claim.run_id), actor=alice, reason="wait")
    assert desk.store.renew(claim).control == "pause"
    reply = desk.store.turn(claim, Turn(finish=[StepFinish(begun.seq, output=1)], start=[StepStart("b#1", "b")]))
    assert (reply.control, list(reply.begun)) == ("pause", [])
    assert desk.step(claim).status == "done"
    assert desk.store.turn(claim, Turn(then=Park("pause"))).status == "paused"
    resumed = control.resume(parse_id("run", claim.run_id), actor=alice, reason="go on")
    assert resumed.status == "queued"
    assert desk.take(claim.run_id).control is None


def test_a_cancelled_run_whose_worker_is_gone_ends_cancelled_and_its_effect_is_in_doubt(
    desk: Desk, alice: Actor
) -> None:
    claim = desk.start()
    desk.begin(claim, "refund", effect="destructive")
    control.cancel(parse_id("run", claim.run_id), actor=alice)
    desk.lose(claim)
    assert desk.try_take(claim.run_id) is None
    assert desk.run(claim).status == "cancelled"
    assert desk.step(claim).status == "in_doubt"


def test_a_failed_run_resumes_at_the_step_that_failed(desk: Desk, alice: Actor) -> None:
    claim = desk.start()
    one = desk.begin(claim, "one")
    desk.finish(claim, one.seq, output=1)
    two = desk.begin(claim, "two")
    desk.finish(claim, two.seq, outcome="failed", failure=Failure("Boom", "x"))
    desk.store.turn(claim, Turn(then=End("failed", failure=Failure("Boom", "x"))))
    run = desk.run(claim)
    assert (run.status, run.error_type, run.error_step) == ("failed", "Boom", two.seq)
    with pytest.raises(Invalid):
        control.resume(run.id, actor=alice, reason=" ")
    control.resume(run.id, actor=alice, reason="fixed")
    claim = desk.take(claim.run_id)
    assert [record.name for record in claim.history] == ["one"]
    again = desk.begin(claim, "two", attempt=1)
    assert (again.action, again.attempt) == ("execute", 2)


def test_an_emergency_stop_begins_nothing_and_lets_what_is_under_way_end(desk: Desk, alice: Actor) -> None:
    claim = desk.start()
    begun = desk.begin(claim, "look")
    waiting = desk.store.admit("desk", {})
    control.emergency_stop(actor=alice, reason="fire")
    assert desk.try_take(waiting.run_id) is None
    reply = desk.store.turn(claim, Turn(finish=[StepFinish(begun.seq, output=1)], start=[StepStart("b#1", "b")]))
    assert reply.control == "stop"
    assert desk.step(claim).status == "done"
    assert desk.store.turn(claim, Turn(then=Park("stop"))).status == "paused"
    assert control.lift(actor=alice, reason="out") == 1
    desk.take(claim.run_id)
    desk.take(waiting.run_id)


def test_a_used_up_budget_waits_for_a_person_who_may_raise_it(desk: Desk, alice: Actor, bob: Actor) -> None:
    claim = desk.start(budget=Budget(tokens=100))
    begun = desk.begin(claim, "ask model")
    finish = StepFinish(begun.seq, output=1, usage=Usage("m", 80, 40, 0.5))
    reply = desk.store.turn(claim, Turn(finish=[finish], start=[StepStart("b#1", "b")]))
    assert (reply.control, list(reply.begun)) == ("budget", [])
    assert desk.store.turn(claim, Turn(then=Park("budget"))).status == "waiting"
    with tenant_scope(desk.tenant_id):
        from runs.models import Approval

        approval = Approval.objects.get(kind="budget")
    seen = {"version": 1, "proposal_hash": bytes(approval.proposal_hash).hex()}
    approvals.decide(approval.id, actor=bob, decision="edit", args={"tokens": 1000}, **seen)  # type: ignore[arg-type]
    claim = desk.take(claim.run_id)
    assert desk.begin(claim, "b").action == "execute"
    assert desk.run(claim).tokens_in == 80


def test_a_run_that_kills_its_workers_is_quarantined(desk: Desk) -> None:
    claim = desk.start()
    for _ in range(4):
        claim = desk.retake(claim)
    desk.lose(claim)
    assert desk.try_take(claim.run_id) is None
    run = desk.run(claim)
    assert (run.status, run.error_type) == ("failed", "Poison")


def test_a_claim_that_came_too_late_is_no_try_of_the_agents_code(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    load = sessions.load_claimed

    def slow(tenant_id: UUID, run_id: UUID, **more: Any) -> Any:
        with tenant_scope(tenant_id):
            Run.objects.filter(id=run_id).update(lease_until=clock.database_now() - timedelta(seconds=1))
        return load(tenant_id, run_id, **more)

    run = desk.store.admit("desk", {})
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "load_claimed", slow)
        patched.setattr(leases, "monotonic", itertools.count(0.0, desk.store.lease_s).__next__)
        for _ in range(2 * CLAIMS_WITHOUT_PROGRESS_MAX):
            assert desk.try_take(run.run_id) is None
    claim = desk.take(run.run_id)
    assert (claim.fence, desk.run(claim).claims) == (2 * CLAIMS_WITHOUT_PROGRESS_MAX + 1, 1)


def test_a_slow_claim_that_was_taken_over_is_no_try_either(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    load, taken = sessions.load_claimed, []

    def overtaken(tenant_id: UUID, run_id: UUID, **more: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(sessions, "load_claimed", load)
            with tenant_scope(tenant_id):
                Run.objects.filter(id=run_id).update(lease_until=clock.database_now() - timedelta(seconds=1))
            taken.append(desk.take(run.run_id))
        return load(tenant_id, run_id, **more)

    run = desk.store.admit("desk", {})
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "load_claimed", overtaken)
        assert desk.try_take(run.run_id) is None
    [claim] = taken
    assert (claim.fence, desk.run(claim).claims) == (2, 1)


def test_a_claim_that_took_long_to_load_is_handed_out_with_a_fresh_lease(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = desk.store.admit("desk", {})
    soon = timedelta(seconds=desk.store.lease_s / 2)

    def slow(tenant_id: UUID, run_id: UUID, **more: Any) -> Any:
        with tenant_scope(tenant_id):
            Run.objects.filter(id=run_id).update(lease_until=clock.database_now() + soon)
        return load(tenant_id, run_id, **more)

    load = sessions.load_claimed
    monkeypatch.setattr(sessions, "load_claimed", slow)
    monkeypatch.setattr(leases, "monotonic", itertools.count(0.0, desk.store.lease_s / 2).__next__)
    claim = desk.take(run.run_id)
    assert _left(desk, claim) > soon


def test_each_claim_without_a_turn_gets_a_longer_lease(desk: Desk) -> None:
    claim = desk.start()
    for times in (2, 4, 8, 8):
        claim = desk.retake(claim)
        assert _left(desk, claim) > timedelta(seconds=desk.store.lease_s * times / 2)


def _left(desk: Desk, claim: Claim) -> timedelta:
    """Of its lease."""
    until = desk.run(claim).lease_until
    assert until is not None
    with tenant_scope(desk.tenant_id):
        return until - clock.database_now()


def test_progress_clears_the_count_of_claims(desk: Desk) -> None:
    claim = desk.start()
    for n in range(8):
        desk.begin(claim, "look", identity=f"look#{n}")
        claim = desk.retake(claim)
    assert desk.run(claim).claims == 1


def test_one_live_run_per_session(desk: Desk) -> None:
    first = desk.start(session="u1")
    with pytest.raises(Conflict) as refused:
        desk.store.admit("desk", {}, session="u1")
    assert refused.value.data["run"] == first.run_id
    second = desk.store.admit("desk", {}, session="u1", session_policy="queue")
    assert desk.try_take(second.run_id) is None
    desk.store.turn(first, Turn(then=End("succeeded", output=None)))
    desk.take(second.run_id)


def test_a_replacing_run_waits_until_the_live_one_has_stopped(desk: Desk) -> None:
    first = desk.start(session="u1")
    second = desk.store.admit("desk", {}, session="u1", session_policy="replace")
    assert desk.store.renew(first).control == "cancel"
    assert desk.try_take(second.run_id) is None
    desk.store.turn(first, Turn(then=End("cancelled")))
    desk.take(second.run_id)


def test_a_timer_wakes_the_run_when_it_is_due(desk: Desk, alice: Actor) -> None:
    claim = desk.start()
    start = StepStart("sleep#1", "sleep", "timer", due_s=30.0)
    reply = desk.store.turn(claim, Turn(start=[start], then=Park("timer", due_s=30.0)))
    assert (reply.status, reply.begun[0].action) == ("waiting", "wait")
    with tenant_scope(desk.tenant_id):
        timers.fire(parse_id("run", claim.run_id), actor=alice)
    assert desk.run(claim).status == "waiting"
    desk.age(claim, seconds=31)
    with tenant_scope(desk.tenant_id):
        Run.objects.update(due_at=clock.database_now() - timedelta(seconds=1))
    assert sweep.look() == 1
    claim = desk.take(claim.run_id)
    assert desk.begin(claim, "sleep", kind="timer").action == "replay"


def test_continue_from_closes_the_generation(desk: Desk) -> None:
    claim = desk.start()
    begun = desk.begin(claim, "look")
    desk.store.turn(claim, Turn(finish=[StepFinish(begun.seq, output=1)], then=Continue({"page": 7})))
    assert desk.begin(claim, "look").action == "execute"  # the same identity, in the next generation
    claim = desk.retake(claim)
    assert (claim.generation, claim.base_state, claim.state) == (1, {"page": 7}, {"page": 7})
    assert [record.seq for record in claim.history] == [2]


def test_changed_code_stops_the_run_with_the_difference(desk: Desk, alice: Actor) -> None:
    claim = desk.start()
    desk.begin(claim, "look")
    desk.lose(claim)
    changed = AgentSpec("desk", "2", fingerprint={"main": "b", "step:look": "c"})
    assert desk.try_take(claim.run_id, changed) is None
    run = desk.run(claim)
    assert (run.status, run.waiting_for) == ("paused", "code")
    control.resume(run.id, actor=alice, reason="the change is harmless")
    assert desk.try_take(claim.run_id, changed) is not None


def test_a_changed_comment_does_not_stop_a_run(desk: Desk) -> None:
    claim = desk.start()
    desk.begin(claim, "look")
    desk.lose(claim)
    assert desk.try_take(claim.run_id, AgentSpec("desk", "2", fingerprint=SPEC.fingerprint)) is not None


def test_entries_ride_into_the_trace_and_are_rebuilt_after_flushall(desk: Desk, redis: Any) -> None:
    claim = desk.start()
    entries = [Entry(1, "note", "first"), Entry(2, "note", "second", important=True)]
    desk.store.note(claim, entries)
    session = desk.store.session_of(claim.run_id, claim.fence)
    live = scratchpad.read(desk.tenant_id, session.run_id, session.key)
    assert live is not None and [item["text"] for item in live] == ["first", "second"]
    assert all(item["tokens"] > 0 for item in live)
    desk.store.turn(claim, Turn(start=[StepStart("a#1", "a")], entries=entries))
    redis.flushall()
    assert scratchpad.read(desk.tenant_id, session.run_id, session.key) is None
    taken = desk.retake(claim)
    assert [entry.text for entry in taken.entries] == ["first", "second"]
    live = scratchpad.read(desk.tenant_id, session.run_id, session.key)
    assert live is not None and [item["n"] for item in live] == [1, 2]
    with tenant_scope(desk.tenant_id):
        assert Event.objects.filter(kind="entry").count() == 2


def test_what_a_dead_worker_had_only_shown_is_given_to_the_next(desk: Desk) -> None:
    claim = desk.start()
    desk.store.note(claim, [Entry(1, "note", "seen, not yet durable")])
    taken = desk.retake(claim)
    assert [entry.text for entry in taken.entries] == ["seen, not yet durable"]
    assert taken.entry_next == 2
    with tenant_scope(desk.tenant_id):
        assert Event.objects.filter(kind="entry").count() == 1
    again = desk.retake(taken)
    assert [entry.text for entry in again.entries] == ["seen, not yet durable"]


def test_the_scratchpad_of_a_run_that_is_over_leaves_redis_and_stays_in_the_trace(
    committed_db: None, alice: Actor, redis: Any
) -> None:
    desk = Desk(alice)
    claim = desk.start()
    entries = [Entry(1, "note", "kept")]
    desk.store.note(claim, entries)
    desk.store.turn(claim, Turn(entries=entries, then=End("succeeded", output=None)))
    assert not [key for key in redis.scan_iter("as:*") if b":run:" in key]
    with tenant_scope(desk.tenant_id):
        assert Event.objects.filter(kind="entry").count() == 1


def test_the_scratchpad_is_sealed_and_fenced(desk: Desk, redis: Any) -> None:
    old = desk.start()
    desk.store.note(old, [Entry(1, "note", "canary-4711")])
    new = desk.retake(old)
    desk.store.note(old, [Entry(9, "note", "zombie")])
    session = desk.store.session_of(new.run_id, new.fence)
    live = scratchpad.read(desk.tenant_id, session.run_id, session.key)
    assert live is not None and [item["text"] for item in live] == ["canary-4711"]
    for key in redis.scan_iter("as:*"):
        if redis.type(key) == b"hash":
            assert b"canary" not in b"".join(redis.hgetall(key).values())


def test_every_status_is_audited_and_counted(desk: Desk) -> None:
    from agentstate.audit import verification
    from agentstate.audit.models import AuditEntry

    claim = desk.start()
    desk.store.turn(claim, Turn(then=End("succeeded", output={"ok": True})))
    assert desk.store.get(claim.run_id).output == {"ok": True}
    with tenant_scope(desk.tenant_id):
        actions = list(AuditEntry.objects.filter(object_type="run").order_by("id").values_list("action", flat=True))
        assert actions == ["run.admitted", "run.running", "run.succeeded"]
        assert StatusDelta.objects.get().status == "succeeded"
    assert verification.verify(desk.tenant_id) == []
    sweep.fold_counts()
    with tenant_scope(desk.tenant_id):
        assert not StatusDelta.objects.exists()


def test_an_effect_is_claimed_and_settled_in_the_audit_under_its_number(desk: Desk) -> None:
    from agentstate.audit.models import AuditEntry

    claim = desk.start()
    looked = desk.begin(claim, "look")
    reply = desk.store.turn(
        claim,
        Turn(
            finish=[StepFinish(looked.seq, output=1)],
            start=[StepStart("refund#1", "refund", "tool", "destructive", timeout_s=2.0)],
        ),
    )
    desk.finish(claim, reply.begun[0].seq, output=2)
    with tenant_scope(desk.tenant_id):
        acts = AuditEntry.objects.filter(action__startswith="effect.").order_by("id").values_list("action", "detail")
        assert [(action, detail["seq"]) for action, detail in acts] == [("effect.claimed", 2), ("effect.settled", 2)]


def test_frames_verify_against_the_steps_of_their_turn(desk: Desk) -> None:
    claim = desk.start()
    for n in range(5):
        begun = desk.begin(claim, "look", identity=f"look#{n}")
        desk.finish(claim, begun.seq, output=n)
    with tenant_scope(desk.tenant_id):
        run = Run.objects.get()
        newest = reading.newest(run.tenant_id, run.id)
        assert newest is not None and newest.n == run.frame_n == 10
        assert newest.chain == bytes(run.chain)
        assert Step.objects.filter(end_frame__isnull=False).count() == 5


def test_a_connection_that_was_dropped_costs_a_turn_nothing(committed_db: None, alice: Actor) -> None:
    from django.db import connection

    desk = Desk(alice)
    claim = desk.start()
    turn = Turn(start=[StepStart("look#1", "look", payload={"q": 1})], state={"n": 1})
    connection.ensure_connection()
    connection.connection.pgconn.finish()  # the server has gone
    assert desk.store.turn(claim, turn).begun[0].action == "execute"
    assert desk.run(claim).step_seq == 1
