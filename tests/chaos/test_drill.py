"""The short drill: real processes die at the places that differ, and nothing happens twice, nothing is lost.

Everything else (each failpoint, class, death and timing) is `manage.py drill`.
"""

from __future__ import annotations

import pytest

from agentstate.dev.drill import launch, plans, tables
from agentstate.dev.drill.launch import Order, Report

HIT_MIN = 0.6  # of the cases that name a place; on a busy machine some runs are over before their worker dies


def drilled(order: Order) -> Report:
    report = launch.run(order)
    assert report.is_clean, tables.summary(report)
    fated = [result for result in report.results if result.case.failpoint]
    assert sum(result.hit for result in fated) >= HIT_MIN * len(fated), tables.by_failpoint(report)
    return report


@pytest.mark.parametrize("order", [plans.short(), plans.short_storms()], ids=["one by one", "all at once"])
def test_every_run_ends_and_nothing_happens_twice(order: Order) -> None:
    drilled(order)


def test_a_broken_runtime_is_noticed() -> None:
    """The oracle of the drill is no ornament: an effect that is called before it is recorded turns it red."""
    report = launch.run(plans.mutant("no_before_row"))
    assert any("happened 2 times" in text for result in report.bad for text in result.violations), tables.summary(
        report
    )
