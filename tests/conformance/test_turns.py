"""One turn: atomic, repeatable, and its records answer for ever."""

from __future__ import annotations

from typing import Any

import pytest

from agentstate.core.errors import Conflict, Invalid, NonDeterminism, TooLarge
from agentstate.core.limits import STATE_BYTES_MAX
from agentstate.sdk.store import Continue, Failure, Park, StepFinish, StepStart, Usage
from tests.conformance.turns import Bench, step

BAD = [float("nan"), float("inf"), "nul\0", "\ud800", 2**70, {"a": {1: "key"}}]


def test_a_step_begins_once_however_often_it_is_asked_for(bench: Bench) -> None:
    claim = bench.admit()
    first, again = bench.begin(claim), bench.begin(claim)
    assert (first.action, first.attempt) == ("execute", 1)
    assert (again.action, again.seq, again.attempt, again.key) == ("execute", first.seq, 1, first.key)


def test_a_finished_step_is_answered_from_its_record(bench: Bench) -> None:
    claim = bench.admit()
    begun = bench.begin(claim)
    bench.finish(claim, begun.seq, output={"found": ["ß", 1.5, None]})
    again = bench.begin(claim)
    assert (again.action, again.output) == ("replay", {"found": ["ß", 1.5, None]})


def test_one_turn_ends_a_step_and_begins_the_next(bench: Bench) -> None:
    claim = bench.admit()
    one = bench.begin(claim)
    reply = bench.turn(claim, finish=[StepFinish(one.seq, output=1)], start=[step(identity="look#2")])
    assert (reply.begun[0].action, reply.begun[0].seq) == ("execute", one.seq + 1)
    assert [record.status for record in bench.take_history(claim)] == ["done", "started"]


def test_a_result_reported_twice_is_one_result(bench: Bench) -> None:
    claim = bench.admit()
    begun = bench.begin(claim)
    for _ in range(2):
        bench.finish(claim, begun.seq, output="same", usage=Usage("m", 1, 1, 0.1))
    assert bench.begin(claim).output == "same"


def test_a_step_that_ended_cannot_end_otherwise(bench: Bench) -> None:
    claim = bench.admit()
    begun = bench.begin(claim)
    bench.finish(claim, begun.seq, output="one")
    with pytest.raises(Conflict):
        bench.finish(claim, begun.seq, output="two")
    assert bench.begin(claim).output == "one"


def test_another_payload_under_a_recorded_name_is_non_determinism(bench: Bench) -> None:
    claim = bench.admit()
    bench.finish(claim, bench.begin(claim).seq, output=1)
    with pytest.raises(NonDeterminism):
        bench.begin(claim, payload={"order": "B2", "amount": 5})


def test_a_refused_turn_writes_nothing_of_itself(bench: Bench) -> None:
    claim = bench.admit()
    begun = bench.begin(claim)
    with pytest.raises(NonDeterminism):
        bench.turn(
            claim,
            finish=[StepFinish(begun.seq, output=1)],
            state={"half": True},
            start=[step(identity="new#1", name="new"), step(payload={"other": 1})],
        )
    claim = bench.retake(claim)
    assert [(record.identity, record.status) for record in claim.history] == [("look#1", "started")]
    assert claim.state in (None, {})


@pytest.mark.parametrize("bad", BAD, ids=["nan", "inf", "nul", "surrogate", "huge", "key"])
@pytest.mark.parametrize("place", ["payload", "output", "state"])
def test_what_is_no_json_is_refused_and_nothing_half_written(bench: Bench, bad: Any, place: str) -> None:
    claim = bench.admit()
    begun = bench.begin(claim)
    parts: dict[str, dict[str, Any]] = {
        "payload": {"start": [step(identity="new#1", name="new", payload={"x": bad})]},
        "output": {"finish": [StepFinish(begun.seq, output={"x": bad})]},
        "state": {"state": {"x": bad}, "finish": [StepFinish(begun.seq, output=1)]},
    }
    with pytest.raises(Invalid):
        bench.turn(claim, **parts[place])
    assert [record.status for record in bench.take_history(claim)] == ["started"]


def test_too_large_a_state_is_refused_by_name(bench: Bench) -> None:
    claim = bench.admit()
    with pytest.raises(TooLarge):
        bench.turn(claim, state={"lines": ["x" * 1000] * (STATE_BYTES_MAX // 1000)})


def test_state_rides_with_the_turn_and_comes_back_with_the_claim(bench: Bench) -> None:
    claim = bench.admit()
    begun = bench.begin(claim)
    bench.turn(claim, finish=[StepFinish(begun.seq, output=1)], state={"n": 1})
    claim = bench.retake(claim)
    assert claim.state == {"n": 1}
    assert claim.base_state in (None, {})


def test_recorded_reads_are_over_when_they_begin(bench: Bench) -> None:
    claim = bench.admit()
    read = StepStart("now#1", "now", "value", attempt=1, result=StepFinish(0, output="2026-01-01"))
    reply = bench.turn(claim, start=[read, step()])
    assert [begun.action for begun in reply.begun] == ["replay", "execute"]
    record = bench.take_history(claim)[0]
    assert (record.identity, record.status, record.output) == ("now#1", "done", "2026-01-01")


def test_history_tells_all_that_a_replay_needs(bench: Bench) -> None:
    claim = bench.admit()
    one = bench.begin(claim, identity="look#1")
    bench.finish(claim, one.seq, output=[1])
    two = bench.begin(claim, identity="look#2")
    bench.finish(claim, two.seq, "failed", failure=Failure("KeyError", "x", True))
    done, failed = bench.take_history(claim)
    assert (done.name, done.kind, done.effect, done.output, done.attempt) == ("look", "step", "pure", [1], 1)
    assert len(done.payload_sha) == 64
    assert done.payload_sha == failed.payload_sha
    assert failed.failure == Failure("KeyError", "x", True)


def test_a_closed_generation_begins_anew_with_its_state(bench: Bench) -> None:
    claim = bench.admit()
    one = bench.begin(claim, "keyed")
    bench.turn(claim, finish=[StepFinish(one.seq, output=1)], then=Continue({"page": 2}))
    two = bench.begin(claim, "keyed")
    assert (two.action, two.attempt) == ("execute", 1)
    assert two.key != one.key
    claim = bench.retake(claim)
    assert (claim.generation, claim.base_state, claim.state) == (1, {"page": 2}, {"page": 2})
    assert [record.identity for record in claim.history] == ["mail#1"]


def test_a_timer_waits_until_it_is_due_and_then_answers(bench: Bench) -> None:
    claim = bench.admit()
    timer: dict[str, Any] = {"name": "sleep", "kind": "timer", "due_s": 600.0, "payload": {"seconds": 600}}
    begun = bench.begin(claim, **timer)
    assert begun.action == "wait"
    assert begun.wait_s is not None
    assert 590 < begun.wait_s <= 600
    assert bench.turn(claim, then=Park("timer", due_s=begun.wait_s)).status == "waiting"
    assert bench.try_take(claim.run_id) is None
    bench.world.age(claim.run_id, 601)
    claim = bench.take(claim.run_id)
    assert bench.begin(claim, **timer).action == "replay"


def test_a_failed_step_waits_for_its_back_off(bench: Bench) -> None:
    claim = bench.admit()
    begun = bench.begin(claim)
    bench.finish(claim, begun.seq, "failed", failure=Failure("OSError", "x", True), retry_in_s=600.0)
    waiting = bench.begin(claim, attempt=2)
    assert waiting.action == "wait"
    assert waiting.wait_s is not None
    assert waiting.wait_s > 500
    bench.world.age(claim.run_id, 601)
    assert (bench.begin(claim, attempt=2).action, bench.begin(claim, attempt=2).attempt) == ("execute", 2)


def test_a_failed_step_answers_failed_unless_the_next_attempt_is_meant(bench: Bench) -> None:
    claim = bench.admit()
    begun = bench.begin(claim)
    bench.finish(claim, begun.seq, "failed", failure=Failure("KeyError", "x"))
    again = bench.begin(claim, attempt=1)
    assert (again.action, again.failure) == ("failed", Failure("KeyError", "x"))
    assert bench.begin(claim, attempt=2).action == "execute"


def test_closing_a_generation_twice_closes_one(bench: Bench) -> None:
    claim = bench.admit()
    for _ in range(2):
        bench.turn(claim, then=Continue({"page": 2}))
    assert bench.retake(claim).generation == 1
