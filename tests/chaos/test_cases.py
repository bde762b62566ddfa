"""What a drill tries follows from what runs came by, and a seed draws the same cases every time."""

from __future__ import annotations

from pathlib import Path

from agentstate.dev.drill import cases, plans
from agentstate.dev.drill.mutants import MEANING

TRACE = {
    ("keyed", 1): ["claim.committed", "turn.before", "turn.committed", "call.before", "turn.before"],
    ("pure", 1): ["claim.committed", "turn.before"],
}
SEEDS = Path(__file__).with_name("seeds.txt")


def test_a_death_at_every_hit_of_every_failpoint() -> None:
    found = list(cases.everywhere(TRACE, deaths=("kill", "stop")))
    assert len(found) == 2 * (5 + 2)
    assert {(case.failpoint, case.nth) for case in found if case.effect == "keyed"} >= {
        ("turn.before", 1),
        ("turn.before", 2),
    }


def test_the_other_sides_timing_is_varied_around_the_call_only() -> None:
    found = list(cases.everywhere(TRACE, deaths=("kill",), timings=("fast", "slow_act")))
    assert {case.timing for case in found if case.failpoint == "call.before"} == {"fast", "slow_act"}
    assert {case.timing for case in found if case.failpoint == "claim.committed"} == {"fast"}


def test_a_seed_draws_the_same_cases_every_time() -> None:
    one, same = (cases.random(7, trace=TRACE, count=20) for _ in range(2))
    assert one == same
    assert one != cases.random(8, trace=TRACE, count=20)


def test_every_death_has_a_meaning_and_a_world() -> None:
    assert set(cases.MEANING) == {*cases.DEATHS, "none"}
    drilled = set(plans.whole(every=1, seconds=1.0))
    assert set(cases.DEATHS) - set(cases.AT_MESSAGES) <= drilled


def test_every_mutant_has_cases() -> None:
    assert set(plans.MUTANTS) == set(MEANING) - {"none"}
    assert len(plans.MUTANTS) == 11


def test_the_kept_seeds_can_be_read() -> None:
    assert plans.kept_seeds(SEEDS.read_text()) == [7, 1126]
