"""Compaction keeps what somebody may come back to, and every kept frame decodes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from agentstate.core import failpoints
from agentstate.core.clock import now
from agentstate.core.errors import Corrupt
from agentstate.core.ids import new_id
from agentstate.db import locks, sql
from agentstate.tenants import keyring
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope
from checkpoints import blobs, compaction, keys, pins, reading, tasks, thinning
from checkpoints.compaction import RunFacts
from checkpoints.thinning import Stub
from checkpoints.writing import COLUMNS
from tests.checkpoints.conftest import Run, text

pytestmark = pytest.mark.usefixtures("committed_db")
LONG_AGO = timedelta(days=400)


@pytest.fixture(autouse=True)
def _light_keyframes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps of a few frames are worth a keyframe in all tests but those about just that."""
    monkeypatch.setattr(Run, "base_bytes", 300)


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of these tests are young."""
    monkeypatch.setattr(compaction, "BLOB_GRACE", timedelta(0))


@pytest.fixture
def facts() -> Iterator[dict[UUID, RunFacts]]:
    """What the tier above knows; runs that are not in it are unknown."""
    known: dict[UUID, RunFacts] = {}
    compaction.provide(known.get)
    yield known
    compaction.provide(None)


def kept(run: Run) -> list[int]:
    """Numbers of the frames that are left; every one decodes to what was written."""
    with tenant_scope(run.tenant_id):
        found = list(reading.history(run.tenant_id, run.id))
        assert all(frame.plain == run.plains[frame.n] for frame in found)
        for frame in found:
            assert reading.load(run.tenant_id, run.id, frame.n).plain == run.plains[frame.n]
    return [frame.n for frame in found]


def _and_close(act: Callable[[], object]) -> Callable[[], None]:
    """For a thread of its own: `act`, then give the thread's connection back."""

    def acted() -> None:
        act()
        connection.close()

    return acted


def finished() -> RunFacts:
    return RunFacts(open_generation=0, finished_at=now())


def test_what_people_come_back_to_is_kept(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(10, generation=0)
    run.write({"at": "approval"}, kind="approval", boundary=True)
    run.write_many(5, generation=0)
    run.write({"at": "effect"}, kind="effect", boundary=True, step_seq=20)
    run.write_many(10, generation=1)
    run.write({"at": "doubt"}, generation=1, step_seq=28)
    run.write_many(3, generation=1)
    run.write({"at": "pause"}, generation=1, kind="pause")
    run.write_many(3, generation=1)
    run.write({"at": "the state that opens the next one"}, generation=1, kind="generation", boundary=True)
    run.write_many(4, generation=2)
    facts[run.id] = RunFacts(open_generation=2, protected=frozenset({28}))
    with tenant_scope(run.tenant_id):
        pins.pin(run.id, 6, holder=new_id())
    outcome = compaction.run(run.tenant_id)
    assert kept(run) == [1, 6, 11, 17, 18, 28, 32, 36, 37, 38, 39, 40]
    assert outcome.frames == 40 - 12
    assert outcome.freed_bytes > 0 and outcome.problems == []


def test_the_open_generation_is_untouched_and_a_live_writer_goes_on(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(20, generation=0)
    run.write_many(20, generation=1)
    facts[run.id] = RunFacts(open_generation=1)
    compaction.run(run.tenant_id)
    assert kept(run) == [1, *range(21, 41)]
    run.write_many(20, generation=1)
    assert kept(run) == [1, *range(21, 61)]


def test_the_newest_frame_of_an_ended_run_is_kept_and_can_be_built_on(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(30)
    facts[run.id] = finished()
    compaction.run(run.tenant_id)
    assert kept(run) == [1, 30]
    run.write_many(3)
    assert kept(run) == [1, 30, 31, 32, 33]


def test_the_plan_says_what_the_run_then_frees(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(200)
    run.write({"scan": text(70_000)})
    run.write_many(3)
    facts[run.id] = finished()
    before = stored_bytes(run)
    planned = compaction.plan(run.tenant_id)
    assert stored_bytes(run) == before
    done = compaction.run(run.tenant_id)
    assert (done.runs, done.frames, done.rekeyed, done.blobs) == (1, 202, planned.rekeyed, 1)
    assert (planned.runs, planned.frames, planned.blobs) == (1, 202, 1)
    assert done.freed_bytes == before - stored_bytes(run)
    assert abs(planned.freed_bytes - done.freed_bytes) < 0.1 * done.freed_bytes


def stored_bytes(run: Run) -> int:
    with tenant_scope(run.tenant_id):
        found = sql.row(
            "SELECT (SELECT coalesce(sum(octet_length(body)), 0) FROM checkpoints_frame WHERE run_id = %s)"
            " + (SELECT coalesce(sum(octet_length(body)), 0) FROM checkpoints_blob WHERE run_id = %s)",
            [run.id, run.id],
        )
    assert found is not None
    return int(found[0])


def test_a_second_time_there_is_nothing_to_do(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(100)
    facts[run.id] = finished()
    compaction.run(run.tenant_id)
    again = compaction.run(run.tenant_id)
    assert (again.runs, again.frames, again.freed_bytes) == (0, 0, 0)


def test_frames_of_runs_that_ended_long_ago_expire_but_for_pins(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(30)
    run.write({"large": text(70_000)})
    with tenant_scope(run.tenant_id):
        pins.pin(run.id, 17, holder=new_id())
    facts[run.id] = RunFacts(open_generation=0, finished_at=now() - timedelta(days=29))
    compaction.run(run.tenant_id, retention_days=30)
    assert kept(run) == [1, 17, 31]
    facts[run.id] = RunFacts(open_generation=0, finished_at=now() - timedelta(days=31))
    outcome = compaction.run(run.tenant_id, retention_days=30)
    assert kept(run) == [17]
    assert outcome.blobs == 1


def test_the_retention_is_a_setting_of_the_tenant(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(3)
    facts[run.id] = RunFacts(open_generation=0, finished_at=now() - timedelta(days=8))
    compaction.run(run.tenant_id)
    assert kept(run) == [1, 3]
    with tenant_scope(run.tenant_id):
        TenantSetting.objects.create(key=compaction.RETENTION_KEY, value=7)
    compaction.run(run.tenant_id)
    assert kept(run) == []


def test_a_run_that_nobody_knows_is_left_alone(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(10)
    run.write({"large": text(70_000)})
    run.write_many(1)
    outcome = compaction.run(run.tenant_id)
    assert (outcome.unknown, outcome.frames, outcome.blobs) == (1, 0, 0)
    assert len(kept(run)) == 12


def test_frames_behind_a_destroyed_key_are_deleted(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(10)
    run.write({"large": text(70_000)})
    facts[run.id] = RunFacts(open_generation=0)
    with tenant_scope(run.tenant_id):
        keys.destroy(run.id)
    outcome = compaction.run(run.tenant_id)
    assert (outcome.frames, outcome.blobs, outcome.problems) == (11, 1, [])


def test_only_blobs_that_no_kept_frame_refers_to_are_dropped(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write({"first": text(70_000, 1)})
    run.write({"second": text(70_000, 2)})
    run.write({"third": text(70_000, 3)})
    facts[run.id] = finished()
    assert compaction.run(run.tenant_id).blobs == 1
    with tenant_scope(run.tenant_id):
        assert [frame.doc for frame in reading.history(run.tenant_id, run.id)] == [
            {"first": text(70_000, 1), "schema_version": 1},
            {"third": text(70_000, 3), "schema_version": 1},
        ]


def test_a_blob_put_ahead_of_its_frame_is_spared(
    run: Run, facts: dict[UUID, RunFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BLOB_GRACE", timedelta(seconds=0.5))
    run.write({"large": text(70_000)})
    run.write_many(1, generation=1)
    facts[run.id] = RunFacts(open_generation=9, finished_at=now() - LONG_AGO)
    time.sleep(0.6)
    returning = run.writer.prepare({"large": text(70_000)})
    with tenant_scope(run.tenant_id):
        blobs.put(run.id, returning.blobs[0])  # it is there already; young again
    assert compaction.run(run.tenant_id).blobs == 0
    time.sleep(0.6)
    assert compaction.run(run.tenant_id).blobs == 1


def test_evidence_of_corruption_is_left_as_it_is(
    run: Run, new_run: Callable[[], Run], facts: dict[UUID, RunFacts]
) -> None:
    run.write_many(9)
    with tenant_scope(run.tenant_id):
        sql.row("SELECT set_config('agentstate.compacting', 'on', true)")
        damage = "UPDATE checkpoints_frame SET body = '\\x0102', base_n = NULL WHERE run_id = %s AND n = 8"
        sql.execute(damage, [run.id])
    healthy = new_run()
    healthy.write_many(10)
    facts[run.id] = facts[healthy.id] = finished()
    outcome = compaction.run(run.tenant_id)
    assert "Frame 8 of" in outcome.problems[0]
    with tenant_scope(run.tenant_id):
        left = [head.n for head in reading.heads(run.id)]
        assert left == [1, 8, 9]  # the segment that holds the corrupt frame
        with pytest.raises(Corrupt, match="Frame 8 of"):
            reading.newest(run.tenant_id, run.id)
    assert kept(healthy) == [1, 10]


def test_stretches_of_a_long_run_are_thinned_one_by_one(
    run: Run, facts: dict[UUID, RunFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BATCH_FRAMES", 50)  # less than a segment may have
    run.write_many(400, generation=0)
    run.write_many(20, generation=1)
    facts[run.id] = RunFacts(open_generation=1)
    failpoints.HITS.clear()
    outcome = compaction.run(run.tenant_id)
    assert kept(run) == [1, *range(401, 421)]
    assert outcome.frames == 399
    assert failpoints.HITS[compaction.BETWEEN] > 5


def test_random_runs_stay_whole_under_repeated_compaction(
    new_run: Callable[[], Run], facts: dict[UUID, RunFacts]
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    run, must, generation = new_run(), set(), 0
    for _ in range(4):
        for _ in range(dice.randrange(5, 90)):
            starts = dice.random() < 0.02 or run.writer.n == 0
            generation += starts
            kind = dice.choice(["step"] * 12 + ["approval", "effect", "pause", "fork"])
            step_seq = dice.randrange(500)
            frame = run.write(
                {"base": text(3_000), "n": dice.random()},
                boundary=dice.random() < 0.05,
                kind=kind,
                generation=generation,
                step_seq=step_seq,
            )
            if starts or kind != "step":
                must.add(frame.n)
        facts[run.id] = RunFacts(open_generation=generation + dice.randrange(2))
        compaction.run(run.tenant_id)
        left = kept(run)
        assert must <= set(left) and run.writer.n in left


def stub(n: int, size: int, *, keyframe: bool = False, kind: str = "step") -> Stub:
    return Stub(n, 0, None, kind, keyframe, size)


def test_a_gap_is_closed_only_when_that_frees_something() -> None:
    segment = [stub(1, 10_000, keyframe=True), *(stub(n, 10) for n in range(2, 12))]
    cheap = thinning.thin(segment, lambda frame: frame.n in {1, 11})
    assert (cheap.delete, cheap.rekey) == ([], [])
    many = [stub(1, 10_000, keyframe=True), *(stub(n, 90) for n in range(2, 60))]
    worth = thinning.thin(many, lambda frame: frame.n in {1, 59})
    assert (worth.delete, worth.rekey) == (list(range(2, 59)), [59])
    assert worth.freed_bytes - worth.added_bytes == 58 * 90 - 10_000  # and 57 rows


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


def test_a_pinned_frame_in_the_middle_of_a_gap_is_kept(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(10)
    facts[run.id] = finished()
    with tenant_scope(run.tenant_id):
        pins.pin(run.id, 5, holder=new_id())
    compaction.run(run.tenant_id)
    assert kept(run) == [1, 5, 10]


def test_memory_is_bounded_whatever_the_number_of_frames(run: Run, facts: dict[UUID, RunFacts]) -> None:
    """10,000 frames of one run: what is in memory at a time is a stretch of 2,000 without bodies."""
    seed_frames(run, 10_000)
    facts[run.id] = RunFacts(open_generation=1)
    tracemalloc.start()
    outcome = compaction.run(run.tenant_id)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"peak {peak_bytes / 1e6:.1f} MB for {outcome.frames} frames")
    assert outcome.frames == 10_000 - 2
    assert peak_bytes < 8_000_000


def seed_frames(run: Run, count: int) -> None:
    """Real frames, with one INSERT per thousand."""
    one = f"({', '.join(['%s'] * len(COLUMNS))})"
    for start in range(0, count, 1_000):
        args: list[object] = []
        for n in range(start, min(start + 1_000, count)):
            frame = run.writer.prepare({"base": "x" * 200, "n": n}, generation=0)
            run.writer.advance(frame)
            run.plains[frame.n] = frame.plain
            args += [getattr(frame, name) for name in COLUMNS]
        rows = len(args) // len(COLUMNS)
        with tenant_scope(run.tenant_id):
            sql.execute(f"INSERT INTO checkpoints_frame ({', '.join(COLUMNS)}) VALUES {', '.join([one] * rows)}", args)


def test_the_command_says_before_and_afterwards(run: Run, tenant: Tenant, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(30)
    facts[run.id] = finished()
    out = StringIO()
    call_command("compact", tenant=tenant.slug, plan=True, stdout=out)
    assert "acme: would free 28 frames and 0 blobs of 1 runs" in out.getvalue()
    assert len(kept(run)) == 30
    call_command("compact", stdout=out)
    assert "acme: freed 28 frames and 0 blobs of 1 runs" in out.getvalue()
    assert kept(run) == [1, 30]
    with pytest.raises(CommandError, match="no tenant nobody"):
        call_command("compact", tenant="nobody", stdout=out)


def test_the_task_compacts_every_tenant(run: Run, other_tenant: Tenant, facts: dict[UUID, RunFacts]) -> None:
    theirs = Run(other_tenant.id)
    for each in (run, theirs):
        each.write_many(10)
        facts[each.id] = finished()
    tasks.compact.run()
    assert kept(run) == [1, 10] and kept(theirs) == [1, 10]


def test_rotation_rewraps_every_run_key_and_frames_still_open(
    run: Run, new_run: Callable[[], Run], tenant: Tenant
) -> None:
    runs = [run, *(new_run() for _ in range(6))]
    for each in runs:
        each.write_many(2)
    with tenant_scope(tenant.id):
        keys.destroy(runs[6].id)
    out = StringIO()
    call_command("rotate_keys", tenant=tenant.slug, stdout=out)
    assert "acme: version 2; 6 run keys wrapped by it, 0 left" in out.getvalue()
    with tenant_scope(tenant.id):
        versions = sql.rows("SELECT key_version, wrapped FROM checkpoints_runkey WHERE destroyed_at IS NULL")
    assert {(version, keyring.version_of(wrapped)) for version, wrapped in versions} == {(2, 2)}
    assert all(kept(each) == [1, 2] for each in runs[:6])
    call_command("rotate_keys", rewrap_only=True, stdout=out)
    assert "acme: version 2; 0 run keys wrapped by it, 0 left" in out.getvalue()


def test_a_rotation_killed_in_the_middle_goes_on(new_run: Callable[[], Run], tenant: Tenant) -> None:
    runs = [new_run() for _ in range(5)]
    keyring.rotate(tenant.id)
    with tenant_scope(tenant.id):
        for run_id, wrapped in keys._older_than(2, after=UUID(int=0), limit=2):  # one batch, then dead
            keys._rewrap(tenant.id, run_id, bytes(wrapped))
    assert keys.left_behind(tenant.id) == 3
    assert keys.rewrap(tenant.id, batch_rows=2) == 3
    assert keys.left_behind(tenant.id) == 0
    with tenant_scope(tenant.id):
        assert [keys.existing(run.id) for run in runs] == [run.key for run in runs]


def test_a_key_row_that_is_held_is_skipped_and_counted(run: Run, new_run: Callable[[], Run], tenant: Tenant) -> None:
    new_run()
    keyring.rotate(tenant.id)
    counts: list[int] = []

    def rotate() -> None:
        counts.append(keys.rewrap(tenant.id))
        connection.close()

    with tenant_scope(tenant.id):
        sql.row("SELECT 1 FROM checkpoints_runkey WHERE run_id = %s FOR UPDATE", [run.id])
        elsewhere = threading.Thread(target=rotate)
        elsewhere.start()
        elsewhere.join()
    assert counts == [1]
    assert keys.left_behind(tenant.id) == 1
