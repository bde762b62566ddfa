"""Compaction beside writers, pins and itself, and killed anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from django.db import connection

from agentstate.db import locks
from agentstate.tenants.scope import tenant_scope
from checkpoints import compaction, pins, reading
from checkpoints.compaction import RunFacts
from tests.checkpoints.conftest import Run, finished, kept, text

pytestmark = pytest.mark.usefixtures("committed_db", "light_keyframes", "no_grace")


def _and_close(act: Callable[[], object]) -> Callable[[], None]:
    """For a thread of its own: `act`, then give the thread's connection back."""

    def acted() -> None:
        act()
        connection.close()

    return acted


def test_two_compactions_at_once_do_each_run_once(new_run: Callable[[], Run], facts: dict[UUID, RunFacts]) -> None:
    runs = [new_run() for _ in range(6)]
    for run in runs:
        run.write_many(40)
        facts[run.id] = finished()
    outcomes: list[compaction.Outcome] = []
    start = threading.Barrier(2)

    def compact() -> None:
        start.wait()
        outcomes.append(compaction.run(runs[0].tenant_id))
        connection.close()

    threads = [threading.Thread(target=compact) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    assert sum(outcome.frames for outcome in outcomes) == 6 * 38
    assert all(not outcome.problems for outcome in outcomes)
    assert all(kept(run) == [1, 40] for run in runs)


def test_a_run_whose_lock_is_held_is_left_for_the_next_time(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(10)
    facts[run.id] = finished()
    outcomes: list[compaction.Outcome] = []

    def compact() -> None:
        outcomes.append(compaction.run(run.tenant_id))
        connection.close()

    with tenant_scope(run.tenant_id):
        locks.hold(pins.LOCK, run.id)
        elsewhere = threading.Thread(target=compact)
        elsewhere.start()
        elsewhere.join()
    assert (outcomes[0].busy, outcomes[0].frames) == (1, 0)
    assert compaction.run(run.tenant_id).frames == 8


COMPACT_ALONE = """
import sys
from uuid import UUID
import django
django.setup()
from agentstate.core.clock import now
from checkpoints import compaction
compaction.BATCH_FRAMES = 100
compaction.provide(lambda run_id: compaction.RunFacts(open_generation=0, finished_at=now()))
compaction.run(UUID(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("failpoint", "done"),
    [
        ("checkpoints.compact.rekeyed=kill", False),
        ("checkpoints.compact.deleted=kill", False),
        ("checkpoints.compact.between=kill", True),
    ],
)
def test_killed_in_the_middle_it_leaves_whole_stretches(
    run: Run, facts: dict[UUID, RunFacts], failpoint: str, done: bool
) -> None:
    run.write_many(250)
    facts[run.id] = finished()
    environment = {**os.environ, "AGENTSTATE_FAILPOINTS": failpoint, "PYTHONPATH": str(Path.cwd())}
    killed = subprocess.run([sys.executable, "-c", COMPACT_ALONE, str(run.tenant_id)], env=environment, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = kept(run)
    assert (len(left) < 250) is done
    assert {1, 250} <= set(left)
    compaction.run(run.tenant_id)
    assert kept(run) == [1, 250]


def test_a_writer_is_not_held_up_by_a_compaction_of_its_run(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(100, generation=0)
    run.write_many(10, generation=1)
    facts[run.id] = RunFacts(open_generation=1)
    reached, go_on = threading.Event(), threading.Event()

    def stop(run_id: UUID) -> RunFacts:
        reached.set()
        go_on.wait(10)
        return facts[run_id]

    compaction.provide(stop)
    compacting = threading.Thread(target=_and_close(lambda: compaction.run(run.tenant_id)))
    compacting.start()
    assert reached.wait(10)
    started = time.monotonic()
    run.write_many(5, generation=1)
    took_s = time.monotonic() - started
    go_on.set()
    compacting.join()
    assert took_s < 5
    assert kept(run) == [1, *range(101, 116)]


def test_a_blob_that_returns_during_a_compaction_is_not_lost(run: Run, facts: dict[UUID, RunFacts]) -> None:
    """The newest frame no longer refers to it, the next one does: the writer waits for the compaction."""
    returning = {"large": text(70_000)}
    run.write_many(1)
    run.write(returning)
    run.write_many(2)
    facts[run.id] = RunFacts(open_generation=9)
    frame = run.writer.prepare(returning)
    assert len(frame.blobs) == 1
    written = threading.Thread(target=_and_close(lambda: run.write(returning)))

    def start_writer(run_id: UUID) -> RunFacts:
        if not written.ident:
            written.start()
            written.join(0.3)
            assert written.is_alive()  # waits for our lock
        return facts[run_id]

    compaction.provide(start_writer)
    outcome = compaction.run(run.tenant_id)
    written.join()
    with tenant_scope(run.tenant_id):
        newest = reading.newest(run.tenant_id, run.id)
    assert newest is not None and newest.doc["large"] == returning["large"]
    assert outcome.problems == []
