"""Signs of life of workers and beat, in Redis: read by `up`, doctor and the Health page."""

from __future__ import annotations

import os
from contextlib import suppress

import redis

READY_KEY = "as:ready:{name}"  # the pid of the newest worker, or beat, that takes messages
READY_S = 30  # without a sign of life it counts as gone
_roles: dict[str, int] = {}  # what this process is: its pid, which a forked pool child does not have


def announce(name: str) -> None:
    """This process is a `name` from now on."""
    _roles[name] = os.getpid()
    refresh()


def refresh() -> None:
    """Say so again; nothing in a process that never announced itself. Cheap: one SET."""
    from agentstate.db.wake import redis as client

    for name, pid in _roles.items():
        if pid == os.getpid():
            with suppress(redis.RedisError, OSError):  # only a sign of life; the next one will do
                client().set(READY_KEY.format(name=name), pid, ex=READY_S)
