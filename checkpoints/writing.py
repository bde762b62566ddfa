"""Writing frames: a FrameWriter turns an agent's state into the next row of its run; the engine's turn inserts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.db import connection

from agentstate.core import canonical
from agentstate.core.errors import TooLarge
from agentstate.core.limits import KIB, MIB, PAYLOAD_BYTES_MAX, STATE_BYTES_MAX
from agentstate.db import sql
from checkpoints import blobs, frames
from checkpoints.blobs import BlobRow
from checkpoints.frames import Codec, Weight

if TYPE_CHECKING:
    from checkpoints.reading import Loaded

# tenant_id comes from the scope, created from the clock of the database.
COLUMNS = (
    *("run_id", "n", "generation", "step_seq", "kind", "base_n", "schema_version"),
    *("sha", "chain", "plain_bytes", "body", "fence"),
)
INSERT = f"INSERT INTO checkpoints_frame ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"


class FrameRow(NamedTuple):  # a frozen dataclass of so many fields takes 4 us longer to make
    """The columns of one row of checkpoints_frame, the blobs it needs, and what the writer goes on from."""

    tenant_id: UUID
    run_id: UUID
    n: int
    generation: int
    step_seq: int | None
    kind: str
    base_n: int | None
    schema_version: int
    sha: bytes
    chain: bytes
    plain_bytes: int
    body: bytes
    fence: int
    blobs: tuple[BlobRow, ...] = ()
    plain: bytes = b""
    references: frozenset[bytes] = frozenset()

    def __repr__(self) -> str:
        return f"<frame {self.n} of run {self.run_id}, {self.kind}, {len(self.body)} bytes>"  # nothing unsealed in logs


class FrameWriter:
    """Prepares the frames of one run for whoever holds its lease. Not for two threads at once."""

    __slots__ = (
        "_chain",
        "_codec",
        "_frames",
        "_key",
        "_n",
        "_plain",
        "_references",
        "_run_id",
        "_tenant_id",
        "_weight",
        "version",
    )

    def __init__(
        self, tenant_id: UUID, run_id: UUID, key: bytes, newest: Loaded | None = None, *, schema_version: int = 1
    ) -> None:
        self._tenant_id, self._run_id, self._key, self._codec = tenant_id, run_id, key, Codec(key)
        self._frames = frames.frames_of(tenant_id, run_id)
        self.version = schema_version
        self._n = newest.n if newest else frames.FIRST_N - 1
        self._plain = newest.plain if newest else b""
        self._chain = newest.chain if newest else frames.genesis(tenant_id, run_id)
        self._weight = newest.weight if newest else Weight()
        self._references = newest.references if newest else frozenset()

    @property
    def n(self) -> int:
        """Number of the newest committed frame; 0 before the first."""
        return self._n

    def prepare(
        self,
        doc: dict[str, Any],
        *,
        boundary: bool = False,
        steps_digest: bytes = b"",
        kind: str = "step",
        generation: int = 0,
        step_seq: int | None = None,
        fence: int = 0,
    ) -> FrameRow:
        """The next frame of this run. No side effects: call it again, or drop it, as you like; then advance().

        `steps_digest`: 32 bytes over the step rows of the same turn, or nothing. `boundary`: always a keyframe.
        Raises: Invalid (NUL, NaN, … with the place), TooLarge naming the largest keys.
        """
        plain, references, new_blobs = self._canonical(doc)
        n = self._n + 1
        sha = self._codec.sha(plain)
        chain = frames.link(self._chain, steps_digest, sha)
        previous = None if boundary or self._weight.is_due() else self._plain
        body = self._codec.encode(plain, previous=previous, aad=frames.bound_to(self._frames, n, chain))
        return FrameRow(
            tenant_id=self._tenant_id,
            run_id=self._run_id,
            n=n,
            generation=generation,
            step_seq=step_seq,
            kind=kind,
            base_n=None if previous is None else self._n,
            schema_version=doc.get("schema_version", self.version),
            sha=sha,
            chain=chain,
            plain_bytes=len(plain),
            body=body,
            fence=fence,
            blobs=new_blobs,
            plain=plain,
            references=references,
        )

    def advance(self, frame: FrameRow) -> None:
        """`frame` is committed: the next one builds on it."""
        assert frame.run_id == self._run_id and frame.n == self._n + 1, "frames are committed one after the other"
        self._n, self._plain, self._chain = frame.n, frame.plain, frame.chain
        self._weight = self._weight.after(len(frame.body), keyframe=frame.base_n is None)
        self._references = frame.references

    def _canonical(self, doc: dict[str, Any]) -> tuple[bytes, frozenset[bytes], tuple[BlobRow, ...]]:
        if "schema_version" not in doc:
            doc = {**doc, "schema_version": self.version}
        plain = canonical.dumps(doc)
        if not blobs.may_detach(doc, plain):
            _check_size(doc, plain, STATE_BYTES_MAX)
            return plain, frozenset(), ()
        _check_size(doc, plain, PAYLOAD_BYTES_MAX)
        lean, texts = blobs.detach(doc, sha=self._codec.sha)
        plain = canonical.dumps(lean)
        _check_size(lean, plain, STATE_BYTES_MAX)
        # Compaction keeps what the newest frame refers to, and nothing else for certain: the rest is sent again.
        new = [self._seal(sha, text) for sha, text in texts.items() if sha not in self._references]
        return plain, frozenset(texts), tuple(new)

    def _seal(self, sha: bytes, text: bytes) -> BlobRow:
        return blobs.seal(self._key, text, sha=sha, tenant_id=self._tenant_id, run_id=self._run_id)


def insert(frame: FrameRow) -> None:
    """Insert a prepared frame and its blobs, for paths other than the turn. Asserts that it is inside a transaction.

    Raises: django.db.IntegrityError when the run has a frame of that number.
    """
    assert connection.in_atomic_block, "a frame commits together with what it describes"
    for blob in frame.blobs:
        blobs.put(frame.run_id, blob)
    sql.execute(INSERT, columns(frame))


def columns(frame: FrameRow) -> list[Any]:
    """The arguments of INSERT, in its order."""
    return [getattr(frame, name) for name in COLUMNS]


def _check_size(doc: dict[str, Any], plain: bytes, cap: int) -> None:
    if len(plain) <= cap:
        return
    largest = sorted(_sizes(doc), key=lambda found: -found[1])[:5]
    named = ", ".join(f"{place} ({_readable(size)})" for place, size in largest)
    raise TooLarge(
        f"The state is {_readable(len(plain))}; at most {_readable(cap)} are kept in a checkpoint. Largest: {named}. "
        "Keep large things as artifacts and refer to them.",
        field=largest[0][0],
        largest=[{"key": place, "bytes": size} for place, size in largest],
    )


def _sizes(doc: dict[str, Any], where: str = "", depth: int = 2) -> list[tuple[str, int]]:
    """(JSON pointer, bytes) of the keys down to `depth`; a key with keys below it is named by those."""
    found = []
    for key, value in doc.items():
        place = f"{where}/{key.replace('~', '~0').replace('/', '~1')}"
        if isinstance(value, dict) and value and depth > 1:
            found += _sizes(value, place, depth - 1)
        else:
            found.append((place, len(canonical.dumps(value))))
    return found


def _readable(size: int) -> str:
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / KIB:.1f} KiB"
