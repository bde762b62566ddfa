"""The key of each run: made at its admission, wrapped by its tenant's key, re-wrapped by rotation, destroyed to erase.

Every opening reads the row, so that a destroyed key is gone for all processes at once; only the unwrapping is cached.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from uuid import UUID

from django.db import connection

from agentstate.audit import trail
from agentstate.core.clock import now
from agentstate.core.errors import Corrupt
from agentstate.core.ids import public_id
from agentstate.core.limits import KEYS_CACHED_MAX
from agentstate.crypto import keys, sealing
from agentstate.db import sql
from agentstate.tenants import keyring
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import current_tenant, tenant_scope

TABLE = "checkpoints_runkey"
ROTATION_ROWS = 500  # per transaction


def run_key(run_id: UUID) -> bytes:
    """The run's key, made if it has none: call it at admission, in that transaction. Idempotent.

    Raises: Corrupt when the key was destroyed.
    """
    found = _wrapped(run_id)
    return _open(run_id, found) if found is not None else _make(run_id)


def existing(run_id: UUID) -> bytes:
    """The run's key. Raises: Corrupt when there is none or it was destroyed."""
    found = _wrapped(run_id)
    if found is None:
        raise Corrupt(f"{public_id('run', run_id)} has no key.", run=public_id("run", run_id), failed="key missing")
    return _open(run_id, found)


def several(run_ids: Iterable[UUID]) -> dict[UUID, bytes]:
    """The keys of these runs in one read; those that have none or whose key was destroyed are left out."""
    found = sql.rows(
        "SELECT run_id, wrapped FROM checkpoints_runkey WHERE run_id = ANY(%s) AND wrapped <> ''", [list(set(run_ids))]
    )
    return {run_id: _unwrap(current_tenant(), run_id, bytes(wrapped)) for run_id, wrapped in found}


def is_destroyed(run_id: UUID) -> bool:
    return _wrapped(run_id) == b""


def destroy(run_id: UUID) -> None:
    """Make everything sealed with the run's key unreadable for ever. Idempotent. Asserts a transaction."""
    assert connection.in_atomic_block, "an erasure is recorded in the transaction that does it"
    sql.execute(
        "UPDATE checkpoints_runkey SET wrapped = '', destroyed_at = %s WHERE run_id = %s AND destroyed_at IS NULL",
        [now(), run_id],
    )


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did: counts of keys."""

    version: int  # of the tenant's newest key
    by_master: int  # tenant's keys that were wrapped by the current master key
    rewrapped: int  # run keys that were wrapped by the tenant's newest key
    left: int  # run keys that somebody held; another rotation takes them


def rotate(tenant: Tenant, *, actor: Actor, new_version: bool = True) -> Rotation:
    """Give the tenant a new wrapping key (or finish an earlier rotation) and wrap all run keys by it. Resumable.

    Not one transaction: every batch of keys is its own, the audit entry comes last.
    """
    if new_version:
        keyring.rotate(tenant.id)
    by_master = keyring.rewrap_by_master(tenant.id)
    rewrapped, left = rewrap(tenant.id), left_behind(tenant.id)
    done = Rotation(keyring.newest_version(tenant.id), by_master, rewrapped, left)
    with tenant_scope(tenant.id):
        trail.record(tenant, action="keys_rotated", actor=actor, detail=asdict(done))
    return done


def rewrap(tenant_id: UUID, *, batch_rows: int = ROTATION_ROWS) -> int:
    """Wrap all run keys of the tenant by its newest key; how many needed it. Resumable: kill it and call again.

    Locks: a batch of key rows at a time, skipping those that somebody holds (a destroying transaction, another rewrap).
    """
    total, after = 0, UUID(int=0)
    newest = keyring.newest_version(tenant_id)
    while True:
        with tenant_scope(tenant_id):
            batch = _older_than(newest, after=after, limit=batch_rows)
            for run_id, wrapped in batch:
                _rewrap(tenant_id, run_id, bytes(wrapped))
        if not batch:
            return total
        total, after = total + len(batch), batch[-1][0]


def left_behind(tenant_id: UUID) -> int:
    """How many run keys are not wrapped by the tenant's newest key."""
    newest = keyring.newest_version(tenant_id)
    with tenant_scope(tenant_id):
        found = sql.row(
            "SELECT count(*) FROM checkpoints_runkey WHERE key_version < %s AND destroyed_at IS NULL", [newest]
        )
    return int(found[0]) if found else 0


def _make(run_id: UUID) -> bytes:
    tenant_id, key = current_tenant(), keys.new_key()
    wrapped = keyring.wrap_key(tenant_id, key, aad=_aad(tenant_id, run_id))
    made = sql.execute(
        "INSERT INTO checkpoints_runkey (run_id, wrapped, key_version) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [run_id, wrapped, keyring.version_of(wrapped)],
    )
    return key if made else existing(run_id)


def _wrapped(run_id: UUID) -> bytes | None:
    found = sql.row("SELECT wrapped FROM checkpoints_runkey WHERE run_id = %s", [run_id])
    return bytes(found[0]) if found else None


def _open(run_id: UUID, wrapped: bytes) -> bytes:
    if not wrapped:
        name = public_id("run", run_id)
        raise Corrupt(f"{name} cannot be read: key destroyed.", run=name, failed="key destroyed")
    return _unwrap(current_tenant(), run_id, wrapped)


@lru_cache(maxsize=KEYS_CACHED_MAX)
def _unwrap(tenant_id: UUID, run_id: UUID, wrapped: bytes) -> bytes:
    return keyring.unwrap_key(tenant_id, wrapped, aad=_aad(tenant_id, run_id))


def _older_than(version: int, *, after: UUID, limit: int) -> list[tuple[UUID, bytes]]:
    # Index: checkpoints_runkey_tenant_run.
    return sql.rows(
        "SELECT run_id, wrapped FROM checkpoints_runkey WHERE run_id > %s"
        " AND key_version < %s AND destroyed_at IS NULL ORDER BY run_id LIMIT %s FOR UPDATE SKIP LOCKED",
        [after, version, limit],
    )


def _rewrap(tenant_id: UUID, run_id: UUID, wrapped: bytes) -> None:
    fresh = keyring.rewrap_key(tenant_id, wrapped, aad=_aad(tenant_id, run_id))
    sql.execute(
        "UPDATE checkpoints_runkey SET wrapped = %s, key_version = %s WHERE run_id = %s",
        [fresh, keyring.version_of(fresh), run_id],
    )


def _aad(tenant_id: UUID, run_id: UUID) -> bytes:
    return sealing.aad(tenant_id, TABLE, run_id)
