"""A drill, not part of the suite: compaction of a million frames while a run goes on writing.

    AGENTSTATE_DRILL_FRAMES=1000000 python -m pytest tests/checkpoints/volume.py -q -s

Half of the frames stand in one run, half in runs of 200. Prints how long it took, what it freed, the memory of the
compacting process, and the time of a step (frame prepared, inserted, committed) without and with compaction beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection

from agentstate.dev.testing import superuser_url
from agentstate.tenants.models import Tenant
from checkpoints.writing import COLUMNS, columns
from tests.checkpoints.conftest import Run, text

FRAMES = int(os.environ.get("AGENTSTATE_DRILL_FRAMES", "50000"))
RUN_FRAMES = 200
MEMORY_MAX_MB = 300

COMPACT = """
import json, sys, time
from pathlib import Path
from typing import Any
from uuid import UUID
import django
django.setup()
from django.db import connection
from agentstate.core.clock import now
from checkpoints import compaction

def memory_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

live = UUID(sys.argv[2])
finished, open_ = compaction.RunFacts(0, finished_at=now()), compaction.RunFacts(0)
compaction.provide(lambda run_id: open_ if run_id == live else finished)
connection.ensure_connection()
before, started = memory_mb(), time.monotonic()
outcome = compaction.run(UUID(sys.argv[1]))
print(json.dumps({"before_mb": before, "peak_mb": memory_mb(), "s": time.monotonic() - started,
                  "frames": outcome.frames, "freed": outcome.freed_bytes, "problems": outcome.problems}))
"""


@pytest.mark.usefixtures("committed_db")
def test_compaction_at_volume(tenant: Tenant) -> None:
    started = time.monotonic()
    fill(Run(tenant.id), FRAMES // 2)
    for _ in range(FRAMES // 2 // RUN_FRAMES):
        fill(Run(tenant.id), RUN_FRAMES)
    print(f"\n{FRAMES:,} frames written in {time.monotonic() - started:.0f} s")
    live = Run(tenant.id)
    alone = [step_s(live) for _ in range(1_000)]
    report, beside = compact_beside(live)
    print(
        f"compacted in {report['s']:.1f} s: {report['frames']:,} frames, {report['freed']:,} bytes freed; memory "
        f"{report['before_mb']:.0f} MB before, {report['peak_mb']:.0f} MB at most; a step p95 {p95_ms(alone):.2f} ms "
        f"alone, {p95_ms(beside):.2f} ms beside it ({len(beside)} steps)"
    )
    assert report["problems"] == []
    assert report["peak_mb"] < MEMORY_MAX_MB


def fill(run: Run, count: int) -> None:
    """Real frames of states of 1 KB, by COPY, which is the superuser's only: row security does not allow it."""
    note = text(1_000, seed=count)
    statement = f"COPY checkpoints_frame (tenant_id, {', '.join(COLUMNS)}) FROM STDIN"
    database = str(connection.settings_dict["NAME"])
    with psycopg.connect(superuser_url(database)) as superuser, superuser.cursor().copy(statement.encode()) as copy:
        for n in range(count):
            frame = run.writer.prepare({"note": note, "n": n, "last": f"{n * n}"})
            run.writer.advance(frame)
            copy.write_row([run.tenant_id, *columns(frame)])


def step_s(run: Run) -> float:
    started = time.perf_counter()
    run.write({"note": text(1_000), "n": run.writer.n})
    return time.perf_counter() - started


def compact_beside(live: Run) -> tuple[dict[str, Any], list[float]]:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    arguments = [sys.executable, "-c", COMPACT, str(live.tenant_id), str(live.id)]
    beside = []
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        time.sleep(2)  # its imports are not what is measured
        while process.poll() is None:
            beside.append(step_s(live))
            time.sleep(0.002)
        return json.loads(process.stdout.read().splitlines()[-1]), beside or [0.0]


def p95_ms(times_s: list[float]) -> float:
    return sorted(times_s)[int(len(times_s) * 0.95)] * 1_000
