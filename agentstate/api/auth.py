"""Bearer keys -> actors.

Acts of people and of start-up (decide, settle, pause, stop, admit, register) look the key up each time. The calls that
a worker makes many times a second remember the answer for CACHED_S, so a revoked key is refused at the next act and at
most CACHED_S later by a worker's calls. Remembered answers are kept under the token's digest, never the token.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict

from django.http import HttpRequest
from ninja.security import HttpBearer

from agentstate.core.errors import Unauthorised
from agentstate.core.limits import KEYS_CACHED_MAX
from agentstate.http import waiting
from agentstate.tenants import api_keys
from agentstate.tenants.actors import Actor

CACHED_S = 1.0
TOKEN_CHARS_MAX = 256

_seen: OrderedDict[bytes, tuple[Actor, float]] = OrderedDict()
_lock = threading.Lock()


def resolve(token: str) -> Actor:
    """Raises: Unauthorised, which says nothing about whether a key of that name exists."""
    if not token or len(token) > TOKEN_CHARS_MAX or not token.isascii():
        raise Unauthorised("This is no API key. Send `Authorization: Bearer <key>`.")
    return api_keys.resolve(token)


def resolve_cached(token: str) -> Actor:
    """Look the key up and remember the answer for CACHED_S. A refusal is never remembered."""
    asked_at = time.monotonic()
    actor = resolve(token)
    with _lock:
        _seen[_digest(token)] = (actor, asked_at + CACHED_S)
        _seen.move_to_end(_digest(token))
        while len(_seen) > KEYS_CACHED_MAX:
            _seen.popitem(last=False)
    return actor


def remembered(token: str) -> Actor | None:
    found = _seen.get(_digest(token))
    return found[0] if found is not None and time.monotonic() < found[1] else None


def forget() -> None:
    """Remember nothing: the next call of every key looks it up."""
    with _lock:
        _seen.clear()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


class KeyAuth(HttpBearer):
    """For acts: the key is looked up each time."""

    async def authenticate(self, request: HttpRequest, token: str) -> Actor:
        return await waiting.in_database(lambda: resolve(token))


class WorkerAuth(KeyAuth):
    """For the calls of a worker: no database thread while the answer is remembered."""

    async def authenticate(self, request: HttpRequest, token: str) -> Actor:
        known = remembered(token)
        return known if known is not None else await waiting.in_database(lambda: resolve_cached(token))
