"""The buffer of a session in Redis: messages that were accepted and are not in Postgres yet. Sealed and bounded.

Keys: as:{tenant}:session:{session}:buffer (hash: entry's name -> header and sealed entry), ...:order (sorted set:
name -> number of arrival), ...:meta (bytes, numbers) and as:{tenant}:buffers (sorted set: session -> when to flush it).
An entry is removed by its name and only after it stands in Postgres, so removing twice, late, or after Redis was wiped
takes nothing else. Redis lost: what waits here is lost, and no more; a worker killed: nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import redis as redis_client
import structlog

from agentstate.core.errors import Corrupt
from agentstate.core.limits import BUFFER_BYTES_MAX, BUFFER_MESSAGES_MAX
from agentstate.db import wake
from agentstate.tenants.scope import current_tenant
from memory import sealing
from memory.services.recording import Entry, client_id_taken

log = structlog.get_logger(__name__)

ORPHAN_TTL_S = 7 * 86_400  # every push refreshes it
HEADER_BYTES = 48  # id of the message, then an HMAC of its role and text
ID_BYTES = 16

# KEYS buffer, order, meta, due; ARGV session, due_ms, entries_max, bytes_max, ttl, (name, value)*
# -> {entries now, value held before or ''...}; {-1, place} when a name is held with another text; {0} when full.
_PUSH = """
local answer, fresh, size = {0}, 0, 0
for i = 6, #ARGV, 2 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if held then
    if string.sub(held, 17, 48) ~= string.sub(ARGV[i + 1], 17, 48) then return {-1, (i - 6) / 2, held} end
    answer[#answer + 1] = held
  else
    answer[#answer + 1] = ''
    fresh = fresh + 1
    size = size + #ARGV[i + 1]
  end
end
local bytes = tonumber(redis.call('HGET', KEYS[3], 'bytes') or '0')
if redis.call('HLEN', KEYS[1]) + fresh > tonumber(ARGV[3]) or bytes + size > tonumber(ARGV[4]) then return {0} end
for i = 6, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[3], 'numbers', 1), ARGV[i])
  end
end
redis.call('HINCRBY', KEYS[3], 'bytes', size)
redis.call('ZADD', KEYS[4], 'NX', ARGV[2], ARGV[1])
for k = 1, 3 do redis.call('EXPIRE', KEYS[k], ARGV[5]) end
answer[1] = redis.call('HLEN', KEYS[1])
return answer
"""

# KEYS buffer, order -> {name, value, name, value, ...} in order of arrival.
_READ = """
local answer = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local value = redis.call('HGET', KEYS[1], name)
  if value then answer[#answer + 1] = name; answer[#answer + 1] = value end
end
return answer
"""

# KEYS buffer, order, meta, due; ARGV session, name* -> entries left. What is left is due at once.
_REMOVE = """
for i = 2, #ARGV do
  local size = redis.call('HSTRLEN', KEYS[1], ARGV[i])
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then redis.call('HINCRBY', KEYS[3], 'bytes', -size) end
  redis.call('ZREM', KEYS[2], ARGV[i])
end
local left = redis.call('HLEN', KEYS[1])
if left == 0 then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  redis.call('ZREM', KEYS[4], ARGV[1])
else
  redis.call('ZADD', KEYS[4], 0, ARGV[1])
end
return left
"""


class BufferUnavailable(Exception):
    """Redis is away or the buffer is full: record the messages at once instead."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The ids under which the entries wait, and how many of the session do."""

    ids: list[UUID]
    waiting: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits of one session: names to remove once recorded, and the entries that open."""

    names: list[bytes]
    entries: list[Entry]


def push(session_id: UUID, entries: Sequence[Entry], key: bytes, *, age_s: float) -> Pushed:
    """All of them wait, or none. One that waits already under its client id keeps its id.

    Raises: Conflict for a client id with another text, BufferUnavailable.
    """
    due_ms = int((time.time() + age_s) * 1000)
    args: list[Any] = [session_id.hex, due_ms, BUFFER_MESSAGES_MAX, BUFFER_BYTES_MAX, ORPHAN_TTL_S]
    once = _once(entries)
    for entry in once:
        args += [_name(entry), _packed(entry, key)]
    try:
        answer: list[Any] = wake.redis().eval(_PUSH, 4, *_keys(current_tenant(), session_id), *args)
    except (redis_client.RedisError, OSError) as error:
        log.warning("memory.buffer_failed", session=str(session_id), error=type(error).__name__)
        raise BufferUnavailable from error
    if answer[0] == 0:
        raise BufferUnavailable
    if answer[0] < 0:
        raise client_id_taken(once[int(answer[1])].client_id, UUID(bytes=bytes(answer[2])[:ID_BYTES]))
    ids = {_name(entry): _id_of(entry, held) for entry, held in zip(once, answer[1:], strict=True)}
    return Pushed([ids[_name(entry)] for entry in entries], int(answer[0]))


def read(session_id: UUID, key: bytes) -> Waiting:
    """What waits, in order of arrival. An entry that does not open is named and left out: it can never be recorded.

    Redis away: nothing waits that we could see.
    """
    try:
        found: list[bytes] = wake.redis().eval(_READ, 2, *_keys(current_tenant(), session_id)[:2])
    except (redis_client.RedisError, OSError) as error:
        log.warning("memory.buffer_unread", session=str(session_id), error=type(error).__name__)
        return Waiting([], [])
    opened = [_opened(session_id, value, key) for value in found[1::2]]
    return Waiting(found[0::2], [entry for entry in opened if entry is not None])


def waits(session_id: UUID) -> bool:
    """Whether anything does; False when Redis is away."""
    try:
        return bool(wake.redis().exists(_keys(current_tenant(), session_id)[0]))
    except (redis_client.RedisError, OSError):
        return False


def remove(tenant_id: UUID, session_id: UUID, names: Sequence[bytes]) -> None:
    """They stand in Postgres. A Redis that is away keeps them: the next flush finds them recorded."""
    try:
        wake.redis().eval(_REMOVE, 4, *_keys(tenant_id, session_id), session_id.hex, *names)
    except (redis_client.RedisError, OSError) as error:
        log.warning("memory.buffer_kept", session=str(session_id), error=type(error).__name__)


def drop(tenant_id: UUID, session_id: UUID) -> None:
    """Its session is gone or being erased. Idempotent."""
    *own, due_key = _keys(tenant_id, session_id)
    try:
        wake.redis().delete(*own)
        wake.redis().zrem(due_key, session_id.hex)
    except (redis_client.RedisError, OSError) as error:  # it expires by itself
        log.warning("memory.buffer_kept", session=str(session_id), error=type(error).__name__)


def postpone(tenant_id: UUID, session_id: UUID, *, s: float) -> None:
    """It could not be flushed: others come first."""
    try:
        wake.redis().zadd(_due_key(tenant_id), {session_id.hex: int((time.time() + s) * 1000)}, xx=True)
    except (redis_client.RedisError, OSError) as error:
        log.warning("memory.buffer_kept", session=str(session_id), error=type(error).__name__)


def due(tenant_ids: Sequence[UUID], *, limit: int) -> dict[UUID, list[UUID]]:
    """Sessions to flush now, of each of these tenants, the oldest first. One round trip; none while Redis is away."""
    now_ms = int(time.time() * 1000)
    pipeline = wake.redis().pipeline(transaction=False)
    for tenant_id in tenant_ids:
        pipeline.zrangebyscore(_due_key(tenant_id), "-inf", now_ms, start=0, num=limit)
    try:
        found = pipeline.execute()
    except (redis_client.RedisError, OSError) as error:
        log.warning("memory.buffers_unread", error=type(error).__name__)
        return {}
    return {
        tenant_id: [UUID(hex=name.decode()) for name in names]
        for tenant_id, names in zip(tenant_ids, found, strict=True)
        if names
    }


def _keys(tenant_id: UUID, session_id: UUID) -> tuple[str, str, str, str]:
    base = f"as:{tenant_id}:session:{session_id}:buffer"
    return base, f"{base}:order", f"{base}:meta", _due_key(tenant_id)


def _due_key(tenant_id: UUID) -> str:
    return f"as:{tenant_id}:buffers"


def _once(entries: Iterable[Entry]) -> list[Entry]:
    """A client id that comes twice in one call waits once; the caller has compared the texts."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(_name(entry), entry)
    return list(first.values())


def _name(entry: Entry) -> str:
    if entry.client_id is None:
        return entry.id.hex
    return sealing.digest("buffer", entry.client_id).hex()


def _id_of(entry: Entry, held: bytes) -> UUID:
    return UUID(bytes=bytes(held)[:ID_BYTES]) if held else entry.id


def _packed(entry: Entry, key: bytes) -> bytes:
    body = {
        "role": entry.role,
        "text": entry.text,
        "author": entry.author,
        "importance": entry.importance,
        "outcome": entry.outcome,
        "origin": entry.origin,
        "sent_at": entry.sent_at.isoformat(),
        "accepted_at": entry.accepted_at.isoformat(),
        "client_id": entry.client_id,
        "run_id": str(entry.run_id) if entry.run_id else None,
        "step_seq": entry.step_seq,
    }
    header = entry.id.bytes + sealing.digest("buffered", entry.role, entry.text)
    return header + sealing.seal_json(key, "memory_buffer", entry.id, body)


def _opened(session_id: UUID, value: bytes, key: bytes) -> Entry | None:
    message_id = UUID(bytes=value[:ID_BYTES])
    try:
        body: dict[str, Any] = sealing.open_json(key, "memory_buffer", message_id, value[HEADER_BYTES:])
    except Corrupt:
        log.error("memory.buffer_corrupt", session=str(session_id), message=str(message_id))
        return None
    for name in ("sent_at", "accepted_at"):
        body[name] = datetime.fromisoformat(body[name])
    body["run_id"] = UUID(body["run_id"]) if body["run_id"] else None
    return Entry(id=message_id, **body)
