"""The drills there are: the long one, the short one of the test suite, one seed, and one for each mutant."""

from __future__ import annotations

from typing import Any

from agentstate.dev.drill.cases import AT_MESSAGES, Case
from agentstate.dev.drill.launch import Order
from agentstate.dev.drill.pace import lease_for_this_machine

Json = Any  # what json.loads gives
ALL_TIMINGS = ("fast", "slow_reply", "slow_act", "lost_reply", "hung_up")


def whole(*, every: int, seconds: float) -> dict[str, Order]:
    """Every failpoint x class x death x timing, a world (or several shards of it) per kind of death."""
    found = {}
    for death, timings in (
        ("kill", ALL_TIMINGS),
        ("stop", ALL_TIMINGS),
        ("zombie", ("fast", "slow_reply")),
        ("group", ("fast", "slow_act")),
        ("postgres", ("fast", "slow_reply")),
        ("reply", ("fast", "slow_act")),
        ("flush", ("fast", "slow_reply")),
    ):
        options = {"deaths": [death], "timings": list(timings), "every": every}
        select = [{"kind": "matrix", "with": options}]
        found[death] = Order(select, durable=death == "postgres", proxied=death == "reply", seconds=seconds)
    others = [{"kind": kind} for kind in ("messages", "undisturbed", "people", "watchers")]
    return {**found, "others": Order(others, seconds=seconds)}


def seed(number: int, *, count: int, seconds: float) -> Order:
    return Order([{"kind": "random", "with": {"seed": number, "count": count}}], seconds=seconds)


def kept_seeds(text: str) -> list[int]:
    """Numbers at the beginning of lines; `#` begins a comment."""
    return [int(line.split()[0]) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def short() -> Order:
    """For the test suite: each class dies at the places that differ, in two waves of one world."""
    cases = [
        Case("keyed", "fast", "kill", "call.answered"),
        Case("probed", "slow_act", "kill", "call.under_way"),
        Case("destructive", "slow_reply", "kill", "call.under_way"),
        Case("approved", "fast", "kill", "call.before", attempt=2),
        Case("pure", "fast", "kill", "turn.cold"),
        Case("notes", "fast", "kill", "turn.committed", 2),
        Case("destructive", "fast", "stop", "turn.before", 2),
        Case("keyed", "slow_reply", "stop", "call.under_way"),
        Case("probed", "fast", "stop", "call.answered"),
        Case("approved", "fast", "flush", "turn.committed", 2),
        Case("destructive", "fast", "reply", "turn.before", 2),
        Case("keyed", "fast", "reply", "turn.before", 3),
        Case("memory", "fast", "kill", "memory.wrote", 4),
        Case("memory", "fast", "stop", "memory.wrote", 3),
    ]
    return Order([_listed(cases)], proxied=True, size=7, seconds=60)


def short_storms() -> Order:
    """For the test suite: what hits all runs at once."""
    cases = [Case(effect, "fast", "group", "call.answered") for effect in ("keyed", "destructive")]
    cases += [Case(effect, "fast", "postgres", "turn.committed", 2) for effect in ("destructive", "probed")]
    cases += [Case("keyed", "fast", death) for death in AT_MESSAGES] + [Case("approved", "fast", "lost")]
    return Order([_listed(cases)], durable=True, size=6, seconds=60)


# What each mutant is let loose on: the cases in which its missing rule is the only thing that holds.
MUTANTS: dict[str, list[Case]] = {
    "no_fence": [
        Case(effect, "slow_reply", "zombie", "turn.before", 2) for effect in ("keyed", "destructive", "probed")
    ],
    "no_before_row": [Case("destructive", "fast", "kill", "call.answered")],
    "key_rederived": [Case("keyed", "fast", "kill", "call.answered")],
    "early_takeover": [Case(effect, "slow_reply", "doubled") for effect in ("keyed", "destructive", "probed")],
    "probe_believed_at_once": [Case("probed", "slow_act", "kill", "call.under_way")],
    "retry_on_timeout": [Case("destructive", "lost_reply"), Case("probed", "lost_reply")],
    "ack_lost": [Case(effect, "fast", "lost") for effect in ("pure", "keyed")],
    "settle_without_right": [Case("destructive", "slow_act", "kill", "call.under_way")],
    "trim_before_flush": [Case("notes")],
    "deferred_finish_lost": [Case("pure"), Case("keyed")],
    "memory_unkeyed": [Case("memory", "fast", "kill", "memory.wrote", 2)],  # the message said, its step not ended
}
TRIES = 2  # side by side: on a busy machine a process may die elsewhere than it should


def mutant(name: str) -> Order:
    return Order([_listed(MUTANTS[name] * TRIES)], mutant=name, size=6, seconds=60, lease_s=_lease_s(MUTANTS[name]))


def control() -> Order:
    """The same cases with nothing broken: what is caught here is a mistake of the drill."""
    cases = [case for cases in MUTANTS.values() for case in cases]
    return Order([_listed(cases)], size=6, seconds=300, lease_s=_lease_s(cases))


def _lease_s(cases: list[Case]) -> float:
    """A late act comes after three leases; a broken rule shows when somebody has taken over before it."""
    late = any(case.timing == "slow_act" for case in cases)
    return max(2.0, lease_for_this_machine()) if late else 0.0


def _listed(cases: list[Case]) -> Json:
    return {"kind": "listed", "with": {"cases": [case.json() for case in cases]}}
