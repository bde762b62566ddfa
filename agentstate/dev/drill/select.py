"""Which cases a drill tries, given the failpoints that undisturbed runs came by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentstate.dev.drill import cases
from agentstate.dev.drill.cases import Case, Trace


def matrix(
    trace: Trace, deaths: Sequence[str] = ("kill",), timings: Sequence[str] = ("fast",), every: int = 1
) -> list[Case]:
    """Each failpoint x class x death x timing; `every` 3 takes every third."""
    found = [*cases.everywhere(trace, deaths=deaths, timings=timings), *cases.under_way(deaths=deaths)]
    return found[::every]


def messages(trace: Trace, **options: Any) -> list[Case]:
    return list(cases.messages(**options))


def undisturbed(trace: Trace) -> list[Case]:
    return list(cases.undisturbed())


def people(trace: Trace) -> list[Case]:
    """The process that serves a person dies: between a commit and its hint, and before the answer."""
    asking = [("pure", "admit.committed"), ("keyed", "wake.committed"), ("keyed", "wake.published")]
    asking += [("approved", "approval.decided"), ("destructive", "settle.settled"), ("approved", "settle.settled")]
    return [
        Case(effect, "lost_reply" if name.startswith("settle") else "fast", "kill", name, role="person")
        for effect, name in asking
    ]


def watchers(trace: Trace) -> list[Case]:
    """The watcher dies while it looks after runs that lost their worker."""
    found = []
    for name in ("sweep.hinted", "sweep.marked", "sweep.fired"):
        found.append(Case("keyed", "fast", "kill", name, role="watcher"))
    return found


def random(trace: Trace, seed: int, count: int) -> list[Case]:
    return cases.random(seed, trace=trace, count=count)


def listed(trace: Trace, cases: Iterable[dict[str, Any]]) -> list[Case]:
    return [Case(**case) for case in cases]


SELECT: dict[str, Callable[..., list[Case]]] = {
    "matrix": matrix,
    "messages": messages,
    "undisturbed": undisturbed,
    "people": people,
    "watchers": watchers,
    "random": random,
    "listed": listed,
}
