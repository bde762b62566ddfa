"""Approvals: bound to the proposal that was seen, decided once, used once, told apart to the agent."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from agentstate.affairs import invariants
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound
from agentstate.sdk.store import Begun, Claim, End, Park, Question, StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.models import Approval, ApprovalVote
from runs.services import approvals, clock
from tests.runs.conftest import Desk

SCHEMA = {
    "type": "object",
    "properties": {
        "order": {"type": "string", "readOnly": True},
        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 500},
    },
    "required": ["order", "amount"],
    "additionalProperties": False,
}
ARGS = {"order": "4411", "amount": 420.5}


def ask(desk: Desk, *, identity: str = "refund#1", park: bool = True, **more: Any) -> tuple[Claim, Begun]:
    claim = desk.start()
    return claim, ask_in(desk, claim, identity=identity, park=park, **more)


def ask_in(desk: Desk, claim: Claim, *, identity: str = "refund#1", park: bool = True, **more: Any) -> Begun:
    question = Question(title="Refund?", tool="refund", args=ARGS, schema=SCHEMA, reason="they asked", **more)
    start = StepStart(identity, "refund", "tool", "destructive", payload=ARGS, question=question, timeout_s=2.0)
    reply = desk.store.turn(claim, Turn(start=[start], then=Park("approval") if park else None))
    assert reply.begun[0].action == "wait"
    return reply.begun[0]


def pending(desk: Desk) -> Approval:
    with tenant_scope(desk.tenant_id):
        return Approval.objects.filter(status="pending").order_by("id").first()  # type: ignore[return-value]


def decide(desk: Desk, actor: Actor, decision: str, **more: Any) -> Approval:
    approval = more.pop("approval", None) or pending(desk)
    seen = {"version": approval.version, "proposal_hash": bytes(approval.proposal_hash).hex()}
    return approvals.decide(approval.id, actor=actor, decision=decision, **{**seen, **more})


def again(desk: Desk, claim: Claim, *, identity: str = "refund#1") -> Begun:
    return desk.begin(claim, "refund", identity=identity, kind="tool", effect="destructive", payload=ARGS)


def test_asking_waits_and_gives_the_lease_back(desk: Desk) -> None:
    claim, begun = ask(desk)
    run = desk.run(claim)
    assert (run.status, run.waiting_for, run.lease_until) == ("waiting", "approval", None)
    assert begun.approval_id.startswith("apr_")
    assert desk.try_take(claim.run_id) is None


def test_approved_runs_with_the_proposed_arguments_once(desk: Desk, bob: Actor) -> None:
    claim, _ = ask(desk)
    decide(desk, bob, "approve")
    claim = desk.take(claim.run_id)
    assert claim.reason == "decision"
    begun = again(desk, claim)
    assert (begun.action, begun.args, begun.edited) == ("execute", ARGS, False)
    claim = desk.retake(claim)
    assert again(desk, claim).action == "doubt"  # the approval was for one send


def test_edited_runs_with_the_edited_arguments_and_another_key(desk: Desk, bob: Actor) -> None:
    claim, _ = ask(desk)
    before = desk.step(claim).key
    decide(desk, bob, "edit", args={"order": "4411", "amount": 420})
    begun = again(desk, desk.take(claim.run_id))
    assert (begun.action, begun.args, begun.edited) == ("execute", {"order": "4411", "amount": 420}, True)
    assert begun.key != before


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"order": "4411", "amount": -1}, "/args/amount"),
        ({"order": "4411", "amount": "420"}, "/args/amount"),
        ({"order": "9999", "amount": 420}, "/args/order"),
        ({"order": "4411"}, "/args"),
        ({"order": "4411", "amount": 4, "note": "x"}, "/args"),
        (None, "/args"),
        ({"order": "4411", "amount": float("nan")}, "/args/amount"),
    ],
)
def test_an_edit_that_does_not_fit_changes_nothing(desk: Desk, bob: Actor, args: Any, field: str) -> None:
    ask(desk)
    with pytest.raises(Invalid) as refused:
        decide(desk, bob, "edit", args=args)
    assert refused.value.field == field
    assert pending(desk).status == "pending"


def test_a_rejection_tells_the_agent_why_and_needs_a_reason(desk: Desk, bob: Actor) -> None:
    claim, _ = ask(desk)
    with pytest.raises(Invalid, match="Say why"):
        decide(desk, bob, "reject")
    decide(desk, bob, "reject", message="over the invoice")
    begun = again(desk, desk.take(claim.run_id))
    assert (begun.action, begun.decision, begun.message) == ("rejected", "rejected", "over the invoice")
    assert desk.step(claim).sent == 0


def test_an_answer_is_not_a_call(desk: Desk, bob: Actor) -> None:
    claim, _ = ask(desk)
    decide(desk, bob, "respond", message="refund it by voucher")
    begun = again(desk, desk.take(claim.run_id))
    assert (begun.action, begun.output, begun.decision) == ("replay", "refund it by voucher", "responded")


def test_expired_is_not_rejected(desk: Desk, bob: Actor) -> None:
    claim, _ = ask(desk, expires_in_s=60.0)
    approval = pending(desk)
    with tenant_scope(desk.tenant_id):
        Approval.objects.filter(id=approval.id).update(expires_at=clock.database_now() - timedelta(seconds=1))
    with pytest.raises(Conflict, match="time for this decision is over"):
        decide(desk, bob, "approve", approval=approval)
    with tenant_scope(desk.tenant_id):
        approvals.expire(approval.id)
        approvals.expire(approval.id)
    begun = again(desk, desk.take(claim.run_id))
    assert (begun.action, begun.decision) == ("rejected", "expired")


def test_an_approval_that_was_not_used_in_time_asks_again(desk: Desk, bob: Actor) -> None:
    claim, first = ask(desk, use_within_s=30.0)
    decide(desk, bob, "approve")
    with tenant_scope(desk.tenant_id):
        Approval.objects.update(use_by=clock.database_now() - timedelta(seconds=1))
    claim = desk.take(claim.run_id)
    begun = again(desk, claim)
    assert begun.action == "wait"
    assert begun.approval_id != first.approval_id


def test_the_loser_is_told_who_won(desk: Desk, alice: Actor, bob: Actor) -> None:
    ask(desk)
    approval = pending(desk)
    decide(desk, bob, "approve", approval=approval)
    with pytest.raises(Conflict) as refused:
        decide(desk, alice, "reject", message="no", approval=approval)
    assert refused.value.data["winner"] == bob.name
    assert refused.value.data["status"] == "approved"


def test_the_same_click_twice_is_one_decision(desk: Desk, bob: Actor) -> None:
    ask(desk)
    approval = pending(desk)
    first = decide(desk, bob, "approve", approval=approval, client_token="c1")
    second = decide(desk, bob, "approve", approval=approval, client_token="c1")
    assert (first.status, second.status) == ("approved", "approved")
    with tenant_scope(desk.tenant_id):
        assert ApprovalVote.objects.count() == 1


def test_a_stale_proposal_is_refused(desk: Desk, bob: Actor) -> None:
    ask(desk)
    for seen in ({"version": 2}, {"proposal_hash": "00" * 32}):
        with pytest.raises(Conflict, match="changed"):
            decide(desk, bob, "approve", **seen)
    assert pending(desk).status == "pending"


def test_only_who_may_decides_and_others_find_nothing(desk: Desk, victor: Actor, olga: Actor, charlie: Actor) -> None:
    ask(desk)
    for actor in (victor, olga):
        with pytest.raises(Forbidden):
            decide(desk, actor, "approve")
    with pytest.raises(NotFound):
        decide(desk, charlie, "approve")


def test_in_production_who_asked_does_not_decide(desk: Desk, alice: Actor, bob: Actor, tenant: Any) -> None:
    tenant.production = True
    tenant.save()
    ask(desk)
    with pytest.raises(Forbidden, match="somebody else"):
        decide(desk, alice, "approve")
    assert decide(desk, bob, "approve").status == "approved"


def test_several_questions_take_one_decision_each_and_one_resume(desk: Desk, bob: Actor) -> None:
    claim = desk.start()
    ask_in(desk, claim, identity="refund#1", park=False)
    ask_in(desk, claim, identity="refund#2")
    decide(desk, bob, "approve")
    assert desk.run(claim).status == "waiting"
    decide(desk, bob, "reject", message="one is enough")
    claim = desk.take(claim.run_id)
    assert again(desk, claim, identity="refund#1").action == "execute"
    assert again(desk, claim, identity="refund#2").action == "rejected"


def test_a_decision_before_the_run_has_parked_is_not_lost(desk: Desk, bob: Actor) -> None:
    claim = desk.start()
    ask_in(desk, claim, park=False)
    decide(desk, bob, "approve")
    reply = desk.store.turn(claim, Turn(then=Park("approval")))
    assert reply.status == "queued"
    desk.take(claim.run_id)


def test_a_free_question_is_answered_by_its_schema(desk: Desk, bob: Actor) -> None:
    claim = desk.start()
    question = Question(title="Which size?", schema={"type": "string", "enum": ["S", "M"]})
    start = StepStart("ask#1", "ask", "ask", question=question)
    desk.store.turn(claim, Turn(start=[start], then=Park("approval")))
    with pytest.raises(Invalid):
        decide(desk, bob, "approve")
    with pytest.raises(Invalid):
        decide(desk, bob, "respond", args="XL")
    decide(desk, bob, "respond", args="M")
    begun = desk.begin(desk.take(claim.run_id), "ask", kind="ask")
    assert (begun.action, begun.output) == ("replay", "M")


def test_of_many_clickers_one_wins(committed_db: None, alice: Actor, bob: Actor) -> None:
    """Eight people decide at once, on connections of their own."""
    desk = Desk(alice)
    ask(desk)
    approval = pending(desk)
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def click(position: int) -> None:
        start.wait()
        decision = ("approve", "reject")[position % 2]
        try:
            decide(desk, (alice, bob)[position % 2], decision, message="m", approval=approval)
            outcomes.append(decision)
        except Conflict as error:
            assert error.data["winner"] in (alice.name, bob.name)
            outcomes.append("lost")
        finally:
            connection.close()

    clickers = [threading.Thread(target=click, args=(position,)) for position in range(8)]
    for clicker in clickers:
        clicker.start()
    for clicker in clickers:
        clicker.join()
    assert sorted(outcomes).count("lost") == 7, outcomes
    with tenant_scope(desk.tenant_id):
        assert ApprovalVote.objects.count() == 1


def test_an_approval_withdrawn_by_a_cancel_cannot_be_used(desk: Desk, alice: Actor, bob: Actor) -> None:
    from runs.services import control

    claim, _ = ask(desk)
    approval = pending(desk)
    control.cancel(desk.run(claim).id, actor=alice)
    with pytest.raises(Conflict):
        decide(desk, bob, "approve", approval=approval)
    assert desk.run(claim).status == "cancelled"


def test_finishing_an_approved_step_twice_with_another_result_is_refused(desk: Desk, bob: Actor) -> None:
    claim, _ = ask(desk)
    decide(desk, bob, "approve")
    claim = desk.take(claim.run_id)
    begun = again(desk, claim)
    desk.finish(claim, begun.seq, output={"id": 1})
    desk.finish(claim, begun.seq, output={"id": 1})
    with pytest.raises(Conflict, match="another result"):
        desk.store.turn(claim, Turn(finish=[StepFinish(begun.seq, output={"id": 2})]))


def test_a_refused_call_is_not_repeated_under_the_old_approval_when_the_run_is_resumed(
    desk: Desk, alice: Actor, bob: Actor
) -> None:
    from agentstate.core.ids import parse_id
    from agentstate.sdk.store import End, Failure
    from runs.services import control

    claim, _ = ask(desk)
    decide(desk, bob, "approve")
    claim = desk.take(claim.run_id)
    begun = again(desk, claim)
    desk.finish(claim, begun.seq, outcome="refused", failure=Failure("HTTPStatusError", "422"))
    desk.store.turn(claim, Turn(then=End("failed", failure=Failure("HTTPStatusError", "422"))))
    control.resume(parse_id("run", claim.run_id), actor=alice, reason="the shop is mended")
    claim = desk.take(claim.run_id)
    asked = again(desk, claim)
    assert asked.action == "wait"
    desk.store.turn(claim, Turn(then=Park("approval")))
    decide(desk, bob, "approve")
    second = again(desk, desk.take(claim.run_id))
    assert (second.action, second.attempt) == ("execute", 2)
    assert second.key != begun.key


def test_an_edited_call_in_doubt_shows_what_was_really_sent(desk: Desk, bob: Actor) -> None:
    claim, _ = ask(desk)
    edited = {"order": "4411", "amount": 420}
    decide(desk, bob, "edit", args=edited)
    claim = desk.take(claim.run_id)
    begun = again(desk, claim)
    desk.finish(claim, begun.seq, outcome="unknown")
    with tenant_scope(desk.tenant_id):
        doubt = Approval.objects.get(kind="settle")
        key = desk.store.session_of(claim.run_id, claim.fence).key
        assert approvals.opened_proposal(doubt, key)["args"] == edited


@pytest.mark.parametrize("decision", ["reject", "approve"])
def test_success_leaves_out_what_was_asked_and_not_taken_up(desk: Desk, bob: Actor, decision: str) -> None:
    claim, begun = ask(desk)
    decide(desk, bob, decision, message="because")
    claim = desk.take(claim.run_id)
    desk.store.turn(claim, Turn(then=End("succeeded", {})))
    assert desk.run(claim).status == "succeeded"
    assert desk.step(claim, begun.seq).status == "skipped"
    assert invariants.check(desk.tenant_id) == []
