"""Ids: UUIDv7, in the order of their making within a process, and their public form with a prefix."""

from __future__ import annotations

import os
import random
import threading
import time
from datetime import datetime
from uuid import UUID

from agentstate.core.errors import NotFound

_COUNTER_BITS = 42
_TAIL_BITS = 32
_lock = threading.Lock()
_random = random.Random(os.urandom(32))  # noqa: S311 - ids are no secrets, and two system calls an id cost 12 us
_last_ms = 0
_counter = 0


def new_id() -> UUID:
    """A UUIDv7 greater than every one this process made before, even when the wall clock steps back."""
    global _last_ms, _counter
    with _lock:
        ms = time.time_ns() // 1_000_000
        if ms > _last_ms:
            _last_ms, _counter = ms, _fresh_counter()
        else:
            _counter += 1
            if _counter >> _COUNTER_BITS:
                _last_ms, _counter = _last_ms + 1, _fresh_counter()
        return _assemble(_last_ms, _counter)


def first_at(moment: datetime) -> UUID:
    """The lowest id that can be made at this moment: what was made before it has a lower one."""
    return UUID(int=(int(moment.timestamp() * 1_000) & ((1 << 48) - 1)) << 80 | 0x7 << 76 | 0b10 << 62)


def public_id(prefix: str, id: UUID) -> str:
    """`run_` and 32 hex digits: what the API and the pages show."""
    return f"{prefix}_{id.hex}"


def parse_id(prefix: str, text: str) -> UUID:
    """The id inside a public id. Raises: NotFound for anything else, so that a bad id and a missing row look alike."""
    head, _, digits = text.partition("_")
    if head == prefix and len(digits) == 32 and digits.isascii() and digits.isalnum() and digits == digits.lower():
        try:
            return UUID(hex=digits)
        except ValueError:
            pass
    raise NotFound


def _fresh_counter() -> int:
    # The top bit stays free, so a busy millisecond has 2**41 ids before it must borrow from the next one.
    return _random.getrandbits(_COUNTER_BITS - 1)


def _assemble(ms: int, counter: int) -> UUID:
    high = counter >> 30
    low = counter & ((1 << 30) - 1)
    tail = _random.getrandbits(_TAIL_BITS)
    return UUID(int=(ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low << _TAIL_BITS | tail)


def _forget() -> None:
    # A forked child would go on with its parent's counter and random numbers, and make the same ids.
    global _last_ms, _counter, _lock, _random
    _lock = threading.Lock()
    _random = random.Random(os.urandom(32))  # noqa: S311
    _last_ms = _counter = 0


os.register_at_fork(after_in_child=_forget)
