"""Tier 1: the live window of one run, in Redis. Sealed, bounded, fenced; never the only copy.

Keys: as:{tenant}:run:{run}:pad (hash: entry number -> sealed entry) and ...:meta (fence, first, last, flushed, bytes).
An entry is visible here at once and becomes durable with the next turn, which then moves the flushed mark. Trimming
never passes that mark. A summary shows only when the turn that records it has committed; what it replaces leaves with
it. Redis wiped: the window of the last checkpoint is written back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import redis as redis_client
import structlog

from agentstate.core import canonical, clock, tokens
from agentstate.core.errors import Invalid, TooLarge
from agentstate.core.failpoints import hit, register
from agentstate.core.limits import (
    ENTRY_BYTES_MAX,
    IDENTITY_CHARS_MAX,
    SCRATCHPAD_BYTES_MAX,
    SCRATCHPAD_ENTRIES_MAX,
)
from agentstate.db import wake
from agentstate.sdk import window
from agentstate.sdk.store import Entry
from runs import sealing

if TYPE_CHECKING:
    from runs.engine.session import RunSession

log = structlog.get_logger(__name__)
register("scratchpad.rebuild", "Redis found without the window / the window of the checkpoint written back")
register("scratchpad.drop", "the run's end / its live window gone")

ORPHAN_TTL_S = 7 * 86_400  # a live run refreshes it with every write

# KEYS pad, meta; ARGV fence, ttl, bytes_max, entries_max, flushed, anew, the channel to tell or '', number of dropped,
# dropped n*, (n, sealed)*  ->  0 when fenced out, 2 when nothing was here (wiped), else 1.
# An entry number that is there already is left alone, so a repeated append changes nothing; a masked one is dropped and
# put again. anew: what was here before is not believed.
_APPEND = """
local fence = tonumber(ARGV[1])
local known = redis.call('HGET', KEYS[2], 'fence')
if fence < tonumber(known or '0') then return 0 end
if ARGV[6] == '1' then redis.call('DEL', KEYS[1], KEYS[2]) end
redis.call('HSET', KEYS[2], 'fence', fence)
local flushed = tonumber(redis.call('HGET', KEYS[2], 'flushed') or '0')
if tonumber(ARGV[5]) > flushed then flushed = tonumber(ARGV[5]); redis.call('HSET', KEYS[2], 'flushed', flushed) end
local bytes = tonumber(redis.call('HGET', KEYS[2], 'bytes') or '0')
local first = tonumber(redis.call('HGET', KEYS[2], 'first') or ARGV[9 + ARGV[8]] or '1')
local last = tonumber(redis.call('HGET', KEYS[2], 'last') or '0')
for i = 9, 8 + ARGV[8] do
  bytes = bytes - redis.call('HSTRLEN', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[1], ARGV[i])
end
for i = 9 + ARGV[8], #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    bytes = bytes + #ARGV[i + 1]
    first = math.min(first, tonumber(ARGV[i]))
    last = math.max(last, tonumber(ARGV[i]))
  end
end
while first <= flushed and (bytes > tonumber(ARGV[3]) or redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4])) do
  bytes = bytes - redis.call('HSTRLEN', KEYS[1], first)
  redis.call('HDEL', KEYS[1], first)
  first = first + 1
end
redis.call('HSET', KEYS[2], 'first', first, 'last', last, 'bytes', bytes)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
if ARGV[7] ~= '' then redis.call('PUBLISH', ARGV[7], '') end
return known and 1 or 2
"""
# Entries that no turn has made durable stand here beside the window; what is in force must not make room for them.
_ROOM = 2
_FENCED, _WIPED, _AWAY = 0, 2, 3
_LAST_FENCE = 2**53  # no claim has it: a Lua number holds no larger integer
_OPTIONAL = ("identity", "place", "replaces", "masks", "masked")


def entry_json(entry: Entry) -> dict[str, Any]:
    """The stored form. Raises: TooLarge over 16 KB, Invalid."""
    size = len(entry.text.encode("utf-8", "replace"))
    if size > ENTRY_BYTES_MAX:
        raise TooLarge(
            f"A scratchpad entry has {size:,} bytes; at most {ENTRY_BYTES_MAX:,} are kept. Note the gist, and keep the "
            "whole as the result of a step.",
            field="/entries/text",
        )
    named = [*entry.replaces, *entry.masks, *([entry.place] if entry.place else [])]
    if any(not 0 < n < entry.n for n in named):
        raise Invalid(f"Entry {entry.n} can replace, mask or stand before earlier entries only.", field="/entries")
    if len(entry.replaces) + len(entry.masks) > SCRATCHPAD_ENTRIES_MAX or len(entry.identity) > IDENTITY_CHARS_MAX:
        raise Invalid(f"Entry {entry.n} names more than a window can hold.", field="/entries")
    plain: dict[str, Any] = {
        "n": entry.n,
        "kind": entry.kind,
        "text": entry.text,
        "at": (entry.at or clock.now()).isoformat(),
        "important": entry.important,
        "step_seq": entry.step_seq,
        "tokens": entry.tokens or tokens.count(entry.text),
    }
    for name in _OPTIONAL:
        if value := getattr(entry, name):
            plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


def entries_of(items: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """The stored forms as entries."""
    return [Entry(**{**item, "at": datetime.fromisoformat(item["at"])}) for item in items]


def folded(items: list[dict[str, Any]], fresh: Sequence[Entry]) -> list[dict[str, Any]]:
    """The window after these entries, in its stored form."""
    if not any(entry.replaces or entry.masks for entry in fresh):
        more = [*items, *map(entry_json, fresh)]
        characters = sum(len(item["text"]) for item in more)
        if len(more) <= SCRATCHPAD_ENTRIES_MAX and characters * 4 <= SCRATCHPAD_BYTES_MAX:  # the common case
            return more
    return [entry_json(entry) for entry in window.folded(entries_of(items), fresh)]


def append(session: RunSession, entries: Sequence[Entry]) -> None:
    """Show entries at once, and tell open pages, in one round trip. A Redis that is away costs the live view only: the
    next turn makes them durable anyway."""
    put, channel = [entry_json(entry) for entry in entries], wake.live_channel(session.tenant_id, session.run_id)
    if _write(session, put, channel=channel) == _WIPED and session.window:
        rebuild(session)
        _write(session, put, channel=channel)


def flushed(session: RunSession, entries: Sequence[Entry], *, before: Sequence[Mapping[str, Any]]) -> None:
    """The turn that carried these has committed: the trim may pass them, and the window is as they left it. Idempotent.

    `before`: the window until then.
    """
    masks = {n for entry in entries for n in entry.masks}
    changed = masks | {entry.n for entry in entries}
    kept = {item["n"]: item for item in session.window}
    known = [*(item["n"] for item in before), *(entry.n for entry in entries)]
    dropped = [n for n in known if n not in kept or n in masks]
    put = [kept[n] for n in sorted(changed) if n in kept]
    if _write(session, put, dropped=dropped, flushed=max(entry.n for entry in entries)) == _WIPED:
        rebuild(session)


def rebuild(session: RunSession) -> None:
    """After a takeover: the window of the last checkpoint stands in Redis again, under the new fence. Idempotent."""
    hit("scratchpad.rebuild")
    _write(session, session.window, flushed=session.entry_seq, anew=True)


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
    items = [sealing.open_entry(key, tenant_id, run_id, int(n), sealed) for n, sealed in found.items()]
    return sorted(items, key=lambda item: item.get("place") or item["n"])


def drop(tenant_id: UUID, run_id: UUID) -> None:
    """The run is over and its entries stand in the trace."""
    hit("scratchpad.drop")
    try:
        wake.redis().delete(*_keys(tenant_id, run_id))
    except (redis_client.RedisError, OSError) as error:  # they expire by themselves
        log.warning("scratchpad.drop_failed", run_id=str(run_id), error=type(error).__name__)


def shut(tenant_id: UUID, run_id: UUID) -> None:
    """As drop(), and a worker that does not know yet that it lost the run cannot put anything here again."""
    drop(tenant_id, run_id)
    _, meta = _keys(tenant_id, run_id)
    try:
        with wake.redis().pipeline() as pipe:
            pipe.hset(meta, "fence", _LAST_FENCE)
            pipe.expire(meta, ORPHAN_TTL_S)
            pipe.execute()
    except (redis_client.RedisError, OSError) as error:
        log.warning("scratchpad.shut_failed", run_id=str(run_id), error=type(error).__name__)


def _write(
    session: RunSession,
    put: Sequence[Mapping[str, Any]],
    *,
    dropped: Sequence[int] = (),
    flushed: int = 0,
    anew: bool = False,
    channel: str = "",
) -> int:
    bounds = [_ROOM * SCRATCHPAD_BYTES_MAX, _ROOM * SCRATCHPAD_ENTRIES_MAX]
    args: list[Any] = [session.fence, ORPHAN_TTL_S, *bounds, flushed, int(anew), channel]
    args += [len(dropped), *dropped]
    for item in put:
        plain = canonical.dumps(item)
        args += [item["n"], sealing.seal_entry(session.key, session.tenant_id, session.run_id, item["n"], plain)]
    try:
        done = int(wake.redis().eval(_APPEND, 2, *_keys(session.tenant_id, session.run_id), *args))
    except (redis_client.RedisError, OSError) as error:
        log.warning("scratchpad.append_failed", run_id=str(session.run_id), error=type(error).__name__)
        return _AWAY
    if done == _FENCED:
        log.warning("scratchpad.fenced", run_id=str(session.run_id), fence=session.fence)
    return done


def _keys(tenant_id: UUID, run_id: UUID) -> tuple[str, str]:
    base = f"as:{tenant_id}:run:{run_id}"
    return f"{base}:pad", f"{base}:meta"
