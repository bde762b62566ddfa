"""Single texts over 64 KiB leave the state and are stored once, by their hash, as sealed blobs of the run.

In the state stands {"$blob": "<64 hex>", "bytes": n}. A value of the agent that looks like that is wrapped, so that
attach(detach(x)) is x for every x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agentstate.core import canonical
from agentstate.core.errors import Corrupt
from agentstate.core.limits import VALUE_BYTES_INLINE
from agentstate.crypto import sealing
from agentstate.db import sql
from checkpoints.frames import Codec

TABLE = "checkpoints_blob"
MARK = "$blob"
MARK_BYTES = b'"$blob"'
_DOLLAR = ord("$")
_CHARS_SMALL = VALUE_BYTES_INLINE // 4  # so few characters are never too many bytes
# Waits for a compaction of this run (milliseconds) so that it cannot drop the blob we are about to refer to.
PUT = "SELECT checkpoints_put_blob(%s, %s, %s, %s)"


@dataclass(frozen=True, slots=True)
class BlobRow:
    """A row to insert."""

    sha: bytes
    text_bytes: int  # before sealing
    body: bytes


def may_detach(value: Any, plain: bytes) -> bool:
    """Whether detach would change `value`, whose canonical bytes are `plain`; spares nearly all states its copying."""
    marked = _DOLLAR in plain and MARK_BYTES in plain  # finding one byte is 25 times faster than finding seven
    return marked or (len(plain) > VALUE_BYTES_INLINE and _has_large_text(value))


def detach(value: Any, *, sha: Callable[[bytes], bytes]) -> tuple[Any, dict[bytes, bytes]]:
    """`value` with references in place of its large texts, and those texts by their hash. Never changes `value`."""
    found: dict[bytes, bytes] = {}
    return _detach(value, sha, found), found


def attach(value: Any, *, fetch: Callable[[bytes], bytes]) -> Any:
    """The opposite of detach. `fetch` gives a text by its hash."""
    if isinstance(value, list):
        return [attach(child, fetch=fetch) for child in value]
    if not isinstance(value, dict):
        return value
    if MARK not in value:
        return {key: attach(child, fetch=fetch) for key, child in value.items()}
    if value[MARK]:
        return fetch(bytes.fromhex(value[MARK])).decode()
    return {key: attach(child, fetch=fetch) for key, child in value["is"].items()}


def references(value: Any) -> Iterator[bytes]:
    """Hashes of the blobs that a stored state refers to."""
    if isinstance(value, list):
        for child in value:
            yield from references(child)
    elif isinstance(value, dict):
        if MARK not in value:
            children = value.values()
        elif value[MARK]:
            yield bytes.fromhex(value[MARK])
            return
        else:
            children = value["is"].values()
        for child in children:
            yield from references(child)


def references_in(plain: bytes) -> Iterator[bytes]:
    """The same from a frame's stored bytes."""
    return references(canonical.loads(plain))


def seal(key: bytes, text: bytes, *, sha: bytes, tenant_id: UUID, run_id: UUID) -> BlobRow:
    return BlobRow(sha, len(text), sealing.seal(key, text, aad=_aad(tenant_id, run_id, sha)))


def fetch(codec: Codec, key: bytes, sha: bytes, *, tenant_id: UUID, run_id: UUID) -> bytes:
    """Read one blob. Raises: Corrupt when it is missing, does not open, or is not what its hash says."""
    found = sql.row("SELECT body FROM checkpoints_blob WHERE run_id = %s AND sha = %s", [run_id, sha])
    if not found:
        raise Corrupt(f"It refers to the blob {sha.hex()[:12]}…, which is not there.", failed="blob")
    try:
        text = sealing.unseal(key, found[0], aad=_aad(tenant_id, run_id, sha))
    except Corrupt as error:
        raise Corrupt(f"Its blob {sha.hex()[:12]}… does not open.", failed="blob") from error
    if codec.sha(text) != sha:
        raise Corrupt(f"Its blob {sha.hex()[:12]}… is not what its hash says.", failed="blob")
    return text


def put(run_id: UUID, blob: BlobRow) -> None:
    """Insert, or make it young again: safe from compaction for an hour, within which its frame must be committed.

    Locks: shared, against the run's compaction, until the transaction ends.
    """
    sql.row(PUT, [run_id, blob.sha, blob.text_bytes, blob.body])


def _aad(tenant_id: UUID, run_id: UUID, sha: bytes) -> bytes:
    return sealing.aad(tenant_id, TABLE, f"{run_id}|{sha.hex()}")


def _has_large_text(value: Any) -> bool:
    containers = [value]
    while containers:
        parent = containers.pop()
        for child in parent.values() if isinstance(parent, dict) else parent:
            if isinstance(child, str):
                if len(child) > _CHARS_SMALL:
                    return True
            elif isinstance(child, (dict, list, tuple)):
                containers.append(child)
    return False


def _detach(value: Any, sha: Callable[[bytes], bytes], found: dict[bytes, bytes]) -> Any:
    if isinstance(value, str):
        return _detach_text(value, sha, found) if len(value) > _CHARS_SMALL else value
    if isinstance(value, dict):
        inner = {key: _detach(child, sha, found) for key, child in value.items()}
        return {MARK: "", "is": inner} if MARK in value else inner
    if isinstance(value, (list, tuple)):
        return [_detach(child, sha, found) for child in value]
    return value


def _detach_text(value: str, sha: Callable[[bytes], bytes], found: dict[bytes, bytes]) -> Any:
    text = value.encode()
    if len(text) <= VALUE_BYTES_INLINE:
        return value
    digest = sha(text)
    found[digest] = text
    return {MARK: digest.hex(), "bytes": len(text)}
