"""Turns: who asks a model for a tenant, so that a second round does not ask it the same.

They save a model's time only: correctness stands on rows. Without Redis everybody has the turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import redis as redis_client
import structlog

from agentstate.db import wake

log = structlog.get_logger(__name__)

GRACE_S = 130.0  # a model that is asked at the last moment may take so long


@contextmanager
def taken(tenant_id: UUID, name: str, *, for_s: float) -> Iterator[bool]:
    """Whether this is ours now. Free again at the end, and so long after its holder died."""
    key = f"as:{tenant_id}:turn:{name}"
    is_ours = _take(key, for_s=for_s)
    try:
        yield is_ours
    finally:
        if is_ours:
            _end(key)


def _take(key: str, *, for_s: float) -> bool:
    try:
        return bool(wake.redis().set(key, 1, nx=True, px=max(1, int((for_s + GRACE_S) * 1_000))))
    except (redis_client.RedisError, OSError):
        return True


def _end(key: str) -> None:
    try:
        wake.redis().delete(key)
    except (redis_client.RedisError, OSError):
        log.warning("memory.turn_kept", key=key)
