"""kill -9 of whoever drives a run, and the time until another one does.

Two workers with two children each. Killed is the child alone or the worker's whole group; SIGSTOP stands for a worker
of which only the lease tells.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from agentstate.dev.bench import contenders, services, world
from agentstate.dev.bench.report import Figure, Line, percentile
from agentstate.dev.bench.services import Service
from agentstate.sdk.store import RunInfo
from runs.engine.store import LocalStore

Found = TypeVar("Found")

TAKEOVER_S = 1.5
OVER_LEASE_S = 0.5
WAIT_S_MAX = 60.0
LOOK_EVERY_S = 0.01
SERVER_SETTLES_S = 6.0  # so long after a server's start missing locks mean nothing


class Drill:
    """Starts runs that stay in their first step, and does something to whoever drives them."""

    def __init__(self, started: list[Service]) -> None:
        self._workers = started
        self._store = LocalStore(contenders.bench_actor())
        self._marks = Path(os.environ[world.ROOT_VARIABLE]) / "marks"
        self._marks.mkdir(exist_ok=True)
        self._count = 0

    def lose(self, agent: str, *, how: str) -> float:
        """Seconds from the signal to the second call of the step, or to the doubt."""
        run, mark = self._start(agent)
        driver = int(_until(lambda: _lines(mark)[:1])[0].split()[0])
        lost_at = time.time()
        self._strike(driver, how)
        if agent == "bench-destructive":
            _until(lambda: self._store.get(run.run_id).status == "in_doubt")
            found = time.time() - lost_at
        else:
            found = float(_until(lambda: _lines(mark)[1:2])[0].split()[1]) - lost_at
        self._clean_up(driver, how)
        return found

    def _start(self, agent: str) -> tuple[RunInfo, Path]:
        self._count += 1
        mark = self._marks / f"{self._count}"
        return self._store.admit(agent, {"mark": str(mark)}), mark

    def _strike(self, driver: int, how: str) -> None:
        if how == "group":
            os.killpg(os.getpgid(driver), signal.SIGKILL)
        else:
            os.kill(driver, signal.SIGSTOP if how == "stop" else signal.SIGKILL)

    def _clean_up(self, driver: int, how: str) -> None:
        if how == "stop":
            os.kill(driver, signal.SIGKILL)
        for place, service in enumerate(self._workers):
            if how == "group" and service.process.poll() is not None:
                self._workers[place] = services.worker()


def measure(*, times: int) -> Iterator[Line]:
    with services.workers(2) as started:
        time.sleep(SERVER_SETTLES_S)
        drill = Drill(started)
        for how in ("child", "group"):
            found = [drill.lose(("bench-pure", "bench-keyed")[n % 2], how=how) for n in range(times)]
            yield _figure(f"takeover after kill -9 of the {how}, p95", found, TAKEOVER_S)
        found = [drill.lose("bench-destructive", how="child") for _ in range(times)]
        yield _figure("destructive: in doubt after kill -9 of the child, p95", found, TAKEOVER_S)
        found = [drill.lose("bench-pure", how="stop") for _ in range(max(1, times // 3))]
        yield _figure("takeover by the lease alone (SIGSTOP), worst", found, world.LEASE_S + OVER_LEASE_S, share=1.0)


def _figure(name: str, found_s: list[float], target_s: float, *, share: float = 0.95) -> Figure:
    note = f"fastest {min(found_s):.2f} s, {len(found_s)} times"
    return Figure(name, percentile(found_s, share), "s", target_s, note=note)


def _lines(mark: Path) -> list[str]:
    return mark.read_text().splitlines() if mark.exists() else []


def _until(look: Callable[[], Found]) -> Found:
    ends_at = time.monotonic() + WAIT_S_MAX
    while time.monotonic() < ends_at:
        found = look()
        if found:
            return found
        time.sleep(LOOK_EVERY_S)
    raise TimeoutError("nothing came of it")
