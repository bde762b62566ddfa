"""Interleaved rounds: every contender takes its turn in every round, so that a busy moment hits all of them alike.

What counts is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from agentstate.dev.children import dying_with_parent
from agentstate.dev.servers import CannotStart


class Racer:
    """One process; see racer.py."""

    def __init__(self, log: str) -> None:
        with open(log, "ab") as errors:  # noqa: PTH123
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agentstate.dev.bench.racer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=dying_with_parent(signal.SIGKILL),
            )
        self._log = log

    def send(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Raises: CannotStart with the end of its log when it died."""
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):  # dbos greets on standard output
                answer: dict[str, Any] = json.loads(line)
                return answer
        with open(self._log) as log:  # noqa: PTH123
            raise CannotStart(f"A racer of the bench died:\n{''.join(log.readlines()[-12:])}")

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self.send(order)
        return self.answer()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


@contextmanager
def racers(count: int) -> Iterator[list[Racer]]:
    log = os.path.join(os.environ["AGENTSTATE_BENCH_ROOT"], "racers.log")  # noqa: PTH118
    started = [Racer(log) for _ in range(count)]
    try:
        for racer in started:
            racer.answer()
        yield started
    finally:
        for racer in started:
            racer.stop()


def one_at_a_time(contenders: Sequence[str], *, size: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Milliseconds per step, by contender, a value per round; the order changes from round to round."""
    with racers(1) as (racer,):
        for name in contenders:
            racer.ask({"contender": name, "size": size, "steps": steps})  # connections, plans, caches
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds):
            for name in _rotated(contenders, number):
                taken = racer.ask({"contender": name, "size": size, "steps": steps})
                found[name].append(taken["seconds"] * 1_000 / taken["steps"])
        return found


def all_at_once(
    contenders: Sequence[str], *, size: int, rounds: int, processes: int, for_s: float
) -> dict[str, list[float]]:
    """Steps per second of all processes together, by contender, a value per round."""
    with racers(processes) as started:
        for name in contenders:
            _together(started, {"contender": name, "size": size, "for_s": 0.1})
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds):
            for name in _rotated(contenders, number):
                found[name].append(_together(started, {"contender": name, "size": size, "for_s": for_s}))
        return found


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return median(first / second for first, second in zip(over, under, strict=True))


def _together(started: Sequence[Racer], order: Mapping[str, Any]) -> float:
    for racer in started:
        racer.send(order)
    answers = [racer.answer() for racer in started]
    return sum(float(answer["steps"] / answer["seconds"]) for answer in answers)


def _rotated(names: Sequence[str], by: int) -> list[str]:
    start = by % len(names)
    return [*names[start:], *names[:start]]
