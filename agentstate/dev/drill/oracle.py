"""What must be true of a case when it is quiet again, judged by the other side's ledger and by what people saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agentstate.dev.drill import agents
from agentstate.dev.drill.cases import AT_MESSAGES, Case
from agentstate.dev.drill.memories import Given, Remembered
from agentstate.dev.sandbox.client import SeenCall

READS = 2  # of memory, by each case that remembers
UNANSWERED = ("postgres", "reply")  # the commit stands and its asker is told nothing: it asks again
ASKED_AGAIN = 2
ENDED = ("succeeded", "failed", "cancelled")
EFFECTS = ("keyed", "probed", "destructive", "approved")


@dataclass(slots=True)
class Live:
    """A case on its way, as the conductor has seen it."""

    case: Case
    case_id: str
    run_id: UUID
    began_at: float
    status: str = "queued"
    waiting_for: str = ""
    fence: int = 0
    ended_at: float = 0.0
    hit: bool = False
    unfair: bool = False  # the machine was too slow to do to it what the case says
    doubts: set[UUID] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.status in ENDED


def watch(live: Live, row: Sequence[Any]) -> None:
    """Take in what can be seen of the run now."""
    _, _, status, waiting_for, fence = row[:5]
    if fence < live.fence:
        live.violations.append(f"its fence fell from {live.fence} to {fence}")
    live.status, live.waiting_for, live.fence = status, waiting_for, fence


def judge(live: Live, *, keys: Iterable[str], calls: Sequence[SeenCall], attempts: Mapping[str, int]) -> list[str]:
    """Violations of one case. `calls`: all of the ledger. `attempts`: name of the step -> its attempts."""
    found = list(live.violations)
    if live.status != "succeeded":
        found.append(f"{live.status}{' for ' + live.waiting_for if live.waiting_for else ''}, not succeeded")
    keys = set(keys)
    acts = [call for call in calls if call.acted and call.key in keys]
    wanted = 1 if live.case.effect in EFFECTS else 0
    if len(acts) > wanted:
        found.append(f"it happened {len(acts)} times")
    if len(acts) < wanted and live.status == "succeeded":
        found.append("it is recorded as done and never happened")
    if _is_harmless(live.case) and live.fence == (2 if live.case.effect == "approved" else 1):
        found += _disturbances(live, attempts)
    return found


def judge_memory(live: Live, seen: Remembered, *, may_lose: bool) -> list[str]:
    """Violations of a case that remembers and succeeded. `may_lose`: Redis was wiped, and what waited in it is lost."""
    case_id, found = live.case_id, []
    said = [text for _, _, text in seen.said]
    first, waiting, last = agents.said(case_id)
    exact = [(number, *line) for number, line in enumerate((first, waiting, last), 1)]
    without = [(number, *line) for number, line in enumerate((first, last), 1)]
    if seen.said != exact and not (may_lose and seen.said == without):
        found.append(f"it said {said}")
    if sorted(seen.kept) != sorted(agents.kept(case_id)):
        found.append(f"it is remembered {sorted(seen.kept)}")
    if seen.proposed != [agents.proposed(case_id)]:
        found.append(f"it is proposed {seen.proposed}")
    for read in seen.given:
        found += _misgiven(live.case, read, str(seen.answer))
    return found if len(seen.given) == READS else [*found, f"it has {len(seen.given)} reads on record"]


def _misgiven(case: Case, read: Given, answer: str) -> list[str]:
    """The ledger has a call for each time the step was begun and asked, and the newest gave what the run had."""
    most = 1 if _is_harmless(case) else read.attempts + (ASKED_AGAIN if case.death in UNANSWERED else 0)
    found = [] if 1 <= read.calls <= most else [f"{read.name}: {read.calls} calls in {read.attempts} attempts"]
    return found + [f"{read.name}: the run was not given {text!r}" for text in read.texts if text not in answer]


def strays(keys: Iterable[str], calls: Iterable[SeenCall]) -> list[str]:
    """Acts under a key that no step has: nothing on record explains them."""
    known = set(keys)
    return [
        f"{call.tool} happened under a key that no step has" for call in calls if call.acted and call.key not in known
    ]


def _is_harmless(case: Case) -> bool:
    return case.death in (*AT_MESSAGES, "none") and case.timing in ("fast", "slow_reply", "slow_act")


def _disturbances(live: Live, attempts: Mapping[str, int]) -> list[str]:
    """Nobody died and every answer came, so nobody may notice anything."""
    found = [f"{name} was begun {count} times for no reason" for name, count in attempts.items() if count > 1]
    return found + ["in doubt for no reason"] * bool(live.doubts)
