"""Reading frames back. Nothing is believed: bytes, length, hash, chain, schema version and shape are all verified.

A frame that does not verify raises Corrupt with the run, the frame and what failed; only newest_valid goes past one,
and tells which. All functions run in the tenant's scope.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError

from agentstate.core import canonical
from agentstate.core.errors import Corrupt, NotFound
from agentstate.core.ids import public_id
from agentstate.db import sql
from checkpoints import blobs, frames, keys, upcasting
from checkpoints.frames import Codec, Weight

# Digest of the step rows written with frame n, as given to prepare(); None where they are no longer known.
StepsDigest = Callable[[int], bytes | None]

_COLUMNS = "n, generation, step_seq, kind, base_n, schema_version, sha, chain, plain_bytes, body, fence, created"
# A frame and what it needs: all from the last keyframe at or before it. Both use the primary key (run_id, n).
_PATH = f"""
SELECT {_COLUMNS} FROM checkpoints_frame WHERE run_id = %s AND n <= %s AND n >= coalesce(
  (SELECT n FROM checkpoints_frame WHERE run_id = %s AND n <= %s AND base_n IS NULL ORDER BY n DESC LIMIT 1), %s)
ORDER BY n"""
_NEWEST_PATH = f"""
SELECT {_COLUMNS} FROM checkpoints_frame WHERE run_id = %s AND n >= coalesce(
  (SELECT n FROM checkpoints_frame WHERE run_id = %s AND base_n IS NULL ORDER BY n DESC LIMIT 1), 0)
ORDER BY n"""
_NEXT = f"SELECT {_COLUMNS} FROM checkpoints_frame WHERE run_id = %s AND n > %s ORDER BY n LIMIT %s"
_NEWEST = "SELECT max(n) FROM checkpoints_frame WHERE run_id = %s"
_BATCH_FRAMES = 64


@dataclass(frozen=True, slots=True)
class Expect:
    """What the caller knows about the frames it asks for; each part that is given is verified."""

    agent: str = ""  # whose upcasters bring old states up to date
    shape: type[BaseModel] | None = None  # of the whole document, after upcasting
    steps_digest: StepsDigest | None = None  # verifies the chain


@dataclass(frozen=True, slots=True)
class Head:
    """The columns of a frame that need no key."""

    n: int
    generation: int
    step_seq: int | None
    kind: str
    base_n: int | None
    schema_version: int
    sha: bytes
    chain: bytes
    plain_bytes: int
    body_bytes: int
    fence: int
    created: datetime


@dataclass(frozen=True, slots=True)
class Loaded:
    """A verified frame. `plain` is what was stored; `doc` is it with blobs attached and in the current version."""

    head: Head
    doc: dict[str, Any]
    plain: bytes
    weight: Weight
    references: frozenset[bytes]
    shaped: BaseModel | None = None  # the document as the caller's model

    @property
    def n(self) -> int:
        return self.head.n

    @property
    def chain(self) -> bytes:
        return self.head.chain

    def __repr__(self) -> str:
        return f"<frame {self.n}, {self.head.kind}, {len(self.plain)} bytes>"  # nothing unsealed in logs


@dataclass(frozen=True, slots=True)
class Plain:
    """A frame whose bytes, length, hash and chain verify."""

    head: Head
    plain: bytes
    weight: Weight


def newest(tenant_id: UUID, run_id: UUID, expect: Expect | None = None, *, key: bytes | None = None) -> Loaded | None:
    """The newest frame of the run, or None when it has none. `key`: the run's, else it is read. Raises: Corrupt."""
    rows = sql.rows(_NEWEST_PATH, [run_id, run_id])
    if not rows:
        return None
    expect = expect or Expect()
    reader = _Reader(tenant_id, run_id, expect.steps_digest, key=key)
    *_, found = reader.decode(rows)
    return _finish(reader, found, expect)


def load(tenant_id: UUID, run_id: UUID, n: int, expect: Expect | None = None) -> Loaded:
    """Frame `n`. Raises: NotFound when it was never written or compacted away, Corrupt."""
    expect = expect or Expect()
    reader = _Reader(tenant_id, run_id, expect.steps_digest)
    for found in reader.path(n):
        if found.head.n == n:
            return _finish(reader, found, expect)
    raise NotFound(f"Frame {n} of {public_id('run', run_id)} is not kept.")


def load_plain(tenant_id: UUID, run_id: UUID, n: int) -> bytes:
    """The stored bytes of frame `n`, without looking into them. Raises: NotFound, Corrupt."""
    for found in _Reader(tenant_id, run_id, None).path(n):
        if found.head.n == n:
            return found.plain
    raise NotFound(f"Frame {n} of {public_id('run', run_id)} is not kept.")


def plains(tenant_id: UUID, run_id: UUID) -> Iterator[tuple[int, bytes]]:
    """Number and stored bytes of all kept frames, oldest first. Raises: Corrupt."""
    for found in _Reader(tenant_id, run_id, None).walk(0):
        yield found.head.n, found.plain


def history(tenant_id: UUID, run_id: UUID, expect: Expect | None = None, *, after: int = 0) -> Iterator[Loaded]:
    """All kept frames with n > `after`, oldest first, a few in memory at a time. Raises: Corrupt."""
    expect = expect or Expect()
    reader = _Reader(tenant_id, run_id, expect.steps_digest)
    for found in reader.walk(after):
        yield _finish(reader, found, expect)


def heads(run_id: UUID, *, after: int = 0, limit: int = 200) -> list[Head]:
    """What is known of the frames without their key, oldest first."""
    return [_head(row) for row in sql.rows(_NEXT, [run_id, after, limit])]


def newest_valid(
    tenant_id: UUID, run_id: UUID, expect: Expect | None = None
) -> tuple[Loaded | None, tuple[Corrupt, ...]]:
    """The newest frame that verifies, and why each newer one does not (newest first). For a person to decide upon.

    Raises: Corrupt when the run's key is gone, because then no frame can be read.
    """
    expect = expect or Expect()
    reader = _Reader(tenant_id, run_id, expect.steps_digest)
    skipped: list[Corrupt] = []
    n = _newest_n(run_id)
    while n:
        found, below = _newest_valid_on_path(reader, n, expect, skipped)
        if found:
            return found, tuple(skipped)
        n = below
    return None, tuple(skipped)


class _Reader:
    """Decodes frames of one run in order."""

    def __init__(
        self, tenant_id: UUID, run_id: UUID, steps_digest: StepsDigest | None, *, key: bytes | None = None
    ) -> None:
        self.tenant_id, self.run_id, self.steps_digest = tenant_id, run_id, steps_digest
        self.key = key or keys.existing(run_id)
        self.codec = Codec(self.key)
        self._frames = frames.frames_of(tenant_id, run_id)

    def path(self, n: int) -> Iterator[Plain]:
        """The frames from the keyframe of `n` up to it."""
        return self.decode(sql.rows(_PATH, [self.run_id, n, self.run_id, n, n]))

    def walk(self, after: int) -> Iterator[Plain]:
        """All frames behind `after`."""
        before = sql.row(_NEXT, [self.run_id, after, 1])
        path = list(self.path(before[0])) if before else []
        previous = path[-1] if path else None
        if previous:
            yield previous
        while previous:
            rows = sql.rows(_NEXT, [self.run_id, previous.head.n, _BATCH_FRAMES])
            latest = None
            for latest in self.decode(rows, previous):
                yield latest
            previous = latest

    def decode(self, rows: list[sql.Row], previous: Plain | None = None) -> Iterator[Plain]:
        """Raises: Corrupt at the first frame that does not verify."""
        for row in rows:
            head, body = _head(row), bytes(row[9])
            try:
                previous = self._decode(head, body, previous)
            except Corrupt as error:
                raise self.corrupt(head.n, error) from error
            yield previous

    def corrupt(self, n: int, error: Corrupt) -> Corrupt:
        """`error`, saying which frame of which run."""
        if "frame" in error.data:
            return error
        name = public_id("run", self.run_id)
        failed = error.data.get("failed", "body")
        return Corrupt(f"Frame {n} of {name} is corrupt ({failed}): {error.message}", run=name, frame=n, failed=failed)

    def _decode(self, head: Head, body: bytes, previous: Plain | None) -> Plain:
        base = None
        if head.base_n is not None:
            if previous is None or previous.head.n != head.base_n:
                raise Corrupt(f"It is a change to frame {head.base_n}, which is missing.", failed="base missing")
            base = previous
        plain = self.codec.decode(
            body,
            previous=base.plain if base else None,
            plain_bytes=head.plain_bytes,
            aad=frames.bound_to(self._frames, head.n, head.chain),
        )
        if not hmac.compare_digest(self.codec.sha(plain), head.sha):
            raise Corrupt("Its content is not what its hash says.", failed="sha")
        self._verify_chain(head, previous)
        weight = base.weight if base else Weight()
        return Plain(head, plain, weight.after(len(body), keyframe=base is None))

    def _verify_chain(self, head: Head, previous: Plain | None) -> None:
        digest = self.steps_digest(head.n) if self.steps_digest else None
        before = self._chain_before(head, previous) if digest is not None else None
        if digest is None or before is None:
            return
        if not hmac.compare_digest(frames.link(before, digest, head.sha), head.chain):
            raise Corrupt("Its chain does not follow from the frame and the steps before it.", failed="chain")

    def _chain_before(self, head: Head, previous: Plain | None) -> bytes | None:
        if head.n == frames.FIRST_N:
            return frames.genesis(self.tenant_id, self.run_id)
        if previous is not None and previous.head.n == head.n - 1:
            return previous.head.chain
        found = sql.row("SELECT chain FROM checkpoints_frame WHERE run_id = %s AND n = %s", [self.run_id, head.n - 1])
        return bytes(found[0]) if found else None


def _newest_valid_on_path(
    reader: _Reader, n: int, expect: Expect, skipped: list[Corrupt]
) -> tuple[Loaded | None, int | None]:
    """The newest good frame between `n` and its keyframe, else the number of the frame before that keyframe."""
    rows = sql.rows(_PATH, [reader.run_id, n, reader.run_id, n, n])
    good: list[Plain] = []
    broken: Corrupt | None = None
    decoding = reader.decode(rows)
    try:
        for found in decoding:
            good.append(found)
    except Corrupt as error:
        broken = error
    skipped += reversed([_because(reader, row[0], broken) for row in islice(rows, len(good), None) if broken])
    while good:
        candidate = good.pop()
        try:
            return _finish(reader, candidate, expect), None
        except Corrupt as error:
            skipped.append(error)
    before = sql.row("SELECT max(n) FROM checkpoints_frame WHERE run_id = %s AND n < %s", [reader.run_id, rows[0][0]])
    return None, before[0] if before else None


def _because(reader: _Reader, n: int, broken: Corrupt) -> Corrupt:
    if broken.data["frame"] == n:
        return broken
    return reader.corrupt(n, Corrupt(f"It builds on frame {broken.data['frame']}, which is corrupt.", failed="base"))


def _finish(reader: _Reader, found: Plain, expect: Expect) -> Loaded:
    """From verified bytes to the document. Raises: Corrupt."""
    try:
        doc = canonical.loads(found.plain)
        if doc.get("schema_version") != found.head.schema_version:
            raise Corrupt(f"Its row says schema version {found.head.schema_version}.", failed="schema version")
        references = frozenset(blobs.references(doc)) if blobs.MARK_BYTES in found.plain else frozenset()
        if blobs.MARK_BYTES in found.plain:
            doc = blobs.attach(doc, fetch=lambda sha: _fetch(reader, sha))
        doc = upcasting.upcast(expect.agent, doc)
        shaped = _shape(expect.shape, doc) if expect.shape else None
    except Corrupt as error:
        raise reader.corrupt(found.head.n, error) from error
    return Loaded(found.head, doc, found.plain, found.weight, references, shaped)


def _fetch(reader: _Reader, sha: bytes) -> bytes:
    return blobs.fetch(reader.codec, reader.key, sha, tenant_id=reader.tenant_id, run_id=reader.run_id)


def _shape(shape: type[BaseModel], doc: dict[str, Any]) -> BaseModel:
    try:
        return shape.model_validate(doc)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "/".join(map(str, first["loc"]))
        raise Corrupt(
            f"{shape.__name__} refuses it in {error.error_count()} places, first /{place}: {first['msg']}.",
            failed="shape",
        ) from None


def _newest_n(run_id: UUID) -> int | None:
    found = sql.row(_NEWEST, [run_id])
    return found[0] if found else None


def _head(row: sql.Row) -> Head:
    n, generation, step_seq, kind, base_n, version, sha, chain, plain_bytes, body, fence, created = row
    return Head(
        n, generation, step_seq, kind, base_n, version, bytes(sha), bytes(chain), plain_bytes, len(body), fence, created
    )
