"""The pure half of checkpoints: canonical bytes to sealed frame bodies and back. No database, no clock.

A body is zstd (with the previous frame's plaintext as dictionary, unless it is a keyframe) inside AES-256-GCM, bound
to tenant, table, run, frame number and chain head. A frame's plaintext is exactly what its sha says, or Corrupt.
"""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import zstandard
from zstandard import ZstdCompressionDict, ZstdCompressionParameters, ZstdCompressor, ZstdDecompressor

from agentstate.core.errors import Corrupt
from agentstate.core.limits import KEYFRAME_DELTAS_MAX, KEYFRAME_DELTAS_MIN
from agentstate.crypto import sealing
from agentstate.crypto.hashing import Hasher

TABLE = "checkpoints_frame"
FIRST_N = 1  # frames are numbered from 1 per run, without holes when written
SHA_BYTES = 32
LEVEL_FULL = 3  # of keyframes. Never level 1: it stores 12 KB for a 2 KB change of 100 KB
WINDOW_LOG_MAX = 24
_local = threading.local()


class Weight(NamedTuple):
    """How far a frame stands from its keyframe: what has to be read to restore it."""

    keyframe_bytes: int = 0
    delta_bytes: int = 0
    deltas: int = 0

    def is_due(self) -> bool:
        """The next frame should be a keyframe: the deltas outweigh the last one, or there are very many."""
        if self.deltas < KEYFRAME_DELTAS_MIN:
            return self.keyframe_bytes == 0
        return self.deltas >= KEYFRAME_DELTAS_MAX or self.delta_bytes > self.keyframe_bytes

    def after(self, body_bytes: int, *, keyframe: bool) -> Weight:
        if keyframe:
            return Weight(keyframe_bytes=body_bytes)
        return Weight(self.keyframe_bytes, self.delta_bytes + body_bytes, self.deltas + 1)


class Codec:
    """Encodes and decodes the frames of one run. Safe to share between threads: it holds keys only."""

    __slots__ = ("_key", "sha")

    def __init__(self, key: bytes) -> None:
        self._key = key
        # A bare hash of a small state could be guessed after the run's key is gone.
        self.sha = Hasher(Hasher(key)(b"agentstate checkpoints sha"))

    def encode(self, plain: bytes, *, previous: bytes | None, aad: bytes) -> bytes:
        """The sealed body. `previous` None makes a keyframe; for `aad` see bound_to."""
        return sealing.seal(self._key, _pack(plain, previous), aad=aad, compress=False)

    def decode(self, body: bytes, *, previous: bytes | None, plain_bytes: int, aad: bytes) -> bytes:
        """The plaintext, `plain_bytes` long and never longer. Raises: Corrupt."""
        return _unpack(sealing.unseal(self._key, body, aad=aad), previous, plain_bytes)


def frames_of(tenant_id: UUID, run_id: UUID) -> bytes:
    """Where the frames of a run are, for bound_to: made once by whoever has many of them."""
    return sealing.aad(tenant_id, TABLE, f"{run_id}|")


def bound_to(frames: bytes, n: int, chain: bytes) -> bytes:
    """The AAD: a body moved to another tenant, run or number, or beside another chain head, does not open."""
    return b"%b%d|%b" % (frames, n, chain.hex().encode())


def genesis(tenant_id: UUID, run_id: UUID) -> bytes:
    """The chain head before a run's first frame."""
    return hashlib.sha256(b"agentstate frames" + tenant_id.bytes + run_id.bytes).digest()


def link(previous: bytes, steps_digest: bytes, sha: bytes) -> bytes:
    """The chain head of a frame: covers every frame and every step before it."""
    assert len(previous) == len(sha) == SHA_BYTES and len(steps_digest) in (0, SHA_BYTES)
    return hashlib.sha256(previous + steps_digest + sha).digest()


def _pack(plain: bytes, previous: bytes | None) -> bytes:
    if previous is None:
        return _full_compressor().compress(plain)
    if plain == previous:
        return b""  # nothing changed: steps that leave the state alone are the most common ones
    dictionary = ZstdCompressionDict(previous, zstandard.DICT_TYPE_RAWCONTENT)
    parameters = _parameters((len(previous) + len(plain)).bit_length())
    return ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(plain)


def _unpack(packed: bytes, previous: bytes | None, plain_bytes: int) -> bytes:
    unchanged = previous if not packed else None
    plain = _decompress(packed, previous, plain_bytes) if unchanged is None else unchanged
    if len(plain) != plain_bytes:
        raise Corrupt(f"It is {len(plain)} bytes long where its row says {plain_bytes}.", failed="length")
    return plain


def _decompress(packed: bytes, previous: bytes | None, plain_bytes: int) -> bytes:
    try:
        # The size in the header decides what zstandard allocates, so it is compared before anything is unpacked.
        if zstandard.frame_content_size(packed) != plain_bytes:
            raise Corrupt(f"It does not unpack to the {plain_bytes} bytes its row says.", failed="length")
        dictionary = ZstdCompressionDict(previous, zstandard.DICT_TYPE_RAWCONTENT) if previous is not None else None
        unpacker = ZstdDecompressor(dict_data=dictionary, max_window_size=1 << WINDOW_LOG_MAX)
        plain: bytes = unpacker.decompress(packed, max_output_size=plain_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"It opens but does not unpack: {error}.", failed="zstd") from error
    return plain


def _full_compressor() -> ZstdCompressor:
    """Of this thread: making one costs as much as compressing 1 KB, and two threads must not share it."""
    if not hasattr(_local, "full_compressor"):
        _local.full_compressor = ZstdCompressor(level=LEVEL_FULL)
    compressor: ZstdCompressor = _local.full_compressor
    return compressor


@lru_cache(maxsize=64)
def _parameters(size_log: int) -> ZstdCompressionParameters:
    """Parameters for dictionary and plaintext of together 2**size_log bytes.

    Left to itself zstd shrinks the tables above 256 KB until a 2 KB change of 2 MB costs 227 KB. Window as large as
    both; hash tables an eighth of it: measured on appends, edits all over and insertions at the front from 2 KB to
    1 MB, a delta is at most 8 % larger than with full tables (mostly 1 %) and takes a half to a fifth of the time.
    """
    tables_log = min(max(10, size_log - 3), 22)
    return ZstdCompressionParameters(
        window_log=min(max(10, size_log), WINDOW_LOG_MAX),
        hash_log=tables_log,
        chain_log=tables_log,
        search_log=1,
        min_match=5,
        target_length=0,
        strategy=zstandard.STRATEGY_DFAST,
        write_content_size=True,
    )
