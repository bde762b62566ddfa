"""Promise 1, class by class: what is called again after a loss, and under which key."""

from __future__ import annotations

import pytest

from agentstate.core.errors import Conflict
from agentstate.sdk.store import Begun, Claim, Failure, Park, StepFinish
from tests.conformance.turns import SETTLES_S, WINDOW_S, Bench

EFFECTS = ("keyed", "probed", "destructive")
ATTEMPTS = (None, 1, 2)
LOST = Failure("ReadTimeout", "no answer")


def lost(bench: Bench, effect: str) -> tuple[Claim, Begun]:
    """A call of this class was allowed, and its worker is gone."""
    claim = bench.admit()
    first = bench.begin(claim, effect)
    assert first.action == "execute"
    return bench.retake(claim), first


def probed(bench: Bench, claim: Claim, seq: int, outcome: str, **more: object) -> None:
    bench.turn(claim, finish=[StepFinish(seq, outcome, source="probe", **more)])  # type: ignore[arg-type]


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_has_a_key_and_a_moment_by_which_it_is_sent(bench: Bench, effect: str) -> None:
    claim = bench.admit()
    begun = bench.begin(claim, effect)
    assert len(begun.key) == 64
    assert 0 < begun.call_for_s <= claim.lease_s


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("effect", ["pure", "replayable"])
def test_what_has_no_effect_runs_again(bench: Bench, effect: str, attempt: int | None) -> None:
    claim, first = lost(bench, effect)
    again = bench.begin(claim, effect, attempt=attempt)
    assert (again.action, again.seq, again.attempt) == ("execute", first.seq, 2)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_keyed_call_is_made_again_with_the_same_key_inside_its_window(bench: Bench, attempt: int | None) -> None:
    claim, first = lost(bench, "keyed")
    again = bench.begin(claim, "keyed", attempt=attempt)
    assert (again.action, again.attempt, again.key) == ("execute", 2, first.key)


def test_the_window_counts_from_the_first_send(bench: Bench) -> None:
    claim, _ = lost(bench, "keyed")
    bench.world.age(claim.run_id, WINDOW_S / 2)
    assert bench.begin(claim, "keyed", attempt=2).action == "execute"
    claim = bench.retake(claim)
    bench.world.age(claim.run_id, WINDOW_S / 2 + 1)
    assert bench.begin(claim, "keyed", attempt=3).action == "doubt"


def test_outside_its_window_a_keyed_call_with_a_probe_is_probed(bench: Bench) -> None:
    claim = bench.admit()
    bench.begin(claim, "keyed", has_probe=True, settles_within_s=SETTLES_S)
    claim = bench.retake(claim)
    bench.world.age(claim.run_id, WINDOW_S + 1)
    assert bench.begin(claim, "keyed", has_probe=True, settles_within_s=SETTLES_S, attempt=2).action == "probe"


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_probed_call_is_asked_about_before_anything_else(bench: Bench, attempt: int | None) -> None:
    claim, first = lost(bench, "probed")
    begun = bench.begin(claim, "probed", attempt=attempt)
    assert (begun.action, begun.seq, begun.key) == ("probe", first.seq, first.key)


def test_happened_is_believed_at_once(bench: Bench) -> None:
    claim, first = lost(bench, "probed")
    bench.begin(claim, "probed", attempt=2)
    probed(bench, claim, first.seq, "done", output={"id": 7})
    again = bench.begin(claim, "probed", attempt=2)
    assert (again.action, again.output) == ("replay", {"id": 7})


def test_not_happened_counts_only_when_the_call_could_not_be_on_its_way(bench: Bench) -> None:
    claim, first = lost(bench, "probed")
    bench.begin(claim, "probed", attempt=2)
    probed(bench, claim, first.seq, "failed")
    early = bench.begin(claim, "probed", attempt=2)
    assert early.action == "wait"
    assert early.wait_s is not None
    assert early.wait_s > 0
    bench.world.age(claim.run_id, claim.lease_s + SETTLES_S + 1)
    assert bench.begin(claim, "probed", attempt=2).action == "probe"
    probed(bench, claim, first.seq, "failed")
    again = bench.begin(claim, "probed", attempt=2)
    assert (again.action, again.attempt) == ("execute", 2)
    assert again.key != first.key


def test_three_times_unknown_is_in_doubt(bench: Bench) -> None:
    claim, first = lost(bench, "probed")
    for _ in range(3):
        bench.world.age(claim.run_id, 3_600)
        assert bench.begin(claim, "probed", attempt=2).action == "probe"
        probed(bench, claim, first.seq, "unknown")
    bench.world.age(claim.run_id, 3_600)
    assert bench.begin(claim, "probed", attempt=2).action == "doubt"


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_wording_gets_a_second_destructive_call(bench: Bench, attempt: int | None) -> None:
    claim, _ = lost(bench, "destructive")
    for _ in range(2):
        assert bench.begin(claim, "destructive", attempt=attempt).action == "doubt"
    assert bench.turn(claim, then=Park("in_doubt")).status == "in_doubt"
    assert bench.try_take(claim.run_id) is None


def test_a_second_attempt_under_the_same_claim_is_judged_like_one_after_a_loss(bench: Bench) -> None:
    claim = bench.admit()
    bench.begin(claim, "destructive")
    assert bench.begin(claim, "destructive", attempt=2).action == "doubt"


@pytest.mark.parametrize("outcome", ["unknown", "failed"])
def test_a_destructive_call_without_an_answer_is_in_doubt(bench: Bench, outcome: str) -> None:
    claim = bench.admit()
    bench.finish(claim, bench.begin(claim, "destructive").seq, outcome, failure=LOST)
    assert bench.begin(claim, "destructive", attempt=2).action == "doubt"


def test_a_keyed_call_without_an_answer_goes_out_again_under_its_key(bench: Bench) -> None:
    claim = bench.admit()
    first = bench.begin(claim, "keyed")
    bench.finish(claim, first.seq, "unknown", failure=LOST)
    again = bench.begin(claim, "keyed", attempt=2)
    assert (again.action, again.key) == ("execute", first.key)


@pytest.mark.parametrize("effect", EFFECTS)
def test_what_was_not_sent_may_be_sent_under_a_new_key(bench: Bench, effect: str) -> None:
    claim = bench.admit()
    first = bench.begin(claim, effect)
    bench.finish(claim, first.seq, "not_sent", failure=Failure("NotSent", "x", True))
    again = bench.begin(claim, effect, attempt=2)
    assert (again.action, again.attempt) == ("execute", 2)
    assert again.key != first.key


def test_a_call_that_was_not_sent_says_nothing_of_the_one_before_it(bench: Bench) -> None:
    """Under a new key the other side would do again what the lost call has done."""
    claim, first = lost(bench, "keyed")
    for attempt in (2, 3):
        again = bench.begin(claim, "keyed", attempt=attempt)
        assert (again.action, again.attempt, again.key) == ("execute", attempt, first.key)
        for _ in range(2):  # the reply was lost, and it is said again
            bench.finish(claim, first.seq, "not_sent", failure=Failure("NotSent", "x", True))
    claim = bench.retake(claim)
    assert bench.begin(claim, "keyed", attempt=4).key == first.key
    bench.finish(claim, first.seq, "not_sent", failure=Failure("NotSent", "x", True))
    bench.world.age(claim.run_id, WINDOW_S + 1)
    assert bench.begin(claim, "keyed", attempt=5).action == "doubt"


def test_a_call_that_was_allowed_and_not_sent_is_still_allowed_and_no_more(bench: Bench) -> None:
    claim, first = in_doubt(bench)
    bench.world.age(claim.run_id, 3_600)
    bench.world.settle(claim.run_id, "refund#1", "not_happened")
    claim = bench.take(claim.run_id)
    for attempt in (2, 3):
        again = bench.begin(claim, "destructive", attempt=attempt)
        assert (again.action, again.key) == ("execute", first.key)
        bench.finish(claim, first.seq, "not_sent", failure=Failure("NotSent", "x", True))
    assert bench.begin(claim, "destructive", attempt=4).action == "execute"
    bench.finish(claim, first.seq, "unknown", failure=LOST)
    assert bench.begin(claim, "destructive", attempt=5).action == "doubt"


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_refusal_is_final_for_who_does_not_ask_for_more(bench: Bench, effect: str) -> None:
    claim = bench.admit()
    first = bench.begin(claim, effect)
    bench.finish(claim, first.seq, "refused", failure=Failure("Refused", "no"))
    again = bench.begin(claim, effect, attempt=1)
    assert (again.action, again.failure) == ("failed", Failure("Refused", "no"))


def test_a_call_settled_as_happened_is_answered_with_what_the_person_entered(bench: Bench) -> None:
    claim, _ = in_doubt(bench)
    bench.world.settle(claim.run_id, "refund#1", "happened", output={"refund": 9})
    claim = bench.take(claim.run_id)
    again = bench.begin(claim, "destructive", attempt=2)
    assert (again.action, again.output) == ("replay", {"refund": 9})


def test_did_not_happen_stays_closed_while_the_call_could_be_on_its_way(bench: Bench) -> None:
    claim, _ = in_doubt(bench)
    with pytest.raises(Conflict):
        bench.world.settle(claim.run_id, "refund#1", "not_happened")


def test_did_not_happen_allows_one_more_call_with_the_same_key(bench: Bench) -> None:
    claim, first = in_doubt(bench)
    bench.world.age(claim.run_id, 3_600)
    bench.world.settle(claim.run_id, "refund#1", "not_happened")
    claim = bench.take(claim.run_id)
    again = bench.begin(claim, "destructive", attempt=2)
    assert (again.action, again.attempt, again.key) == ("execute", 2, first.key)
    claim = bench.retake(claim)
    assert bench.begin(claim, "destructive", attempt=3).action == "doubt"


def in_doubt(bench: Bench) -> tuple[Claim, Begun]:
    claim, first = lost(bench, "destructive")
    assert bench.begin(claim, "destructive", attempt=2).action == "doubt"
    bench.turn(claim, then=Park("in_doubt"))
    return claim, first
