"""From POST to the first step running, and from a decision to the agent going on: web server and worker are real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from statistics import median

from agentstate.dev.bench import services
from agentstate.dev.bench.caller import Caller
from agentstate.dev.bench.report import Figure, Line, percentile

START_MS, DECISION_MS = 50.0, 100.0
WARM_UPS = 4  # each child of the pool imports and connects once
REST_S = 0.02
UNDISTURBED_S = 0.25  # then the result is asked for: a question every 20 ms takes the core that the run needs


def measure(token: str, *, times: int) -> Iterator[Line]:
    with services.web() as url, services.workers(1), closing(Caller(url, token)) as caller:
        yield _figure("POST to the first step running, p50", [_start_s(caller) for _ in _counted(times)], START_MS)
        going_on = [_decision_s(caller) for _ in _counted(times)]
        yield _figure("decision to the agent going on, p50", going_on, DECISION_MS)


def _start_s(caller: Caller) -> float:
    run_id, asked_at = caller.start("bench-start")
    time.sleep(UNDISTURBED_S)
    return float(caller.result(run_id)) - asked_at


def _decision_s(caller: Caller) -> float:
    run_id, _ = caller.start("bench-decide")
    asked_at = caller.approve(caller.approval(run_id))
    time.sleep(UNDISTURBED_S)
    return float(caller.result(run_id)) - asked_at


def _counted(times: int) -> Iterator[int]:
    for number in range(times + WARM_UPS):
        time.sleep(REST_S)  # the worker is idle when the next one comes, as most are
        yield number


def _figure(name: str, found_s: list[float], target_ms: float) -> Figure:
    found_ms = [1_000 * value for value in found_s[WARM_UPS:]]
    note = f"p95 {percentile(found_ms, 0.95):.0f} ms, fastest {min(found_ms):.0f} ms, {len(found_ms)} times"
    return Figure(name, median(found_ms), "ms", target_ms, note=note)
