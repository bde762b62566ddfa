"""A step over HTTP: the end of one and the begin of the next in one request, on a kept connection over loopback."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from statistics import median

from agentstate.dev.bench import services
from agentstate.dev.bench.contenders import SPEC
from agentstate.dev.bench.report import Figure, Line, percentile
from agentstate.dev.bench.states import Window, message
from agentstate.sdk.http import HttpStore
from agentstate.sdk.store import Claim, StepFinish, StepStart, Turn, WorkerInfo

STEP_MS = 4.0
STATE_BYTES = 2_048
WARM_UPS = 30


def measure(token: str, *, times: int) -> Iterator[Line]:
    with services.web() as url, closing(HttpStore(url, token)) as store:
        found_ms = [1_000 * seconds for seconds in _steps_s(store, times + WARM_UPS)][WARM_UPS:]
    note = f"p95 {percentile(found_ms, 0.95):.1f} ms, fastest {min(found_ms):.1f} ms, {len(found_ms)} times"
    yield Figure("step over HTTP (begin and finish in one request), p50", median(found_ms), "ms", STEP_MS, note=note)


def _steps_s(store: HttpStore, times: int) -> Iterator[float]:
    claim, window, seq = _claim(store), Window(STATE_BYTES), 0
    for n in range(1, times + 1):
        finish = [StepFinish(seq, output=message(n))] if n > 1 else []
        turn = Turn(finish=finish, start=[StepStart(f"look#{n}", "look", payload={"page": n})], state=window.next())
        started = time.perf_counter()
        reply = store.turn(claim, turn)
        yield time.perf_counter() - started
        seq = reply.begun[0].seq


def _claim(store: HttpStore) -> Claim:
    store.register(SPEC)
    run = store.admit(SPEC.name, {})
    worker = WorkerInfo(f"http-{os.getpid()}", pid=os.getpid())
    claim = store.claim(worker, agents={SPEC.name: SPEC}, run_id=run.run_id)
    assert claim is not None
    return claim
