"""Compaction: drops frames that nobody comes back to, and re-keys what stands behind them so that all others decode.

Kept are: the newest frame, the first of each generation, kinds approval / effect / pause / fork / generation, pinned
frames, frames of protected steps, and everything of the open generation. Of runs that ended longer ago than the
retention nothing but pins is kept; of runs with a destroyed key, nothing. One short transaction per stretch of a run,
under that run's advisory lock: killed anywhere it leaves whole stretches done or not done, run again it finds nothing
to do, run twice at once each run is done by one. Writers wait for nothing, except when they bring a new blob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from agentstate.core.clock import now
from agentstate.core.errors import Corrupt
from agentstate.core.failpoints import hit, register
from agentstate.db import locks, sql
from agentstate.tenants.scope import tenant_scope
from checkpoints import blobs, frames, keys, pins, reading, thinning
from checkpoints.frames import Codec
from checkpoints.thinning import KINDS_KEPT, Stub, Thinning

BATCH_FRAMES = 2_000  # whose columns without bodies are in memory at a time
BATCH_RUNS = 500
PROBLEMS_MAX = 100
BLOB_GRACE = timedelta(hours=1)  # between a blob and the frame that refers to it, when they are not one transaction
RETENTION_DAYS = 90  # default of the tenant setting
RETENTION_KEY = "checkpoints.retention_days"

REKEYED = register("checkpoints.compact.rekeyed", "frame behind the gap is a keyframe | the gap is deleted")
DELETED = register("checkpoints.compact.deleted", "a stretch is thinned | its transaction commits")
BETWEEN = register("checkpoints.compact.between", "a stretch of a run is committed | the next one begins")

# One statement, so that the newest frame and the stretch are of the same moment: a frame committed in between builds on
# the newest one seen here, which is kept. Index: the primary key.
_STRETCH = """
SELECT n, generation, step_seq, kind, base_n IS NULL, octet_length(body),
  (SELECT max(n) FROM checkpoints_frame WHERE run_id = %s)
FROM checkpoints_frame WHERE run_id = %s AND n > %s ORDER BY n LIMIT %s"""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the tier above knows about a run."""

    open_generation: int
    finished_at: datetime | None = None  # None: live, or stopped but able to go on
    protected: frozenset[int] = frozenset()  # seq of steps whose frames stay: unresolved effects


# Called inside the transaction that compacts the run. It locks the row of a finished run FOR SHARE, so that the run
# cannot be resumed while its frames expire. None: unknown run, left alone.
Source = Callable[[UUID], RunFacts | None]
_source: Source | None = None


@dataclass(slots=True)
class Outcome:
    """What a compaction would free (plan) or has freed (run)."""

    runs: int = 0  # that lose or lost something
    frames: int = 0
    freed_bytes: int = 0  # of sealed bodies, after what re-keying adds
    rekeyed: int = 0
    blobs: int = 0
    busy: int = 0  # runs in the hands of another compaction, or pinned right now
    unknown: int = 0  # runs that nobody answers for
    problems: list[str] = field(default_factory=list)  # frames that do not verify; their stretch is left as it is

    def add(self, other: Outcome) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        del self.problems[PROBLEMS_MAX:]


def provide(source: Source | None) -> None:
    """Register who knows the runs; done once by the tier above when it starts."""
    global _source
    _source = source


def plan(tenant_id: UUID, *, retention_days: int | None = None) -> Outcome:
    """What run() would free now. Reads only."""
    return _each_run(tenant_id, retention_days, act=False)


def run(tenant_id: UUID, *, retention_days: int | None = None) -> Outcome:
    """Compact all runs of the tenant. Idempotent; safe to kill, and to run twice at once.

    Locks: one run's advisory lock at a time, tried, never waited for.
    """
    return _each_run(tenant_id, retention_days, act=True)


def run_one(tenant_id: UUID, run_id: UUID, *, retention_days: int | None = None) -> Outcome:
    """Compact one run, as run() does."""
    return _Compaction(tenant_id, run_id, _expiry(tenant_id, retention_days), act=True).finish()


def _each_run(tenant_id: UUID, retention_days: int | None, *, act: bool) -> Outcome:
    assert _source is not None, "compaction needs to know the runs: call compaction.provide() at start"
    outcome, expiry = Outcome(), _expiry(tenant_id, retention_days)
    for run_id in _run_ids(tenant_id):
        outcome.add(_Compaction(tenant_id, run_id, expiry, act=act).finish())
    return outcome


def _run_ids(tenant_id: UUID) -> Iterator[UUID]:
    """Every run has a key; pages keep the transaction short. Index: checkpoints_runkey_tenant_run."""
    after = UUID(int=0)
    while True:
        with tenant_scope(tenant_id):
            page = sql.rows(
                "SELECT run_id FROM checkpoints_runkey WHERE run_id > %s ORDER BY run_id LIMIT %s", [after, BATCH_RUNS]
            )
        if not page:
            return
        yield from (run_id for (run_id,) in page)
        after = page[-1][0]


def _expiry(tenant_id: UUID, retention_days: int | None) -> datetime:
    """Runs that ended before this moment lose their frames."""
    if retention_days is None:
        with tenant_scope(tenant_id):
            found = sql.row("SELECT value::text::int FROM tenants_tenantsetting WHERE key = %s", [RETENTION_KEY])
        retention_days = int(found[0]) if found else RETENTION_DAYS
    return now() - timedelta(days=retention_days)


class _Busy(Exception):
    """The run's lock is taken."""


class _Compaction:
    """One pass over one run."""

    def __init__(self, tenant_id: UUID, run_id: UUID, expiry: datetime, *, act: bool) -> None:
        self.tenant_id, self.run_id, self.expiry, self.act = tenant_id, run_id, expiry, act
        self.outcome = Outcome()
        self.generation: int | None = None  # of the last frame seen
        self.is_erased = False  # its key is destroyed
        self.gone: set[int] = set()  # planned only: what run() would have deleted by now

    def finish(self) -> Outcome:
        after: int | None = 0
        try:
            while after is not None:
                with tenant_scope(self.tenant_id):
                    after = self._stretch(after)
                hit(BETWEEN)
            with tenant_scope(self.tenant_id):
                self._drop_blobs()
        except _Busy:
            self.outcome.busy += 1
        self.outcome.runs = int(self.outcome.frames + self.outcome.blobs > 0)
        return self.outcome

    def _stretch(self, after: int) -> int | None:
        """Thin the next stretch; the number of its last frame, or None at the end."""
        self._begin()
        facts = _source(self.run_id) if _source else None
        if facts is None:
            self.outcome.unknown += 1
            return None
        stubs, newest_n, at_end = self._read(after)
        if not stubs:
            return None
        pinned = pins.pinned(self.run_id)
        self.is_erased = keys.is_destroyed(self.run_id)
        keeps = {stub.n for stub in stubs if self._is_kept(stub, facts, pinned, newest_n)}
        for segment in thinning.segments(stubs):
            self._thin(thinning.thin(segment, lambda stub: stub.n in keeps))
        return None if at_end else stubs[-1].n

    def _begin(self) -> None:
        if not self.act:
            return
        if not locks.try_hold(pins.LOCK, self.run_id):
            raise _Busy
        sql.row("SELECT set_config('agentstate.compacting', 'on', true)")

    def _read(self, after: int) -> tuple[list[Stub], int, bool]:
        """Whole segments behind `after`, the run's newest frame, and whether these are the last."""
        limit = BATCH_FRAMES
        while True:
            rows = sql.rows(_STRETCH, [self.run_id, self.run_id, after, limit])
            stubs = [Stub(*row[:6]) for row in rows]
            newest_n = rows[0][6] if rows else 0
            if len(stubs) < limit:
                return stubs, newest_n, True
            start_of_last = max((place for place, stub in enumerate(stubs) if stub.is_keyframe), default=0)
            if start_of_last:
                return stubs[:start_of_last], newest_n, False
            limit *= 2

    def _is_kept(self, stub: Stub, facts: RunFacts, pinned: frozenset[int], newest_n: int) -> bool:
        starts_generation = stub.generation != self.generation
        self.generation = stub.generation
        if self.is_erased:
            return False
        if stub.n in pinned:
            return True
        if facts.finished_at is not None and facts.finished_at < self.expiry:
            return False
        return (
            starts_generation
            or stub.n == newest_n
            or stub.kind in KINDS_KEPT
            or (stub.step_seq is not None and stub.step_seq in facts.protected)
            or (facts.finished_at is None and stub.generation >= facts.open_generation)
        )

    def _thin(self, thinned: Thinning) -> None:
        if not thinned.delete:
            return
        if self.act:
            try:
                added_bytes = sum(self._rekey(n) for n in thinned.rekey)
            except Corrupt as error:  # evidence: nothing of this stretch is touched
                self.outcome.problems.append(error.message)
                return
            hit(REKEYED)
            sql.execute(
                "DELETE FROM checkpoints_frame WHERE run_id = %s AND n = ANY(%s::int[])", [self.run_id, thinned.delete]
            )
            hit(DELETED)
        else:
            added_bytes = thinned.added_bytes
            self.gone.update(thinned.delete)
        self.outcome.frames += len(thinned.delete)
        self.outcome.rekeyed += len(thinned.rekey)
        self.outcome.freed_bytes += thinned.freed_bytes - added_bytes

    def _rekey(self, n: int) -> int:
        """Make frame `n` a keyframe; the size of its new body. Raises: Corrupt."""
        key = keys.existing(self.run_id)
        plain = reading.load_plain(self.tenant_id, self.run_id, n)
        chain = sql.row("SELECT chain FROM checkpoints_frame WHERE run_id = %s AND n = %s", [self.run_id, n])
        assert chain is not None
        aad = frames.bound_to(frames.frames_of(self.tenant_id, self.run_id), n, bytes(chain[0]))
        body = Codec(key).encode(plain, previous=None, aad=aad)
        sql.execute(
            "UPDATE checkpoints_frame SET body = %s, base_n = NULL WHERE run_id = %s AND n = %s", [body, self.run_id, n]
        )
        return len(body)

    def _drop_blobs(self) -> None:
        """Delete the run's blobs that no kept frame refers to."""
        self._begin()
        sizes = "SELECT sha, octet_length(body) FROM checkpoints_blob WHERE run_id = %s AND created < %s"
        stored: dict[Any, int] = dict(sql.rows(sizes, [self.run_id, now() - BLOB_GRACE]))
        if not stored or (_source and _source(self.run_id) is None):
            return
        try:
            used = set() if self.is_erased else self._references()
        except Corrupt as error:  # it might refer to any of them
            self.outcome.problems.append(error.message)
            return
        unused = [sha for sha in stored if bytes(sha) not in used]
        if self.act and unused:
            sql.execute("DELETE FROM checkpoints_blob WHERE run_id = %s AND sha = ANY(%s)", [self.run_id, unused])
        self.outcome.blobs += len(unused)
        self.outcome.freed_bytes += sum(stored[sha] for sha in unused)

    def _references(self) -> set[bytes]:
        used: set[bytes] = set()
        for n, plain in reading.plains(self.tenant_id, self.run_id):
            if n not in self.gone and blobs.MARK_BYTES in plain:
                used.update(blobs.references_in(plain))
        return used


def as_fields(outcome: Outcome) -> dict[str, Any]:
    """For log lines: counts, and how many problems instead of their text."""
    return {**asdict(outcome), "problems": len(outcome.problems)}
