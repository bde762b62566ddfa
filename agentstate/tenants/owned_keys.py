"""Keys of single owners (a run, a subject): made once, wrapped by their tenant's, re-wrapped, destroyed to erase.

Every opening reads the row, so that a destroyed key is gone for all processes at once; only the unwrapping is cached.
A table of such keys has tenant_id, the owner's column, wrapped, key_version and destroyed_at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from uuid import UUID

from django.db import connection

from agentstate.core.clock import now
from agentstate.core.errors import Corrupt
from agentstate.core.ids import public_id
from agentstate.core.limits import KEYS_CACHED_MAX
from agentstate.crypto import keys, sealing
from agentstate.db import sql
from agentstate.tenants import keyring
from agentstate.tenants.scope import current_tenant, tenant_scope

ROTATION_ROWS = 500  # per transaction


class OwnedKeys:
    """The keys in one table; `prefix` is that of the owners' public ids."""

    def __init__(self, table: str, *, owner: str, prefix: str) -> None:
        self.table, self.owner, self.prefix = table, owner, prefix

    def ensured(self, owner_id: UUID) -> bytes:
        """The owner's key, made if it has none: call it in the transaction that makes the owner. Idempotent.

        Raises: Corrupt when the key was destroyed.
        """
        found = sql.rows(*self.asked(owner_id))
        return self.opened(current_tenant(), owner_id, found) if found else self._make(owner_id)

    def new(self, tenant_id: UUID, owner_id: UUID) -> tuple[bytes, sql.Query]:
        """A key for a new owner, and the statement that records it: part of the transaction that makes the owner."""
        key = keys.new_key()
        wrapped = keyring.wrap_key(tenant_id, key, aad=self._aad(tenant_id, owner_id))
        insert = f"INSERT INTO {self.table} ({self.owner}, wrapped, key_version) VALUES (%s, %s, %s)"
        return key, (insert, [owner_id, wrapped, keyring.version_of(wrapped)])

    def existing(self, owner_id: UUID) -> bytes:
        """The owner's key. Raises: Corrupt when there is none or it was destroyed."""
        return self.opened(current_tenant(), owner_id, sql.rows(*self.asked(owner_id)))

    def asked(self, owner_id: UUID) -> sql.Query:
        """The query whose rows opened() reads, for whoever asks for other things in the same round trip."""
        return f"SELECT wrapped FROM {self.table} WHERE {self.owner} = %s", [owner_id]

    def opened(self, tenant_id: UUID, owner_id: UUID, found: Sequence[sql.Row]) -> bytes:
        """The owner's key out of the rows of asked(). Raises: Corrupt when there is none or it was destroyed."""
        name = public_id(self.prefix, owner_id)
        if not found:
            raise Corrupt(f"{name} has no key.", failed="key missing", **{self.prefix: name})
        wrapped = bytes(found[0][0])
        if not wrapped:
            raise Corrupt(f"{name} cannot be read: key destroyed.", failed="key destroyed", **{self.prefix: name})
        return self._unwrap(tenant_id, owner_id, wrapped)

    def several(self, owner_ids: Iterable[UUID]) -> dict[UUID, bytes]:
        """The keys of these owners in one read; those that have none or whose key was destroyed are left out."""
        found = sql.rows(
            f"SELECT {self.owner}, wrapped FROM {self.table} WHERE {self.owner} = ANY(%s) AND wrapped <> ''",
            [list(set(owner_ids))],
        )
        return {owner_id: self._unwrap(current_tenant(), owner_id, bytes(wrapped)) for owner_id, wrapped in found}

    def is_destroyed(self, owner_id: UUID) -> bool:
        found = sql.row(*self.asked(owner_id))
        return found is not None and not found[0]

    def destroy(self, owner_id: UUID) -> None:
        """Make everything sealed with the key unreadable for ever. Idempotent. Asserts a transaction."""
        assert connection.in_atomic_block, "an erasure is recorded in the transaction that does it"
        sql.execute(
            f"UPDATE {self.table} SET wrapped = '', destroyed_at = %s WHERE {self.owner} = %s AND destroyed_at IS NULL",
            [now(), owner_id],
        )

    def rewrap(self, tenant_id: UUID, *, batch_rows: int = ROTATION_ROWS) -> int:
        """Wrap all keys of the tenant by its newest; how many needed it. Resumable: kill it and call again.

        Locks: a batch of rows at a time, skipping those that somebody holds (an erasure, another rewrap).
        """
        total, after = 0, UUID(int=0)
        newest = keyring.newest_version(tenant_id)
        while True:
            with tenant_scope(tenant_id):
                batch = self.older_than(newest, after=after, limit=batch_rows)
                for owner_id, wrapped in batch:
                    self.rewrap_one(tenant_id, owner_id, wrapped)
            if not batch:
                return total
            total, after = total + len(batch), batch[-1][0]

    def left_behind(self, tenant_id: UUID) -> int:
        """How many keys are not wrapped by the tenant's newest."""
        newest = keyring.newest_version(tenant_id)
        with tenant_scope(tenant_id):
            found = sql.row(
                f"SELECT count(*) FROM {self.table} WHERE key_version < %s AND destroyed_at IS NULL", [newest]
            )
        return int(found[0]) if found else 0

    def older_than(self, version: int, *, after: UUID, limit: int) -> list[tuple[UUID, bytes]]:
        """A batch of keys wrapped by an older version, in the order of their owners, locked."""
        # Index: the unique (tenant_id, owner) of the table.
        found = sql.rows(
            f"SELECT {self.owner}, wrapped FROM {self.table} WHERE {self.owner} > %s"
            f" AND key_version < %s AND destroyed_at IS NULL ORDER BY {self.owner} LIMIT %s FOR UPDATE SKIP LOCKED",
            [after, version, limit],
        )
        return [(owner_id, bytes(wrapped)) for owner_id, wrapped in found]

    def rewrap_one(self, tenant_id: UUID, owner_id: UUID, wrapped: bytes) -> None:
        fresh = keyring.rewrap_key(tenant_id, wrapped, aad=self._aad(tenant_id, owner_id))
        sql.execute(
            f"UPDATE {self.table} SET wrapped = %s, key_version = %s WHERE {self.owner} = %s",
            [fresh, keyring.version_of(fresh), owner_id],
        )

    def _make(self, owner_id: UUID) -> bytes:
        key, (insert, args) = self.new(current_tenant(), owner_id)
        return key if sql.execute(f"{insert} ON CONFLICT DO NOTHING", args) else self.existing(owner_id)

    def _unwrap(self, tenant_id: UUID, owner_id: UUID, wrapped: bytes) -> bytes:
        return _unwrapped(tenant_id, wrapped, self._aad(tenant_id, owner_id))

    def _aad(self, tenant_id: UUID, owner_id: UUID) -> bytes:
        return sealing.aad(tenant_id, self.table, owner_id)


@lru_cache(maxsize=KEYS_CACHED_MAX)
def _unwrapped(tenant_id: UUID, wrapped: bytes, aad: bytes) -> bytes:
    return keyring.unwrap_key(tenant_id, wrapped, aad=aad)
