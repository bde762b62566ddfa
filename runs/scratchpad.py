"""Tier 1: the live window of one run, in Redis. Sealed, bounded, fenced; never the only copy.

Keys: as:{tenant}:run:{run}:pad (hash: entry number -> sealed entry) and ...:meta (fence, first, last, flushed, bytes).
An entry is visible here at once and becomes durable with the next turn, which then moves the flushed mark. Trimming
never passes that mark. Redis wiped: the window of the last checkpoint is written back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import redis as redis_client
import structlog

from agentstate.core import canonical, clock, tokens
from agentstate.core.errors import TooLarge
from agentstate.core.failpoints import hit, register
from agentstate.core.limits import ENTRY_BYTES_MAX, SCRATCHPAD_BYTES_MAX, SCRATCHPAD_ENTRIES_MAX
from agentstate.db import wake
from agentstate.sdk.store import Entry
from runs import sealing

if TYPE_CHECKING:
    from runs.engine.session import RunSession

log = structlog.get_logger(__name__)
register("scratchpad.drop", "the run's end / its live window gone")

ORPHAN_TTL_S = 7 * 86_400  # a live run refreshes it with every write

# KEYS pad, meta; ARGV fence, ttl, bytes_max, entries_max, flushed, (n, sealed)*  ->  1, or 0 when fenced out.
# An entry number that is there already is left alone, so a repeated append changes nothing.
_APPEND = """
local fence = tonumber(ARGV[1])
local known = tonumber(redis.call('HGET', KEYS[2], 'fence') or '0')
if fence < known then return 0 end
redis.call('HSET', KEYS[2], 'fence', fence)
local flushed = tonumber(redis.call('HGET', KEYS[2], 'flushed') or '0')
if tonumber(ARGV[5]) > flushed then flushed = tonumber(ARGV[5]); redis.call('HSET', KEYS[2], 'flushed', flushed) end
for i = 6, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('HINCRBY', KEYS[2], 'bytes', #ARGV[i + 1])
    redis.call('HSETNX', KEYS[2], 'first', ARGV[i])
    if tonumber(ARGV[i]) > tonumber(redis.call('HGET', KEYS[2], 'last') or '0') then
      redis.call('HSET', KEYS[2], 'last', ARGV[i])
    end
  end
end
local first = tonumber(redis.call('HGET', KEYS[2], 'first') or '1')
local bytes = tonumber(redis.call('HGET', KEYS[2], 'bytes') or '0')
while first <= flushed and (bytes > tonumber(ARGV[3]) or redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4])) do
  local size = redis.call('HSTRLEN', KEYS[1], first)
  redis.call('HDEL', KEYS[1], first)
  bytes = bytes - size
  first = first + 1
end
redis.call('HSET', KEYS[2], 'first', first, 'bytes', bytes)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""


def entry_json(entry: Entry) -> dict[str, Any]:
    """The stored form. Raises: TooLarge over 16 KB."""
    size = len(entry.text.encode("utf-8", "replace"))
    if size > ENTRY_BYTES_MAX:
        raise TooLarge(
            f"A scratchpad entry has {size:,} bytes; at most {ENTRY_BYTES_MAX:,} are kept. Note the gist, and keep the "
            "whole as the result of a step.",
            field="/entries/text",
        )
    return {
        "n": entry.n,
        "kind": entry.kind,
        "text": entry.text,
        "at": (entry.at or clock.now()).isoformat(),
        "important": entry.important,
        "step_seq": entry.step_seq,
        "tokens": entry.tokens or tokens.count(entry.text),
    }


def append(session: RunSession, entries: Sequence[Entry], *, flushed: int = 0) -> None:
    """Show entries at once. A Redis that is away costs the live view only: the next turn makes them durable anyway."""
    args: list[Any] = [session.fence, ORPHAN_TTL_S, SCRATCHPAD_BYTES_MAX, SCRATCHPAD_ENTRIES_MAX, flushed]
    for entry in entries:
        plain = canonical.dumps(entry_json(entry))
        args += [entry.n, sealing.seal_entry(session.key, session.tenant_id, session.run_id, entry.n, plain)]
    _evaluate(session, args)


def flushed(session: RunSession, entries: Sequence[Entry]) -> None:
    """The turn that carried these has committed: the trim may pass them. Idempotent."""
    append(session, entries, flushed=max(entry.n for entry in entries))


def rebuild(session: RunSession) -> None:
    """After a takeover: the window of the last checkpoint stands in Redis again, under the new fence. Idempotent."""
    args: list[Any] = [session.fence, ORPHAN_TTL_S, SCRATCHPAD_BYTES_MAX, SCRATCHPAD_ENTRIES_MAX, session.entry_seq]
    for item in session.window:
        plain = canonical.dumps(item)
        args += [item["n"], sealing.seal_entry(session.key, session.tenant_id, session.run_id, item["n"], plain)]
    _evaluate(session, args)


def unflushed(session: RunSession) -> list[dict[str, Any]]:
    """Entries that a dead worker had shown but not yet made durable, in order; those that do not open are left out."""
    pad, _ = _keys(session.tenant_id, session.run_id)
    try:
        found: dict[bytes, bytes] = wake.redis().hgetall(pad)  # type: ignore[assignment]
    except (redis_client.RedisError, OSError):
        return []
    late = sorted(int(n) for n in found if int(n) > session.entry_seq)
    return [sealing.open_entry(session.key, session.tenant_id, session.run_id, n, found[str(n).encode()]) for n in late]


def read(tenant_id: UUID, run_id: UUID, key: bytes) -> list[dict[str, Any]] | None:
    """The live window, oldest first; None when Redis has nothing (never written, wiped, or away)."""
    pad, _ = _keys(tenant_id, run_id)
    try:
        found: dict[bytes, bytes] = wake.redis().hgetall(pad)  # type: ignore[assignment]
    except (redis_client.RedisError, OSError):
        return None
    if not found:
        return None
    return [sealing.open_entry(key, tenant_id, run_id, n, found[str(n).encode()]) for n in sorted(map(int, found))]


def drop(tenant_id: UUID, run_id: UUID) -> None:
    """The run is over and its entries stand in the trace."""
    hit("scratchpad.drop")
    try:
        wake.redis().delete(*_keys(tenant_id, run_id))
    except (redis_client.RedisError, OSError) as error:  # they expire by themselves
        log.warning("scratchpad.drop_failed", run_id=str(run_id), error=type(error).__name__)


def _evaluate(session: RunSession, args: list[Any]) -> None:
    try:
        done = wake.redis().eval(_APPEND, 2, *_keys(session.tenant_id, session.run_id), *args)
    except (redis_client.RedisError, OSError) as error:
        log.warning("scratchpad.append_failed", run_id=str(session.run_id), error=type(error).__name__)
        return
    if done == 0:
        log.warning("scratchpad.fenced", run_id=str(session.run_id), fence=session.fence)


def _keys(tenant_id: UUID, run_id: UUID) -> tuple[str, str]:
    base = f"as:{tenant_id}:run:{run_id}"
    return f"{base}:pad", f"{base}:meta"
