"""Each tenant's keys: one that makes stored hashes incomparable between tenants, and versions of one that wraps keys.

They lie in KeyRing wrapped by the master key; a process unwraps a tenant's ring once and keeps it in a bounded cache.
A ring that only an open transaction can see is never cached: after its rollback the key would be lost, and with it
whatever had been sealed.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from django.db import connection, transaction

from agentstate.core.errors import Corrupt
from agentstate.core.limits import KEYS_CACHED_MAX
from agentstate.crypto import keys, sealing
from agentstate.crypto.hashing import Hasher
from agentstate.tenants.models import KeyRing
from agentstate.tenants.scope import current_tenant, in_scope, tenant_scope

_WRAP, _HMAC = KeyRing.Purpose.WRAP, KeyRing.Purpose.HMAC
_VERSION_BYTES = 4
_REREAD_S = 60.0  # after a rotation other processes wrap by the old version for at most this long; it stays readable


@dataclass(frozen=True, slots=True)
class _Ring:
    hasher: Hasher
    wraps: dict[int, bytes]  # version -> key
    read_at_s: float  # time.monotonic

    @property
    def newest(self) -> int:
        return max(self.wraps)


_lock = threading.Lock()
_cache: OrderedDict[UUID, _Ring] = OrderedDict()
_unsettled: set[UUID] = set()  # rings this process changed in a transaction that may yet roll back


def hmac(tenant_id: UUID, message: bytes) -> bytes:
    """HMAC-SHA-256 under the tenant's own key, 32 bytes: the same for ever, and different in every tenant."""
    return hasher(tenant_id)(message)


def hasher(tenant_id: UUID) -> Hasher:
    """hmac() for whoever hashes often for one tenant: that key never changes, so it is looked up once."""
    return _ring(tenant_id).hasher


def wrap_key(tenant_id: UUID, key: bytes, *, aad: bytes) -> bytes:
    """`key` wrapped by the tenant's newest key: 4 bytes of version, then the sealed key."""
    ring = _ring(tenant_id, max_age_s=_REREAD_S)
    return ring.newest.to_bytes(_VERSION_BYTES, "big") + keys.wrap(ring.wraps[ring.newest], key, aad=aad)


def unwrap_key(tenant_id: UUID, wrapped: bytes, *, aad: bytes) -> bytes:
    """Raises: Corrupt for another tenant, another row, or changed bytes."""
    version = version_of(wrapped)
    ring = _ring(tenant_id)
    if version not in ring.wraps:
        ring = _ring(tenant_id, max_age_s=0)  # another process rotated since
    if version not in ring.wraps:
        raise Corrupt(f"A key is wrapped by version {version} of its tenant's key, which does not exist.")
    return keys.unwrap(ring.wraps[version], bytes(wrapped)[_VERSION_BYTES:], aad=aad)


def version_of(wrapped: bytes) -> int:
    """Which version of the tenant's key wrapped this."""
    return int.from_bytes(bytes(wrapped)[:_VERSION_BYTES], "big")


def newest_version(tenant_id: UUID) -> int:
    return _ring(tenant_id, max_age_s=0).newest


def rewrap_key(tenant_id: UUID, wrapped: bytes, *, aad: bytes) -> bytes:
    """The same key wrapped by the newest version. Raises: Corrupt."""
    return wrap_key(tenant_id, unwrap_key(tenant_id, wrapped, aad=aad), aad=aad)


def ensure(tenant_id: UUID) -> None:
    """Make the first keys of a tenant. Idempotent, also between two processes at once."""
    with tenant_scope(tenant_id):
        rows = [_new_row(tenant_id, purpose, 1) for purpose in (_WRAP, _HMAC)]
        KeyRing.objects.bulk_create(rows, ignore_conflicts=True)
        _unsettle(tenant_id)


def rotate(tenant_id: UUID) -> int:
    """Add a version of the wrapping key and give its number. Old ones stay, until what they wrap is rewrapped.

    Locks: the tenant's ring.
    """
    ensure(tenant_id)
    with tenant_scope(tenant_id):
        versions = KeyRing.objects.select_for_update().filter(purpose=_WRAP).values_list("version", flat=True)
        row = _new_row(tenant_id, _WRAP, max(versions) + 1)
        row.save(force_insert=True)
        _unsettle(tenant_id)
    return row.version


def rewrap_by_master(tenant_id: UUID) -> int:
    """Wrap every key of the tenant by the current master key; how many needed it. Idempotent.

    Afterwards, when all tenants are through, the former master key may leave AGENTSTATE_MASTER_KEY.
    """
    count = 0
    with tenant_scope(tenant_id):
        for row in KeyRing.objects.select_for_update():
            bound = _aad(tenant_id, row.purpose, row.version)
            key, is_current = keys.unwrap_by_master(bytes(row.wrapped), aad=bound)
            if not is_current:
                row.wrapped = keys.wrap(keys.master_key(), key, aad=bound)
                row.save(update_fields=["wrapped"])
                count += 1
    return count


def forget() -> None:
    """Drop the cache of this process."""
    with _lock:
        _cache.clear()
        _unsettled.clear()


def _ring(tenant_id: UUID, *, max_age_s: float | None = None) -> _Ring:
    with _lock:
        ring = _cache.get(tenant_id)
        if ring is not None:
            _cache.move_to_end(tenant_id)
    if ring is not None and (max_age_s is None or time.monotonic() - ring.read_at_s < max_age_s):
        return ring
    return _read_and_keep(tenant_id)


def _read_and_keep(tenant_id: UUID) -> _Ring:
    in_transaction = connection.in_atomic_block
    ring = _read(tenant_id)
    if ring is None:
        ensure(tenant_id)
        ring = _read(tenant_id)
    assert ring is not None
    with _lock:
        if not (in_transaction and tenant_id in _unsettled):
            _cache[tenant_id] = ring
            while len(_cache) > KEYS_CACHED_MAX:
                _cache.popitem(last=False)
    return ring


def _read(tenant_id: UUID) -> _Ring | None:
    if in_scope() and current_tenant() == tenant_id:  # saves the savepoint
        rows = list(KeyRing.objects.all())
    else:
        with tenant_scope(tenant_id):
            rows = list(KeyRing.objects.all())
    opened = {(row.purpose, row.version): _open(row) for row in rows}
    wraps = {version: key for (purpose, version), key in opened.items() if purpose == _WRAP}
    if not wraps or (_HMAC, 1) not in opened:
        return None
    return _Ring(hasher=Hasher(opened[(_HMAC, 1)]), wraps=wraps, read_at_s=time.monotonic())


def _open(row: KeyRing) -> bytes:
    return keys.unwrap_by_master(bytes(row.wrapped), aad=_aad(row.tenant_id, row.purpose, row.version))[0]


def _new_row(tenant_id: UUID, purpose: str, version: int) -> KeyRing:
    wrapped = keys.wrap(keys.master_key(), keys.new_key(), aad=_aad(tenant_id, purpose, version))
    return KeyRing(purpose=purpose, version=version, wrapped=wrapped)


def _aad(tenant_id: UUID, purpose: str, version: int) -> bytes:
    return sealing.aad(tenant_id, "tenants_keyring", f"{purpose}.{version}")


def _unsettle(tenant_id: UUID) -> None:
    with _lock:
        _cache.pop(tenant_id, None)
        _unsettled.add(tenant_id)
    transaction.on_commit(lambda: _settle(tenant_id))


def _settle(tenant_id: UUID) -> None:
    with _lock:
        _unsettled.discard(tenant_id)
        _cache.pop(tenant_id, None)
