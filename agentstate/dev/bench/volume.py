"""Bytes of frames, and compaction of very many of them while a run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
from django.db import connection

from agentstate.core.ids import new_id, parse_id
from agentstate.dev.bench import contenders, world
from agentstate.dev.bench.contenders import Ours
from agentstate.dev.bench.report import Figure, Line, Remark, percentile
from agentstate.dev.bench.states import text
from agentstate.dev.children import dying_with_parent
from agentstate.dev.servers import DATABASE
from agentstate.sdk.store import StepFinish, StepStart, Turn
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys
from checkpoints.writing import COLUMNS, FrameWriter, columns

GROWING_STEPS, ADDED_CHARS = 200, 2_000
FRAMES_MB = 0.6
RUN_FRAMES = 200
STATE_BYTES = 2_048
SLOWER_TIMES, MEMORY_MB = 2.0, 300.0
_STORED = "select (select coalesce(sum(octet_length(body)), 0) from checkpoints_frame where run_id = %(run)s)"
_STORED += " + (select coalesce(sum(octet_length(body)), 0) from checkpoints_blob where run_id = %(run)s)"


def measure_frames() -> Iterator[Line]:
    """A state that grows by 2 KB with each of 200 steps."""
    ours = Ours(STATE_BYTES)
    ours.get_ready(0)
    assert ours.claim is not None
    run_id = parse_id("run", ours.claim.run_id)
    before, notes, seq = _stored_bytes(run_id), list[str](), 1
    for n in range(GROWING_STEPS):
        notes.append(text(ADDED_CHARS, seed=n))
        start = StepStart(f"grow#{n}", "grow", payload={"page": n})
        reply = ours.store.turn(ours.claim, Turn([StepFinish(seq)], [start], state={"notes": notes}))
        seq = reply.begun[0].seq
    stored = _stored_bytes(run_id) - before
    whole = sum(range(1, GROWING_STEPS + 1)) * ADDED_CHARS / 1e6
    yield Figure("200 steps that add 2 KB each: frames", stored / 1e6, "MB", FRAMES_MB, note=f"as text {whole:.0f} MB")


def measure_compaction(*, frames: int) -> Iterator[Line]:
    """Half of the frames in one run, half in runs of 200; the runs are over but for one, which goes on meanwhile."""
    tenant_id = contenders.bench_actor().tenant_id
    assert tenant_id is not None
    started = time.monotonic()
    _fill(tenant_id, frames // 2)
    for _ in range(frames // 2 // RUN_FRAMES):
        _fill(tenant_id, RUN_FRAMES)
    yield Remark(f"{frames:,} frames written in {time.monotonic() - started:.0f} s")
    live = Ours(STATE_BYTES)
    alone = _steps_ms(live, 300)
    report, beside = _compact_beside(live, tenant_id)
    alone += _steps_ms(live, 300)
    note = f"p95 {percentile(alone, 0.95):.2f} ms alone, {percentile(beside, 0.95):.2f} ms beside, {len(beside)} steps"
    slower = percentile(beside, 0.95) / percentile(alone, 0.95)
    yield Figure("a step's p95 while compaction runs / alone", slower, "x", SLOWER_TIMES, note=note)
    freed = f"{report['frames']:,} frames, {report['freed_bytes'] / 1e6:.0f} MB freed in {report['seconds']:.0f} s"
    yield Figure("memory of the compacting process, peak", report["peak_mb"], "MB", MEMORY_MB, note=freed)


def _stored_bytes(run_id: UUID) -> int:
    with psycopg.connect(world.superuser_url(DATABASE)) as superuser:
        found = superuser.execute(_STORED.encode(), {"run": run_id}).fetchone()
    return int(found[0]) if found else 0


def _fill(tenant_id: UUID, count: int) -> None:
    """Real frames by COPY, which row security leaves to the superuser."""
    run_id = new_id()
    with tenant_scope(tenant_id):
        writer = FrameWriter(tenant_id, run_id, keys.run_key(run_id))
    note = text(1_000, seed=count)
    statement = f"COPY checkpoints_frame (tenant_id, {', '.join(COLUMNS)}) FROM STDIN"
    with (
        psycopg.connect(world.superuser_url(DATABASE)) as superuser,
        superuser.cursor().copy(statement.encode()) as copy,
    ):
        for n in range(count):
            frame = writer.prepare({"note": note, "n": n, "last": f"{n * n}"})
            writer.advance(frame)
            copy.write_row([tenant_id, *columns(frame)])


def _steps_ms(live: Ours, count: int) -> list[float]:
    return [_step_ms(live) for _ in range(count)]


def _step_ms(live: Ours) -> float:
    live.get_ready(1)
    started = time.perf_counter()
    live.take(1)
    return 1_000 * (time.perf_counter() - started)


def _compact_beside(live: Ours, tenant_id: UUID) -> tuple[dict[str, Any], list[float]]:
    connection.ensure_connection()
    beside: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-m", "agentstate.dev.bench.compacting", str(tenant_id)],
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=dying_with_parent(signal.SIGKILL),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # its imports are not what is measured
        while process.poll() is None:
            beside.append(_step_ms(live))
            time.sleep(0.002)
        report: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    return report, beside or [0.0]
