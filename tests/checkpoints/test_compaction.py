"""Compaction keeps what somebody may come back to, and every kept frame decodes."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from agentstate.core import failpoints
from agentstate.core.clock import now
from agentstate.core.errors import Corrupt
from agentstate.core.ids import new_id
from agentstate.db import sql
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope
from checkpoints import blobs, compaction, keys, pins, reading, tasks, thinning
from checkpoints.compaction import RunFacts
from checkpoints.thinning import Stub
from checkpoints.writing import COLUMNS
from tests.checkpoints.conftest import Run, finished, kept, text

pytestmark = pytest.mark.usefixtures("committed_db", "light_keyframes", "no_grace")
LONG_AGO = timedelta(days=400)


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
    run.write({"large": text(70_000)})
    run.write_many(1, generation=1)
    facts[run.id] = RunFacts(open_generation=9, finished_at=now() - LONG_AGO)
    written_at = now()
    returning = run.writer.prepare({"large": text(70_000)})
    with tenant_scope(run.tenant_id):
        blobs.put(run.id, returning.blobs[0])  # it is there already; young again
    grace = timedelta(hours=1)
    monkeypatch.setattr(compaction, "BLOB_GRACE", grace)
    monkeypatch.setattr(compaction, "now", lambda: written_at + grace)
    assert compaction.run(run.tenant_id).blobs == 0
    monkeypatch.setattr(compaction, "now", lambda: now() + grace)
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


def test_memory_is_bounded_whatever_the_number_of_frames(run: Run, facts: dict[UUID, RunFacts]) -> None:
    """6,000 frames of one run: what is in memory at a time is a stretch of 2,000 without bodies."""
    seed_frames(run, 6_000)
    facts[run.id] = RunFacts(open_generation=1)
    tracemalloc.start()
    outcome = compaction.run(run.tenant_id)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"peak {peak_bytes / 1e6:.1f} MB for {outcome.frames} frames")
    assert outcome.frames == 6_000 - 2
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


def test_a_pinned_frame_in_the_middle_of_a_gap_is_kept(run: Run, facts: dict[UUID, RunFacts]) -> None:
    run.write_many(10)
    facts[run.id] = finished()
    with tenant_scope(run.tenant_id):
        pins.pin(run.id, 5, holder=new_id())
    compaction.run(run.tenant_id)
    assert kept(run) == [1, 5, 10]
