"""Admission, leases, fences: one worker at a time, and no word of a former one counts."""

from __future__ import annotations

import pytest

from agentstate.core.errors import Fenced, NotFound
from agentstate.core.limits import CLAIMS_WITHOUT_PROGRESS_MAX
from agentstate.sdk.store import Budget, End, Entry, Park, StepFinish, Turn
from tests.conformance.turns import SPEC, WORKER, Bench, step


def test_the_same_external_id_is_the_same_run(bench: Bench) -> None:
    first = bench.store.admit(SPEC.name, {"q": 1}, external_id="order-1")
    again = bench.store.admit(SPEC.name, {"q": 1}, external_id="order-1")
    assert (first.created, again.created) == (True, False)
    assert again.run_id == first.run_id


def test_an_unknown_agent_and_an_unknown_run_are_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.store.admit("nobody", {})
    with pytest.raises(NotFound):
        bench.store.get("run_" + "0" * 32)


def test_a_claim_holds_the_input_and_only_one_worker_gets_it(bench: Bench) -> None:
    claim = bench.admit(input={"q": ["ä", None, 1.5]})
    assert claim.input == {"q": ["ä", None, 1.5]}
    assert (claim.agent, claim.mode, claim.generation, claim.history) == ("desk", "replay", 0, ())
    assert bench.try_take(claim.run_id) is None
    assert bench.store.get(claim.run_id).status == "running"


def test_the_oldest_due_run_of_the_hosted_agents_is_claimed(bench: Bench) -> None:
    first = bench.store.admit(SPEC.name, {"n": 1})
    bench.store.admit(SPEC.name, {"n": 2})
    claim = bench.store.claim(WORKER, agents={SPEC.name: SPEC})
    assert claim is not None
    assert claim.run_id == first.run_id


def test_a_lost_lease_gives_the_run_to_the_next_with_a_higher_fence(bench: Bench) -> None:
    old = bench.admit()
    new = bench.retake(old)
    assert new.fence > old.fence
    with pytest.raises(Fenced):
        bench.store.renew(old)
    with pytest.raises(Fenced):
        bench.begin(old)
    assert bench.take_history(new) == []


def test_a_lease_that_ended_is_lost_though_nobody_took_the_run(bench: Bench) -> None:
    claim = bench.admit()
    bench.world.expire_lease(claim.run_id)
    with pytest.raises(Fenced):
        bench.begin(claim)


def test_a_fenced_turn_leaves_nothing_behind(bench: Bench) -> None:
    old = bench.admit()
    begun = bench.begin(old)
    new = bench.retake(old)
    with pytest.raises(Fenced):
        bench.turn(old, finish=[StepFinish(begun.seq, output="zombie")], state={"z": 1}, then=End("succeeded"))
    claim = bench.retake(new)
    assert claim.history[0].status == "started"
    assert claim.state in (None, {})
    assert bench.store.get(claim.run_id).status == "running"


def test_a_late_reply_never_touches_the_step(bench: Bench) -> None:
    old = bench.admit()
    begun = bench.begin(old, "destructive")
    new = bench.retake(old)
    bench.store.late(old, StepFinish(begun.seq, output="late"))
    assert bench.retake(new).history[0].status in ("started", "in_doubt")


def test_renewing_keeps_the_lease(bench: Bench) -> None:
    claim = bench.admit()
    renewal = bench.store.renew(claim)
    assert renewal.lease_s == claim.lease_s > 0
    assert renewal.control is None


def test_a_run_that_is_claimed_again_and_again_without_progress_is_set_aside(bench: Bench) -> None:
    claim = bench.admit()
    for _ in range(CLAIMS_WITHOUT_PROGRESS_MAX - 1):
        claim = bench.retake(claim)
    bench.world.expire_lease(claim.run_id)
    assert bench.try_take(claim.run_id) is None
    assert bench.store.get(claim.run_id).status in ("paused", "failed")


def test_an_ended_run_is_never_claimed_and_keeps_its_output(bench: Bench) -> None:
    claim = bench.admit()
    reply = bench.turn(claim, then=End("succeeded", output={"ok": True}))
    assert reply.status == "succeeded"
    assert bench.try_take(claim.run_id) is None
    assert bench.store.get(claim.run_id).output == {"ok": True}


def test_entries_are_durable_once_and_numbered_on(bench: Bench) -> None:
    claim = bench.admit()
    entries = [Entry(1, "note", "one"), Entry(2, "reasoning", "two", important=True)]
    bench.store.note(claim, entries)
    bench.turn(claim, entries=entries, start=[step()])
    bench.turn(claim, entries=entries)
    claim = bench.retake(claim)
    assert [(entry.n, entry.text) for entry in claim.entries] == [(1, "one"), (2, "two")]
    assert claim.entry_next == 3


def test_pause_is_told_to_the_worker_and_obeyed_by_it(bench: Bench) -> None:
    claim = bench.admit()
    bench.world.pause(claim.run_id)
    assert bench.store.renew(claim).control == "pause"
    assert bench.turn(claim, entries=[Entry(1, "note", "x")]).control == "pause"
    assert bench.turn(claim, then=Park("pause")).status == "paused"
    assert bench.try_take(claim.run_id) is None
    bench.world.resume(claim.run_id)
    assert bench.take(claim.run_id).control is None


def test_cancel_reaches_a_queued_run_at_once(bench: Bench) -> None:
    info = bench.store.admit(SPEC.name, {})
    bench.world.cancel(info.run_id)
    assert bench.store.get(info.run_id).status == "cancelled"
    assert bench.try_take(info.run_id) is None


def test_cancel_is_told_to_the_worker(bench: Bench) -> None:
    claim = bench.admit()
    bench.world.cancel(claim.run_id)
    assert bench.turn(claim).control == "cancel"
    assert bench.turn(claim, then=End("cancelled")).status == "cancelled"


def test_shutdown_gives_the_run_back_at_once(bench: Bench) -> None:
    claim = bench.admit()
    assert bench.turn(claim, then=Park("shutdown", due_s=0.0)).status == "queued"
    assert bench.take(claim.run_id).fence > claim.fence


def test_a_used_up_budget_is_told_before_the_next_step(bench: Bench) -> None:
    claim = bench.admit(budget=Budget(steps=2))
    for number in (1, 2):
        assert bench.begin(claim, identity=f"look#{number}").action == "execute"
    reply = bench.turn(claim, start=[step(identity="look#3")])
    assert reply.control == "budget"
    assert not any(begun.action == "execute" for begun in reply.begun)


def test_the_last_turn_sent_twice_gives_the_same_answer(bench: Bench) -> None:
    claim = bench.admit()
    turn = Turn(then=End("succeeded", output=1))
    assert bench.store.turn(claim, turn).status == bench.store.turn(claim, turn).status == "succeeded"
