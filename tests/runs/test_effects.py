"""Promise 1: no destructive call is repeated by us. Each class after a crash, a lost reply, a probe and a person."""

from __future__ import annotations

import pytest

from agentstate.core.errors import Conflict, Fenced, Forbidden, Invalid
from agentstate.sdk.store import Failure, Park, StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.models import Approval, LateReply, StepAttempt
from runs.services import control, settling
from tests.runs.conftest import Desk

LOST = Failure("ReadTimeout", "no answer")


def in_doubt(desk: Desk) -> Approval:
    with tenant_scope(desk.tenant_id):
        return Approval.objects.get(kind="settle", status="pending")


def settle(desk: Desk, actor: Actor, verdict: str, **more: object) -> Approval:
    approval = in_doubt(desk)
    values = {"version": approval.version, "proposal_hash": bytes(approval.proposal_hash).hex(), "reason": "looked"}
    return settling.settle(approval.id, actor=actor, verdict=verdict, **{**values, **more})  # type: ignore[arg-type]


def test_a_pure_step_that_was_lost_runs_again(desk: Desk) -> None:
    claim = desk.start()
    desk.begin(claim, "look")
    again = desk.begin(desk.retake(claim), "look")
    assert (again.action, again.attempt, again.seq) == ("execute", 2, 1)
    with tenant_scope(desk.tenant_id):
        assert StepAttempt.objects.get().outcome == "lost"


def test_a_destructive_step_that_was_lost_is_in_doubt_and_stays_so(desk: Desk) -> None:
    claim = desk.start()
    first = desk.begin(claim, "refund", effect="destructive", timeout_s=2.0)
    assert len(first.key) == 64
    claim = desk.retake(claim)
    for _ in range(3):
        assert desk.begin(claim, "refund", effect="destructive").action == "doubt"
    assert desk.step(claim).status == "in_doubt"
    assert desk.step(claim).sent == 1
    reply = desk.store.turn(claim, Turn(then=Park("in_doubt")))
    assert reply.status == "in_doubt"
    assert desk.try_take(claim.run_id) is None


def test_a_destructive_call_without_an_answer_is_in_doubt_at_once(desk: Desk) -> None:
    claim = desk.start()
    first = desk.begin(claim, "refund", effect="destructive")
    desk.finish(claim, first.seq, outcome="unknown", failure=LOST)
    assert desk.step(claim).status == "in_doubt"
    assert desk.begin(claim, "refund", effect="destructive", attempt=2).action == "doubt"


@pytest.mark.parametrize("attempt", [None, 1, 2, 3])
def test_no_wording_of_the_request_gets_a_second_destructive_call(desk: Desk, attempt: int | None) -> None:
    claim = desk.start()
    desk.begin(claim, "refund", effect="destructive")
    claim = desk.retake(claim)
    assert desk.begin(claim, "refund", effect="destructive", attempt=attempt).action == "doubt"


def test_a_failed_destructive_step_cannot_claim_that_it_did_nothing(desk: Desk) -> None:
    claim = desk.start()
    first = desk.begin(claim, "refund", effect="destructive")
    desk.finish(claim, first.seq, outcome="failed", failure=LOST)
    assert desk.step(claim).status == "in_doubt"


def test_what_was_not_sent_may_be_sent_under_a_new_key(desk: Desk) -> None:
    claim = desk.start()
    first = desk.begin(claim, "refund", effect="destructive")
    desk.finish(claim, first.seq, outcome="not_sent", failure=Failure("ConnectError", "refused", retryable=True))
    second = desk.begin(claim, "refund", effect="destructive", attempt=2)
    assert (second.action, second.attempt) == ("execute", 2)
    assert second.key != first.key
    assert desk.step(claim).sent == 1


def test_a_refusal_is_final_and_is_told_again(desk: Desk) -> None:
    claim = desk.start()
    first = desk.begin(claim, "refund", effect="destructive")
    desk.finish(claim, first.seq, outcome="refused", failure=Failure("HTTPStatusError", "422"))
    again = desk.begin(claim, "refund", effect="destructive", attempt=2)
    assert again.action == "failed"
    assert again.failure == Failure("HTTPStatusError", "422")


def test_a_keyed_step_is_repeated_with_the_same_key_inside_its_window(desk: Desk) -> None:
    claim = desk.start()
    keyed = {"effect": "keyed", "window_s": 100.0, "timeout_s": 2.0}
    first = desk.begin(claim, "mail", **keyed)
    second = desk.begin(desk.retake(claim), "mail", **keyed)
    assert (second.action, second.key, second.attempt) == ("execute", first.key, 2)


def test_a_keyed_step_is_in_doubt_after_its_window(desk: Desk) -> None:
    claim = desk.start()
    keyed = {"effect": "keyed", "window_s": 100.0, "timeout_s": 2.0}
    desk.begin(claim, "mail", **keyed)
    desk.age(claim, seconds=99)  # a call takes up to 2 s, so the last second is no room for one
    assert desk.begin(desk.retake(claim), "mail", **keyed).action == "doubt"


def test_a_keyed_step_asks_its_probe_after_the_window_if_it_has_one(desk: Desk) -> None:
    claim = desk.start()
    keyed = {"effect": "keyed", "window_s": 100.0, "timeout_s": 2.0, "has_probe": True, "settles_within_s": 1.0}
    desk.begin(claim, "mail", **keyed)
    desk.age(claim, seconds=200)
    assert desk.begin(desk.retake(claim), "mail", **keyed).action == "probe"


PROBED = {"effect": "probed", "has_probe": True, "settles_within_s": 30.0, "timeout_s": 2.0}


def test_a_probe_that_says_it_happened_is_believed_at_once(desk: Desk) -> None:
    claim = desk.start()
    first = desk.begin(claim, "mail", **PROBED)
    claim = desk.retake(claim)
    asked = desk.begin(claim, "mail", **PROBED)
    assert (asked.action, asked.key) == ("probe", first.key)
    desk.finish(claim, asked.seq, source="probe", output={"id": 7})
    told = desk.begin(claim, "mail", **PROBED)
    assert (told.action, told.output) == ("replay", {"id": 7})
    assert desk.step(claim).source == "probe"


def test_a_probe_that_says_it_did_not_happen_is_not_believed_too_early(desk: Desk) -> None:
    claim = desk.start()
    first = desk.begin(claim, "mail", **PROBED)
    claim = desk.retake(claim)
    asked = desk.begin(claim, "mail", **PROBED)
    assert asked.wait_s is not None and asked.wait_s > 25
    desk.finish(claim, asked.seq, outcome="failed", source="probe")
    assert desk.begin(claim, "mail", **PROBED).action == "wait"
    desk.age(claim, seconds=60)
    assert desk.begin(claim, "mail", **PROBED).action == "probe"
    desk.finish(claim, asked.seq, outcome="failed", source="probe")
    assert desk.step(claim).status == "failed"
    second = desk.begin(claim, "mail", attempt=2, **PROBED)
    assert second.action == "execute"
    assert second.key != first.key


def test_three_probes_that_do_not_know_leave_it_in_doubt(desk: Desk) -> None:
    claim = desk.start()
    desk.begin(claim, "mail", **PROBED)
    claim = desk.retake(claim)
    for _ in range(3):
        asked = desk.begin(claim, "mail", **PROBED)
        assert asked.action == "probe"
        desk.finish(claim, asked.seq, outcome="unknown", source="probe")
    assert desk.begin(claim, "mail", **PROBED).action == "doubt"


def doubtful(desk: Desk, *, timeout_s: float = 2.0) -> tuple[object, str]:
    claim = desk.start()
    first = desk.begin(claim, "refund", effect="destructive", timeout_s=timeout_s, payload={"order": 1})
    claim = desk.retake(claim)
    desk.begin(claim, "refund", effect="destructive", payload={"order": 1})
    desk.store.turn(claim, Turn(then=Park("in_doubt")))
    return claim, first.key


def test_a_person_says_it_happened_and_the_run_goes_on_with_that_result(desk: Desk, bob: Actor) -> None:
    claim, _ = doubtful(desk)
    settle(desk, bob, "happened", output={"id": "re_1"}, evidence="ledger line 4")
    claim = desk.take(claim.run_id)  # type: ignore[attr-defined]
    told = desk.begin(claim, "refund", effect="destructive", payload={"order": 1})
    assert (told.action, told.output) == ("replay", {"id": "re_1"})
    assert desk.step(claim).source == "operator"


def test_it_happened_without_a_result_tells_the_agent_nothing_that_nobody_knows(desk: Desk, bob: Actor) -> None:
    claim, _ = doubtful(desk)
    settle(desk, bob, "happened", evidence="ledger line 4")
    claim = desk.take(claim.run_id)  # type: ignore[attr-defined]
    told = desk.begin(claim, "refund", effect="destructive", payload={"order": 1})
    assert (told.action, told.output) == ("replay", None)


def test_did_not_happen_stays_closed_while_the_old_call_may_be_under_way(desk: Desk, bob: Actor) -> None:
    doubtful(desk)
    with pytest.raises(Conflict, match="late answer may still come"):
        settle(desk, bob, "did_not_happen")
    assert in_doubt(desk).status == "pending"


def test_did_not_happen_authorises_one_call_with_the_same_key(desk: Desk, bob: Actor) -> None:
    claim, key = doubtful(desk)
    desk.age(claim, seconds=60)  # type: ignore[arg-type]
    settle(desk, bob, "did_not_happen")
    claim = desk.take(claim.run_id)  # type: ignore[attr-defined]
    again = desk.begin(claim, "refund", effect="destructive", payload={"order": 1})
    assert (again.action, again.key) == ("execute", key)
    claim = desk.retake(claim)
    assert desk.begin(claim, "refund", effect="destructive", payload={"order": 1}).action == "doubt"


def test_giving_up_fails_the_run_and_sends_nothing(desk: Desk, bob: Actor) -> None:
    claim, _ = doubtful(desk)
    settle(desk, bob, "give_up")
    assert desk.run(claim).status == "failed"  # type: ignore[arg-type]
    assert desk.step(claim).status == "failed"  # type: ignore[arg-type]


def test_a_step_given_up_in_doubt_is_never_called_by_a_resume(desk: Desk, alice: Actor, bob: Actor) -> None:
    claim, _ = doubtful(desk)
    settle(desk, bob, "give_up")
    with pytest.raises(Conflict, match="may have happened"):
        control.resume(desk.run(claim).id, actor=alice, reason="again")  # type: ignore[arg-type]
    assert desk.run(claim).status == "failed"  # type: ignore[arg-type]


def test_settling_needs_the_right_a_reason_and_the_proposal_that_was_seen(
    desk: Desk, bob: Actor, victor: Actor, charlie: Actor
) -> None:
    doubtful(desk)
    with pytest.raises(Forbidden):
        settle(desk, victor, "happened")
    with pytest.raises(Invalid):
        settle(desk, bob, "happened", reason="  ")
    with pytest.raises(Invalid):
        settle(desk, bob, "perhaps")
    with pytest.raises(Conflict, match="changed"):
        settle(desk, bob, "happened", version=2)
    approval = in_doubt(desk)
    with pytest.raises(Exception, match="no such approval"):
        settling.settle(approval.id, actor=charlie, verdict="happened", version=1, proposal_hash="", reason="x")
    assert in_doubt(desk).status == "pending"


def test_a_second_settling_is_told_who_was_first(desk: Desk, alice: Actor, bob: Actor) -> None:
    doubtful(desk)
    approval = in_doubt(desk)
    values = {"version": 1, "proposal_hash": bytes(approval.proposal_hash).hex(), "reason": "r"}
    settling.settle(approval.id, actor=bob, verdict="happened", client_token="t1", **values)  # type: ignore[arg-type]
    same = settling.settle(approval.id, actor=bob, verdict="happened", client_token="t1", **values)  # type: ignore[arg-type]
    assert same.status == "approved"
    with pytest.raises(Conflict) as refused:
        settling.settle(approval.id, actor=alice, verdict="give_up", **values)  # type: ignore[arg-type]
    assert refused.value.data["winner"] == bob.name


def test_a_late_reply_is_kept_as_evidence_and_changes_nothing(desk: Desk) -> None:
    old = desk.start()
    begun = desk.begin(old, "refund", effect="destructive")
    new = desk.retake(old)
    with pytest.raises(Fenced):
        desk.finish(old, begun.seq, output={"id": "re_1"})
    desk.store.late(old, StepFinish(begun.seq, output={"id": "re_1"}))
    assert desk.begin(new, "refund", effect="destructive").action == "doubt"
    with tenant_scope(desk.tenant_id):
        late = LateReply.objects.get()
        assert (late.fence, late.after_settled) == (old.fence, False)


def test_a_late_reply_after_did_not_happen_is_marked(desk: Desk, bob: Actor) -> None:
    claim, _ = doubtful(desk)
    desk.age(claim, seconds=60)  # type: ignore[arg-type]
    settle(desk, bob, "did_not_happen")
    desk.store.late(claim, StepFinish(1, output={}))  # type: ignore[arg-type]
    with tenant_scope(desk.tenant_id):
        assert LateReply.objects.get().after_settled


def test_a_run_does_not_succeed_over_an_effect_that_nobody_knows_about(desk: Desk) -> None:
    from agentstate.sdk.store import End

    claim = desk.start()
    desk.begin(claim, "refund", effect="destructive")
    claim = desk.retake(claim)
    desk.begin(claim, "refund", effect="destructive")
    reply = desk.store.turn(claim, Turn(then=End("succeeded", output=1)))
    assert reply.status == "in_doubt"


def test_an_effect_is_recorded_before_it_is_called(desk: Desk) -> None:
    claim = desk.start()
    start = StepStart("refund#1", "refund", effect="destructive", result=StepFinish(0, output=1))
    with pytest.raises(Invalid, match="before it is called"):
        desk.store.turn(claim, Turn(start=[start]))
    assert desk.run(claim).step_seq == 0


def test_a_turn_repeated_after_its_reply_was_lost_gets_the_time_that_is_left(desk: Desk) -> None:
    claim = desk.start()
    turn = Turn(start=[StepStart("refund#1", "refund", effect="destructive", timeout_s=2.0)])
    first = desk.store.turn(claim, turn).begun[0]
    desk.age(claim, seconds=1)
    second = desk.store.turn(claim, turn).begun[0]
    assert (second.action, second.attempt, second.key) == ("execute", 1, first.key)
    assert second.call_for_s <= first.call_for_s - 1
    assert desk.step(claim).sent == 1


def test_a_turn_repeated_under_a_lost_lease_is_fenced_and_never_told_to_call(desk: Desk) -> None:
    claim = desk.start()
    turn = Turn(start=[StepStart("refund#1", "refund", effect="destructive", timeout_s=2.0)])
    desk.store.turn(claim, turn)
    desk.retake(claim)
    with pytest.raises(Fenced):
        desk.store.turn(claim, turn)
