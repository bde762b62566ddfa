"""What is tried: one case is one run, and the one thing that befalls it at one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from agentstate.core.limits import CLAIMS_WITHOUT_PROGRESS_MAX

EFFECTS = ("pure", "keyed", "probed", "destructive", "approved", "notes", "memory")
TIMINGS = ("fast", "slow_reply", "slow_act", "lost_reply", "hung_up")
# Deaths that need the process to stand still at a failpoint; the conductor then does the rest.
AT_STOP = ("stop", "zombie", "group", "postgres", "reply", "flush")
AT_MESSAGES = ("lost", "doubled", "reordered")
DEATHS = ("kill", *AT_STOP, *AT_MESSAGES)
GROUPS_MAX = CLAIMS_WITHOUT_PROGRESS_MAX - 2
# The moments around a call are the ones at which the other side's timing makes a difference.
AROUND_CALL = ("call.before", "call.under_way", "call.answered", "turn.before", "turn.committed")

MEANING = {
    "kill": "kill -9 of the child that drives the run",
    "stop": "SIGSTOP past the lease, then SIGCONT",
    "zombie": "SIGSTOP until another worker has the run, then SIGCONT at once",
    "group": "kill -9 of the worker with all its children",
    "postgres": "Postgres stopped at once (immediate) and started again",
    "reply": "the reply of a COMMIT lost, its connection cut",
    "flush": "FLUSHALL of broker and scratchpad",
    "lost": "the first message about each run lost",
    "doubled": "each message delivered three times at once",
    "reordered": "messages delivered in another order",
    "none": "nothing happens",
}


@dataclass(frozen=True, slots=True)
class Case:
    """`failpoint` is armed in the process of claim number `attempt` and acts at its `nth` hit there."""

    effect: str
    timing: str = "fast"
    death: str = "none"
    failpoint: str = ""
    nth: int = 1
    attempt: int = 1
    role: str = "child"  # who dies: the child that drives, the watcher, or the process of the person's request

    @property
    def tool(self) -> str:
        return f"{self.effect}.{self.timing}"

    @property
    def spec(self) -> str:
        verb = "stop" if self.death in AT_STOP else "kill"
        return f"{self.failpoint}={verb}@{self.nth}" if self.failpoint else ""

    def __str__(self) -> str:
        where = f" at {self.failpoint}@{self.nth} of claim {self.attempt}" if self.failpoint else ""
        return f"{self.effect}, {self.timing}: {self.death}{where}"

    def json(self) -> dict[str, Any]:
        return asdict(self)


Trace = Mapping[tuple[str, int], list[str]]  # (effect, claim) -> failpoints in the order in which they were hit


def everywhere(trace: Trace, *, deaths: Iterable[str], timings: Iterable[str] = ("fast",)) -> Iterator[Case]:
    """A death at every hit of every failpoint of the traced runs."""
    deaths, timings = tuple(deaths), tuple(timings)
    for (effect, attempt), hits in sorted(trace.items()):
        for position, name in enumerate(hits):
            nth = hits[: position + 1].count(name)
            for death in deaths:
                for timing in timings if name in AROUND_CALL and _calls(effect) else timings[:1]:
                    yield Case(effect, timing, death, name, nth, attempt)


def under_way(*, deaths: Iterable[str]) -> Iterator[Case]:
    """The caller dies while the answer is on its way, which a fast other side gives no time for."""
    for effect in filter(_calls, EFFECTS):
        for death in deaths:
            for timing in ("slow_reply", "slow_act"):
                yield Case(effect, timing, death, "call.under_way", 1, 2 if effect == "approved" else 1)


def messages(*, effects: Iterable[str] = EFFECTS, timings: Iterable[str] = ("fast", "slow_reply")) -> Iterator[Case]:
    for death in AT_MESSAGES:
        for effect in effects:
            for timing in timings if _calls(effect) else ("fast",):
                yield Case(effect, timing, death)


def undisturbed(timings: Iterable[str] = TIMINGS) -> Iterator[Case]:
    for effect in EFFECTS:
        for timing in timings if _calls(effect) else ("fast",):
            yield Case(effect, timing)


def random(seed: int, *, trace: Trace, count: int) -> list[Case]:
    """`count` cases drawn by this seed; the same seed draws the same ones."""
    draw = Random(seed)  # noqa: S311 (a drill is to be repeated, not to be secret)
    every = [*everywhere(trace, deaths=("kill", "stop", "flush", "group"), timings=TIMINGS)]
    every += [*under_way(deaths=("kill", "stop")), *messages(), *undisturbed()]
    every.sort(key=str)
    return [draw.choice(every) for _ in range(count)]


def waves(cases: Iterable[Case], *, size: int) -> Iterator[list[Case]]:
    """Cases that run side by side: message faults hold for a whole world, the others mix.

    The death of a group is that of every run in it: few side by side, or the others are taken for poison.
    """
    by_kind: dict[str, list[Case]] = {}
    for case in cases:
        kind = case.death if case.death in (*AT_MESSAGES, "group", "postgres") else "mixed"
        by_kind.setdefault(kind, []).append(case)
    for found in by_kind.values():
        together = min(size, GROUPS_MAX) if kind == "group" else size
        for first in range(0, len(found), together):
            yield found[first : first + together]


def _calls(effect: str) -> bool:
    return effect not in ("pure", "notes", "memory")
