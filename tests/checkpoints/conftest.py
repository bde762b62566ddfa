"""A run with its key, and states of a known size."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from agentstate.core.clock import now
from agentstate.core.ids import new_id
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from checkpoints import compaction, keys, reading, writing
from checkpoints.compaction import RunFacts
from checkpoints.writing import FrameRow, FrameWriter

_random = random.Random(7)
WORDS = ["".join(_random.choices("abcdefghijklmnopqrstuvwxyz", k=_random.randint(3, 9))) for _ in range(2000)]


def text(size: int, seed: int = 0) -> str:
    """`size` characters of random words: compresses like prose, not like zeros."""
    words = random.Random(seed)
    parts, length = [], 0
    while length < size:
        parts.append(words.choice(WORDS))
        length += len(parts[-1]) + 1
    return " ".join(parts)[:size]


def state(size: int) -> dict[str, Any]:
    """A state of about `size` bytes in messages of 2 KB."""
    return {"messages": [{"role": "user", "content": text(1_960, seed), "n": seed} for seed in range(size // 2_000)]}


class Run:
    """One run under test: writes frames as the engine does, prepare, commit, advance."""

    base_bytes = 6_000  # of the part that stays: decides how many deltas come before a keyframe

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id, self.id = tenant_id, new_id()
        with tenant_scope(tenant_id):
            self.key = keys.run_key(self.id)
        self.writer = FrameWriter(tenant_id, self.id, self.key)
        self.plains: dict[int, bytes] = {}

    def write(self, doc: dict[str, Any], **how: Any) -> FrameRow:
        frame = self.writer.prepare(doc, **how)
        with tenant_scope(self.tenant_id):
            writing.insert(frame)
        self.writer.advance(frame)
        self.plains[frame.n] = frame.plain
        return frame

    def write_many(self, count: int, **how: Any) -> None:
        for _ in range(count):
            n = self.writer.n + 1
            self.write({"base": text(self.base_bytes), "count": n, "note": text(40, n)}, **how)


@pytest.fixture
def run(tenant: Tenant) -> Run:
    return Run(tenant.id)


@pytest.fixture
def new_run(tenant: Tenant) -> Callable[[], Run]:
    return lambda: Run(tenant.id)


@pytest.fixture
def light_keyframes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps of a few frames are worth a keyframe in all tests but those about just that."""
    monkeypatch.setattr(Run, "base_bytes", 300)


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of these tests are young."""
    monkeypatch.setattr(compaction, "BLOB_GRACE", timedelta(0))


@pytest.fixture
def facts() -> Iterator[dict[UUID, RunFacts]]:
    """What the tier above knows; runs that are not in it are unknown."""
    known: dict[UUID, RunFacts] = {}
    before = compaction._source
    compaction.provide(known.get)
    yield known
    compaction.provide(before)


def kept(run: Run) -> list[int]:
    """Numbers of the frames that are left; every one decodes to what was written."""
    with tenant_scope(run.tenant_id):
        found = list(reading.history(run.tenant_id, run.id))
        assert all(frame.plain == run.plains[frame.n] for frame in found)
        for frame in found:
            assert reading.load(run.tenant_id, run.id, frame.n).plain == run.plains[frame.n]
    return [frame.n for frame in found]


def finished() -> RunFacts:
    return RunFacts(open_generation=0, finished_at=now())
