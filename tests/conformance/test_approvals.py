"""A person decides: once, about exactly what was shown, and for one send."""

from __future__ import annotations

from typing import Any

import pytest

from agentstate.core.errors import Conflict, Invalid
from agentstate.sdk.store import Claim, Failure, Park, Question
from tests.conformance.turns import ORDER, Bench, question


def asked(bench: Bench, **more: Any) -> tuple[Claim, str]:
    """A refund waits for a person."""
    claim = bench.admit()
    begun = bench.begin(claim, "destructive", question=question(**more))
    assert (begun.action, begun.key) == ("wait", "") or begun.action == "wait"
    assert begun.approval_id
    assert bench.turn(claim, then=Park("approval")).status == "waiting"
    return claim, bench.world.open_approval(claim.run_id)


def test_nothing_is_called_before_the_decision(bench: Bench) -> None:
    claim, _ = asked(bench)
    assert bench.try_take(claim.run_id) is None


def test_asking_twice_is_one_question(bench: Bench) -> None:
    claim = bench.admit()
    ids = {bench.begin(claim, "destructive", question=question()).approval_id for _ in range(2)}
    assert len(ids) == 1


def test_approved_it_is_called_with_what_was_shown(bench: Bench) -> None:
    claim, approval_id = asked(bench)
    bench.world.decide(approval_id, "approve")
    begun = bench.begin(bench.take(claim.run_id), "destructive", question=question())
    assert (begun.action, begun.attempt, begun.edited) == ("execute", 1, False)
    assert begun.args in (None, ORDER)


def test_an_edit_goes_out_under_a_key_of_its_own(bench: Bench) -> None:
    claim, approval_id = asked(bench)
    other, other_id = asked(bench)
    bench.world.decide(approval_id, "edit", args={"order": "A1", "amount": 3})
    bench.world.decide(other_id, "approve")
    edited = bench.begin(bench.take(claim.run_id), "destructive", question=question())
    plain = bench.begin(bench.take(other.run_id), "destructive", question=question())
    assert (edited.action, edited.args, edited.edited) == ("execute", {"order": "A1", "amount": 3}, True)
    assert edited.key != plain.key


def test_a_locked_argument_cannot_be_edited(bench: Bench) -> None:
    _, approval_id = asked(bench)
    with pytest.raises(Invalid):
        bench.world.decide(approval_id, "edit", args={"order": "B2", "amount": 3})


def test_a_rejection_reaches_the_agent_with_its_reason(bench: Bench) -> None:
    claim, approval_id = asked(bench)
    bench.world.decide(approval_id, "reject", message="too much")
    begun = bench.begin(bench.take(claim.run_id), "destructive", question=question())
    assert (begun.action, begun.decision, begun.message) == ("rejected", "rejected", "too much")


def test_a_reply_in_words_reaches_the_agent_and_nothing_is_called(bench: Bench) -> None:
    claim, approval_id = asked(bench)
    bench.world.decide(approval_id, "respond", message="ask for the invoice first")
    begun = bench.begin(bench.take(claim.run_id), "destructive", question=question())
    assert begun.action in ("replay", "skip")
    assert begun.message == "ask for the invoice first"


def test_the_second_decision_loses(bench: Bench) -> None:
    _, approval_id = asked(bench)
    bench.world.decide(approval_id, "approve")
    with pytest.raises(Conflict):
        bench.world.decide(approval_id, "reject", message="no")


def test_one_approval_is_one_send(bench: Bench) -> None:
    claim, approval_id = asked(bench)
    bench.world.decide(approval_id, "approve")
    claim = bench.take(claim.run_id)
    assert bench.begin(claim, "destructive", question=question()).action == "execute"
    claim = bench.retake(claim)
    assert bench.begin(claim, "destructive", question=question(), attempt=2).action == "doubt"


def test_what_was_not_sent_may_still_use_the_approval(bench: Bench) -> None:
    claim, approval_id = asked(bench)
    bench.world.decide(approval_id, "approve")
    claim = bench.take(claim.run_id)
    first = bench.begin(claim, "destructive", question=question())
    bench.finish(claim, first.seq, "not_sent", failure=Failure("NotSent", "x", True))
    assert bench.begin(claim, "destructive", question=question(), attempt=2).action == "execute"


def test_an_approval_that_was_not_used_in_time_asks_again(bench: Bench) -> None:
    claim, approval_id = asked(bench, use_within_s=600.0)
    bench.world.decide(approval_id, "approve")
    bench.world.age(claim.run_id, 601)
    begun = bench.begin(bench.take(claim.run_id), "destructive", question=question(use_within_s=600.0))
    assert begun.action == "wait"
    assert bench.world.open_approval(claim.run_id)


def test_a_decision_that_came_before_the_park_is_not_lost(bench: Bench) -> None:
    claim = bench.admit()
    begun = bench.begin(claim, "destructive", question=question())
    bench.world.decide(begun.approval_id, "approve")
    assert bench.turn(claim, then=Park("approval")).status == "queued"


def test_a_free_question_is_answered_with_what_the_person_entered(bench: Bench) -> None:
    claim = bench.admit()
    free: dict[str, Any] = {
        "name": "ask",
        "kind": "ask",
        "question": Question("Which size?", schema={"type": "string"}),
        "payload": {"question": "Which size?"},
    }
    assert bench.begin(claim, **free).action == "wait"
    bench.turn(claim, then=Park("approval"))
    bench.world.decide(bench.world.open_approval(claim.run_id), "respond", args="large")
    begun = bench.begin(bench.take(claim.run_id), **free)
    assert (begun.action, begun.output) == ("replay", "large")
