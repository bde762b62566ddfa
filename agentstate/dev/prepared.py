"""Whether the embedded database is migrated and seeded already, so that a warm start need not look (it costs 1.5 s)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import psycopg

from agentstate.dev import templates
from agentstate.dev.plan import Plan

NAME = "agentstate.prepared"  # in the cluster's own folder, so that it goes when the cluster goes
SEED = Path(__file__).with_name("seed.py")
_KEY_WORKS = "select revoked_at is null from agentstate_resolve_key(%s)"


def read(made: Plan) -> dict[str, Any] | None:
    """What the seed made, if the same migrations and seed ran here and its key still works; else None."""
    if made.postgres is None:
        return None
    try:
        written: dict[str, Any] = json.loads((made.postgres.folder / NAME).read_text())
        works = _key_works(made, written["demo"]["api_key"])
    except (OSError, ValueError, KeyError, psycopg.Error):
        return None
    return written["demo"] if works and written["digest"] == _digest() else None


def write(made: Plan, demo: dict[str, Any]) -> None:
    if made.postgres:
        path = made.postgres.folder / NAME
        path.write_text(json.dumps({"digest": _digest(), "demo": demo}))
        path.chmod(0o600)


def _digest() -> str:
    return templates.digest() + hashlib.sha256(SEED.read_bytes()).hexdigest()


def _key_works(made: Plan, token: str) -> bool:
    with psycopg.connect(made.environment["DATABASE_URL"]) as connection:
        found = connection.execute(_KEY_WORKS, [hashlib.sha256(token.encode()).digest()]).fetchone()
    return bool(found and found[0])
