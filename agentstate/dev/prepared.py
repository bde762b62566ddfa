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
_APPLIED = "select count(*), max(applied)::text from django_migrations"  # somebody may have migrated by hand
_KEY_WORKS = "select revoked_at is null from agentstate_resolve_key(%s)"


def read(made: Plan) -> dict[str, Any] | None:
    """What the seed made, if the same migrations and seed ran here and its key still works; else None."""
    if made.postgres is None:
        return None
    try:
        written: dict[str, Any] = json.loads((made.postgres.folder / NAME).read_text())
        token = hashlib.sha256(written["demo"]["api_key"].encode()).digest()
        works = _first_row(made.environment["DATABASE_URL"], _KEY_WORKS, token) == [True]
        same = works and written["mark"] == _mark(made)
    except (OSError, ValueError, KeyError, psycopg.Error):
        return None
    return written["demo"] if same else None


def write(made: Plan, demo: dict[str, Any]) -> None:
    if made.postgres:
        path = made.postgres.folder / NAME
        path.touch(0o600)
        path.write_text(json.dumps({"mark": _mark(made), "demo": demo}))


def _mark(made: Plan) -> list[Any]:
    seed = hashlib.sha256(SEED.read_bytes()).hexdigest()
    return [templates.digest(), seed, *_first_row(made.owner_url, _APPLIED)]


def _first_row(url: str, query: str, *values: object) -> list[Any]:
    with psycopg.connect(url) as connection:
        return list(connection.execute(query.encode(), values).fetchone() or ())
