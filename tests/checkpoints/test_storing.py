"""Frames in Postgres: what is written comes back, and what was tampered with says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from pydantic import BaseModel

from agentstate.core import canonical
from agentstate.core.errors import Corrupt, NotFound
from agentstate.core.ids import new_id, public_id
from agentstate.db import locks, sql
from agentstate.tenants.models import Tenant
from checkpoints import frames, keys, pins, reading, upcasting, writing
from checkpoints.frames import Codec
from checkpoints.reading import Expect
from checkpoints.writing import FrameWriter
from tests.checkpoints.conftest import Run, state, text

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _in_scope(other_tenant: Tenant, scope: None) -> None:
    """All of these run in the tenant's scope."""


def tamper(statement: str, args: list[Any]) -> None:
    """What a person with the owner's password could do: no trigger, no grant in the way."""
    connection.cursor().execute("SET LOCAL agentstate.compacting = 'on'")
    with connection.cursor() as cursor:
        cursor.execute(statement, args)


def body(run: Run, n: int) -> bytes:
    found = sql.row("SELECT body FROM checkpoints_frame WHERE run_id = %s AND n = %s", [run.id, n])
    assert found is not None
    return bytes(found[0])


def change(run: Run, which: int, **columns: Any) -> None:
    """Rewrite columns of a frame row, as only somebody with the owner's rights could."""
    (row,) = reading.heads(run.id, after=which - 1, limit=1)
    sealed = body(run, which)
    tamper("DELETE FROM checkpoints_frame WHERE run_id = %s AND n = %s", [run.id, which])
    values = {name: columns.get(name, getattr(row, name)) for name in writing.COLUMNS if hasattr(row, name)}
    values |= {"run_id": run.id, "body": columns.get("body", sealed), "n": columns.get("n", which)}
    sql.execute(writing.INSERT, [values[name] for name in writing.COLUMNS])


def refused(run: Run, n: int, failed: str, expect: Expect | None = None) -> str:
    with pytest.raises(Corrupt) as refusal:
        reading.load(run.tenant_id, run.id, n, expect)
    assert refusal.value.data["run"] == public_id("run", run.id)
    assert refusal.value.data["failed"] == failed, refusal.value.message
    assert f"Frame {refusal.value.data['frame']} of run_" in refusal.value.message
    return refusal.value.message


def test_every_frame_comes_back_as_it_was_written(run: Run) -> None:
    run.write_many(150)
    for found in reading.history(run.tenant_id, run.id):
        assert found.plain == run.plains[found.n]
        assert found.doc == canonical.loads(found.plain)
    assert [found.n for found in reading.history(run.tenant_id, run.id, after=100)] == list(range(101, 151))
    for n in (1, 2, 64, 65, 66, 150):
        assert reading.load(run.tenant_id, run.id, n).plain == run.plains[n]


def test_a_writer_goes_on_from_the_newest_frame_after_a_restart(run: Run) -> None:
    run.write_many(20)
    newest = reading.newest(run.tenant_id, run.id)
    assert newest is not None
    resumed = FrameWriter(run.tenant_id, run.id, keys.run_key(run.id), newest)
    doc = {"count": "next"}
    ours, theirs = resumed.prepare(doc), run.writer.prepare(doc)
    assert (ours.n, ours.base_n, ours.chain, ours.plain) == (theirs.n, theirs.base_n, theirs.chain, theirs.plain)
    assert newest.weight == run.writer._weight


def test_a_run_without_frames_has_no_newest(run: Run) -> None:
    assert reading.newest(run.tenant_id, run.id) is None
    assert reading.newest_valid(run.tenant_id, run.id) == (None, ())
    with pytest.raises(NotFound):
        reading.load(run.tenant_id, run.id, 1)


def test_one_frame_number_is_written_once(run: Run) -> None:
    frame = run.write({"a": 1})
    with pytest.raises(IntegrityError), transaction.atomic():
        writing.insert(frame)


def test_large_texts_are_stored_once_and_come_back(run: Run) -> None:
    doc = {"scan": text(300_000), "note": "語" * 30_000, "look-alike": {"$blob": "me"}}
    run.write(doc)
    run.write({**doc, "more": 1})
    run.write({"more": 1})
    run.write({**doc, "more": 2})
    assert sql.rows("SELECT bytes FROM checkpoints_blob WHERE run_id = %s ORDER BY bytes", [run.id]) == [
        (90_000,),
        (300_000,),
    ]
    newest = reading.newest(run.tenant_id, run.id)
    assert newest is not None
    assert newest.doc == {**doc, "more": 2, "schema_version": 1}
    assert FrameWriter(run.tenant_id, run.id, run.key, newest).prepare({**doc, "more": 3}).blobs == ()


def test_a_missing_or_swapped_blob_is_named(run: Run, new_run: Callable[[], Run]) -> None:
    run.write({"scan": text(100_000)})
    tamper("DELETE FROM checkpoints_blob WHERE run_id = %s", [run.id])
    assert "is not there" in refused(run, 1, "blob")
    other = new_run()
    (blob,) = other.write({"scan": text(100_000)}).blobs
    (ours,) = run.writer.prepare({"x": text(90_000)}).blobs
    sha = run.writer._codec.sha(text(100_000).encode())
    sql.execute(
        "INSERT INTO checkpoints_blob (run_id, sha, bytes, body) VALUES (%s, %s, %s, %s)",
        [run.id, sha, 90_000, ours.body],
    )
    assert blob.sha != sha
    assert "does not open" in refused(run, 1, "blob")


@pytest.mark.parametrize("position", [0, 5, 13, -1])
def test_a_flipped_bit_is_corrupt(run: Run, position: int) -> None:
    run.write_many(3)
    flipped = bytearray(body(run, 2))
    flipped[position] ^= 4
    change(run, 2, body=bytes(flipped))
    assert "Frame 2 of" in refused(run, 2, "body")
    assert "Frame 2 of" in refused(run, 3, "body")
    assert reading.load(run.tenant_id, run.id, 1).n == 1


def test_a_truncated_body_is_corrupt(run: Run) -> None:
    run.write_many(2)
    change(run, 2, body=body(run, 2)[:-5])
    refused(run, 2, "body")


def test_bodies_swapped_between_frames_or_runs_are_corrupt(run: Run, new_run: Callable[[], Run]) -> None:
    run.write_many(2, boundary=True)
    first, second = body(run, 1), body(run, 2)
    change(run, 1, body=second)
    change(run, 2, body=first)
    refused(run, 1, "body")
    refused(run, 2, "body")
    other = new_run()
    other.write_many(1)
    change(run, 2, body=body(other, 1))
    refused(run, 2, "body")


def test_a_missing_middle_frame_is_named(run: Run) -> None:
    run.write_many(5)
    tamper("DELETE FROM checkpoints_frame WHERE run_id = %s AND n = 3", [run.id])
    assert "change to frame 3, which is missing" in refused(run, 4, "base missing")
    assert "Frame 4 of" in refused(run, 5, "base missing")
    assert reading.load(run.tenant_id, run.id, 2).n == 2


def test_a_missing_keyframe_is_named(run: Run) -> None:
    run.write_many(5)
    tamper("DELETE FROM checkpoints_frame WHERE run_id = %s AND n = 1", [run.id])
    assert "change to frame 4, which is missing" in refused(run, 5, "base missing")


def test_a_planted_dictionary_is_corrupt(run: Run) -> None:
    """Somebody with the run's key replaces a frame by another valid one: the frames behind do not verify."""
    run.write(state(20_000))
    edited = state(20_000)
    edited["messages"][0]["content"] = "edited"
    run.write(edited)
    before = canonical.dumps({"messages": state(22_000)["messages"][1:], "schema_version": 1})
    aad = frames.bound_to(frames.frames_of(run.tenant_id, run.id), 1, b"c" * 32)
    planted = Codec(run.key).encode(before, previous=None, aad=aad)
    change(run, 1, body=planted, sha=Codec(run.key).sha(before), plain_bytes=len(before), chain=b"c" * 32)
    assert reading.load(run.tenant_id, run.id, 1).plain == before
    with pytest.raises(Corrupt) as refusal:
        reading.load(run.tenant_id, run.id, 2)
    assert refusal.value.data["frame"] == 2
    assert refusal.value.data["failed"] in {"zstd", "sha"}


@pytest.mark.parametrize(
    ("columns", "failed"),
    [
        ({"sha": b"s" * 32}, "sha"),
        ({"chain": b"c" * 32}, "body"),
        ({"plain_bytes": 5}, "length"),
        ({"plain_bytes": 2_000_000_000}, "length"),
        ({"base_n": None}, "zstd"),
        ({"schema_version": 2}, "schema version"),
    ],
)
def test_a_changed_column_is_corrupt(run: Run, columns: dict[str, Any], failed: str) -> None:
    run.write(state(4_000))
    run.write({**state(4_000), "more": 1})
    change(run, 2, **columns)
    refused(run, 2, failed)


def test_a_frame_under_another_number_is_corrupt(run: Run) -> None:
    run.write_many(2, boundary=True)
    change(run, 2, n=3)
    refused(run, 3, "body")


def test_the_chain_is_verified_against_the_steps(run: Run) -> None:
    digests = {n: bytes([n]) * 32 for n in range(1, 12)}
    for n, digest in digests.items():
        run.write({"n": n}, steps_digest=digest)
    known = Expect(steps_digest=digests.get)
    assert len(list(reading.history(run.tenant_id, run.id, known))) == 11
    forged = Expect(steps_digest=lambda n: b"x" * 32 if n == 7 else digests[n])
    assert "Frame 7 of" in refused(run, 7, "chain", forged)
    assert reading.load(run.tenant_id, run.id, 11, Expect(steps_digest=lambda n: None)).n == 11


def test_a_dropped_tail_frame_breaks_the_chain_of_the_next(run: Run) -> None:
    """A frame rewritten with the run's key, hash and all: only the chain tells."""
    digest = b"d" * 32
    for n in range(1, 4):
        run.write({"n": n}, steps_digest=digest, boundary=True)
    plain = canonical.dumps({"n": "forged", "schema_version": 1})
    chain = frames.link(b"f" * 32, digest, Codec(run.key).sha(plain))
    aad = frames.bound_to(frames.frames_of(run.tenant_id, run.id), 2, chain)
    sealed = Codec(run.key).encode(plain, previous=None, aad=aad)
    change(run, 2, body=sealed, sha=Codec(run.key).sha(plain), plain_bytes=len(plain), chain=chain)
    assert reading.load(run.tenant_id, run.id, 2).doc["n"] == "forged"
    refused(run, 2, "chain", Expect(steps_digest=lambda n: digest))


class Shape(BaseModel):
    schema_version: int
    total: int


def test_the_shape_is_verified_and_given(run: Run) -> None:
    run.write({"total": 5})
    newest = reading.newest(run.tenant_id, run.id, Expect(shape=Shape))
    assert newest is not None and newest.shaped == Shape(schema_version=1, total=5)
    run.write({"total": "secret text"})
    message = refused(run, 2, "shape", Expect(shape=Shape))
    assert "/total" in message and "secret" not in message


@pytest.fixture
def upcasters() -> Any:
    upcasting.register("desk", 1)(lambda doc: {"total": doc["amount"]})
    upcasting.register("desk", 2)(lambda doc: {**doc, "total": doc["total"] * 100})
    yield
    upcasting.forget("desk")


def test_old_states_are_upcast_step_by_step(run: Run, upcasters: None) -> None:
    run.write({"amount": 5})
    newest = reading.newest(run.tenant_id, run.id, Expect(agent="desk", shape=Shape))
    assert newest is not None
    assert newest.doc == {"total": 500, "schema_version": 3}
    assert newest.head.schema_version == 1
    assert canonical.loads(newest.plain) == {"amount": 5, "schema_version": 1}


def test_a_state_of_newer_code_is_not_guessed_at(run: Run, upcasters: None) -> None:
    run.writer.version = 4
    run.write({"total": 5})
    assert "Deploy the newer code" in refused(run, 1, "schema version", Expect(agent="desk"))


def test_a_missing_upcaster_is_named(run: Run, upcasters: None) -> None:
    upcasting.register("desk", 5)(lambda doc: doc)
    run.write({"amount": 5})
    assert "no upcaster from schema version 3" in refused(run, 1, "schema version", Expect(agent="desk"))


def test_newest_valid_goes_past_corrupt_frames_and_lists_them(run: Run) -> None:
    run.write_many(20)
    run.write({"keyframe": 1}, boundary=True)
    run.write_many(4)
    change(run, 21, body=b"rubbish" * 10)
    change(run, 18, body=b"rubbish" * 10)
    found, skipped = reading.newest_valid(run.tenant_id, run.id)
    assert found is not None and found.n == 17 and found.plain == run.plains[17]
    assert [error.data["frame"] for error in skipped] == [25, 24, 23, 22, 21, 20, 19, 18]
    assert "builds on frame 21" in skipped[0].message
    with pytest.raises(Corrupt, match="Frame 21 of"):
        reading.newest(run.tenant_id, run.id)


def test_newest_valid_says_when_nothing_is_left(run: Run) -> None:
    run.write_many(12)
    change(run, 1, body=b"rubbish" * 10)
    found, skipped = reading.newest_valid(run.tenant_id, run.id)
    assert found is None
    assert [error.data["frame"] for error in skipped] == list(range(12, 0, -1))


def test_a_destroyed_key_makes_every_frame_unreadable_and_says_so(run: Run) -> None:
    run.write_many(3)
    keys.destroy(run.id)
    keys.destroy(run.id)
    for read in (reading.newest, reading.newest_valid):
        with pytest.raises(Corrupt, match="key destroyed"):
            read(run.tenant_id, run.id)
    with pytest.raises(Corrupt, match="key destroyed"):
        keys.run_key(run.id)
    assert sql.row("SELECT wrapped FROM checkpoints_runkey WHERE run_id = %s", [run.id]) == (b"",)


def test_a_run_key_is_made_once(run: Run) -> None:
    assert keys.run_key(run.id) == keys.existing(run.id) == run.key


def test_a_key_of_a_rolled_back_admission_is_forgotten() -> None:
    run_id = new_id()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        lost = keys.run_key(run_id)
        raise ZeroDivisionError
    with pytest.raises(Corrupt, match="has no key"):
        keys.existing(run_id)
    assert keys.run_key(run_id) != lost


def test_a_wrapped_key_does_not_open_for_another_run(run: Run, new_run: Callable[[], Run]) -> None:
    other = new_run()
    sql.execute(
        "UPDATE checkpoints_runkey SET wrapped = (SELECT wrapped FROM checkpoints_runkey WHERE run_id = %s)"
        " WHERE run_id = %s",
        [other.id, run.id],
    )
    with pytest.raises(Corrupt):
        keys.existing(run.id)


@pytest.mark.parametrize("column", ["sha", "chain", "plain_bytes", "kind", "fence", "n", "generation", "created"])
def test_the_application_may_not_rewrite_a_frame(run: Run, column: str) -> None:
    run.write({"a": 1})
    with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
        tamper(f"UPDATE checkpoints_frame SET {column} = {column} WHERE run_id = %s", [run.id])


def test_frames_are_neither_changed_nor_deleted_outside_compaction(run: Run) -> None:
    run.write({"a": text(80_000)})
    for statement in (
        "UPDATE checkpoints_frame SET body = body WHERE run_id = %s",
        "DELETE FROM checkpoints_frame WHERE run_id = %s",
        "DELETE FROM checkpoints_blob WHERE run_id = %s",
    ):
        with pytest.raises(DatabaseError, match="written once"), transaction.atomic():
            sql.execute(statement, [run.id])


def test_even_compaction_may_only_make_keyframes(run: Run) -> None:
    run.write({"a": 1})
    run.write({"a": 2})
    with pytest.raises(DatabaseError, match="change nothing else"), transaction.atomic():
        tamper("UPDATE checkpoints_frame SET body = 'x' WHERE run_id = %s AND n = 2", [run.id])


def test_the_lock_of_the_database_function_is_the_lock_of_python(run: Run) -> None:
    run.write({"a": text(80_000)})
    held = sql.rows(
        "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory'"
        " AND mode = 'ShareLock' AND pid = pg_backend_pid()"
    )
    assert (locks.number(pins.LOCK, run.id),) in held


def test_other_tenants_see_neither_frames_nor_keys(run: Run, other_tenant: Tenant) -> None:
    run.write_many(2)
    with connection.cursor() as cursor:  # leave the scope of this test for a moment
        cursor.execute("SELECT set_config('agentstate.tenant', %s, true)", [str(other_tenant.id)])
        for table in ("frame", "runkey", "blob", "pin"):
            assert sql.rows(f"SELECT 1 FROM checkpoints_{table}") == []
        cursor.execute("SELECT set_config('agentstate.tenant', %s, true)", [str(run.tenant_id)])
    assert len(sql.rows("SELECT 1 FROM checkpoints_frame")) == 2


def test_no_sealed_text_stands_in_the_tables(run: Run) -> None:
    run.write({"secret": "canary-8c1f", "large": "canary-8c1f " * 10_000})
    run.write({"secret": "canary-8c1f", "more": 1})
    bodies = sql.rows("SELECT body FROM checkpoints_frame UNION ALL SELECT body FROM checkpoints_blob")
    assert len(bodies) == 3
    assert all(b"canary" not in bytes(sealed) for (sealed,) in bodies)


def test_a_pin_needs_its_frame(run: Run) -> None:
    run.write_many(2)
    holder = run.id
    pins.pin(run.id, 2, holder=holder)
    pins.pin(run.id, 2, holder=holder)
    assert pins.pinned(run.id) == {2}
    with pytest.raises(NotFound):
        pins.pin(run.id, 9, holder=holder)
    assert pins.release(holder) == 1
    assert pins.pinned(run.id) == frozenset()
