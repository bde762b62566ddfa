"""The items of the bench in their order, each printed as soon as it is known."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agentstate.dev.bench import (
    appending,
    contexts,
    http_steps,
    options,
    recall,
    starts,
    steps,
    takeover,
    tenant,
    volume,
)
from agentstate.dev.bench.report import Line, summary

Size = str  # tiny (the test of the bench itself), quick, normal, full
TIMES = {"tiny": 1, "quick": 12, "normal": 40, "full": 100}
STEPS = {
    "tiny": steps.Effort(rounds=1, steps=5, processes=2, for_s=0.1),
    "quick": steps.Effort(rounds=6, steps=40),
    "normal": steps.Effort(rounds=16, steps=40),
    "full": steps.Effort(rounds=30, steps=40),
}
CONTEXTS = {
    "tiny": contexts.Effort(times=2, messages=60, long=200),
    "quick": contexts.Effort(times=40),
    "normal": contexts.Effort(times=100),
    "full": contexts.Effort(times=200),
}
FRAMES = {"tiny": 2_000, "quick": 200_000, "normal": 200_000, "full": 1_000_000}


@dataclass(frozen=True)
class Item:
    """One thing to measure, given the size of the bench and a key of the tenant."""

    name: str
    measure: Callable[[Size, str], Iterator[Line]]


ITEMS = (
    Item("steps", lambda size, _: steps.measure(STEPS[size])),
    Item("append", lambda size, _: appending.measure(times=50 * TIMES[size])),
    Item("http", lambda size, token: http_steps.measure(token, times=20 * TIMES[size])),
    Item("starts", lambda size, token: starts.measure(token, times=TIMES[size])),
    Item("takeover", lambda size, _: takeover.measure(times=max(1, TIMES[size] // 2))),
    Item("frames", lambda size, _: volume.measure_frames()),
    Item("compaction", lambda size, _: volume.measure_compaction(frames=FRAMES[size])),
    Item("context", lambda size, _: contexts.measure(CONTEXTS[size])),
    Item("recall", lambda size, _: recall.measure(size)),
)
assert tuple(item.name for item in ITEMS) == options.ITEMS


def run(arguments: Sequence[str]) -> int:
    """0 even when targets are missed: a busy machine is no error. It says MISSED."""
    parser = argparse.ArgumentParser("bench")
    options.add(parser)
    wanted = parser.parse_args(arguments)
    size, token = options.size(wanted), tenant.found()
    found: list[Line] = []
    for item in ITEMS:
        if not wanted.only or item.name in wanted.only:
            found += _measured(item, size, token)
    print(f"\n{summary(found)}", flush=True)
    return 0


def _measured(item: Item, size: Size, token: str) -> list[Line]:
    """Its lines, each printed as soon as it is known."""
    started, found = time.monotonic(), list[Line]()
    print(f"\n{item.name} (a process that wants to gets {_share_of_a_core():.0%} of a core now)", flush=True)
    for line in item.measure(size, token):
        found.append(line)
        print(line.line(), flush=True)
    print(f"  took {time.monotonic() - started:.0f} s", flush=True)
    return found


def _share_of_a_core(spin_s: float = 0.2) -> float:
    """What other processes leave us, in processor seconds per second: milliseconds are to be read with it."""
    started, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < spin_s:
        pass
    return (time.process_time() - used) / (time.perf_counter() - started)
