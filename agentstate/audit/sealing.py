"""Seals: once a minute a digest of everything a tenant's finished transactions wrote, chained to the seal before.

A chain per object cannot tell that an object vanished with all its entries; a chain per tenant would make all writers
wait for each other (five times slower). The sealer comes afterwards and stands in nobody's way.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import orjson

from agentstate.audit import clusters
from agentstate.audit.models import AuditSeal
from agentstate.core.clock import now
from agentstate.db import locks, sql
from agentstate.tenants import keyring
from agentstate.tenants.scope import tenant_scope

XID_MAX = 2**63 - 1  # to_xid of the closing seal of an epoch
PURPOSE = b"audit.seal\0"
# Transactions below the snapshot's xmin are over: nothing can join the window any more. Sequence numbers would not do,
# as a row with a smaller one can appear later. Index: audit_entry_window.
WINDOW = """
WITH edge AS (SELECT coalesce(%s::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint) AS xid)
SELECT edge.xid, count(e.id), max(e.id), sha256(coalesce(string_agg(e.sha, ''::bytea ORDER BY e.id), ''::bytea))
FROM edge LEFT JOIN audit_entry e
  ON e.epoch = %s AND ((e.xid >= %s AND e.xid < edge.xid) OR e.id > %s)
GROUP BY edge.xid
"""


def seal(tenant_id: UUID) -> list[AuditSeal]:
    """Seal what is over and not yet sealed; no seal when that is nothing. Usually one, more after a restore.

    Raises: LockTimeout. Locks: one sealer per tenant; another one at work means nothing is left to do. Idempotent.
    """
    epoch = clusters.observe()
    with tenant_scope(tenant_id):
        if not locks.try_hold("audit.seal", tenant_id):
            return []
        last = AuditSeal.objects.order_by("-seq").first()
        made = [_seal(tenant_id, former, closing=True) for former in range(last.epoch if last else 1, epoch)]
        made.append(_seal(tenant_id, epoch, closing=False))
    return [one for one in made if one]


def root_of(seal: AuditSeal, digest: bytes) -> bytes:
    """What a seal's root must be: the root before, the window in words, the digest of its entries."""
    window = [seal.seq, seal.epoch, seal.from_xid, seal.to_xid, seal.after_id, seal.last_id, seal.n]
    return sha256(bytes(seal.previous) + orjson.dumps(window) + digest).digest()


def mac_of(tenant_id: UUID, root: bytes) -> bytes:
    """Somebody with the whole database and without the tenant's key cannot make this."""
    return keyring.hmac(tenant_id, PURPOSE + root)


def _seal(tenant_id: UUID, epoch: int, *, closing: bool) -> AuditSeal | None:
    last = AuditSeal.objects.order_by("-seq").first()
    from_xid = last.to_xid if last and last.epoch == epoch else 0
    if from_xid == XID_MAX:
        return None
    # After a restore some entries got the former epoch with small numbers before anybody noticed: they came last.
    after_id = last.last_id if closing and last and last.epoch == epoch else None
    found = sql.row(WINDOW, [XID_MAX if closing else None, epoch, from_xid, after_id])
    assert found is not None, "an aggregate has one row"
    to_xid, n, last_id, digest = found
    if n == 0:
        return None
    new = AuditSeal(
        seq=last.seq + 1 if last else 1,
        epoch=epoch,
        from_xid=from_xid,
        to_xid=to_xid,
        after_id=after_id,
        last_id=max(last_id, last.last_id if last else 0),
        n=n,
        previous=bytes(last.root) if last else b"",
        at=now(),
    )
    new.root = root_of(new, digest)
    new.mac = mac_of(tenant_id, new.root)
    new.save(force_insert=True)
    return new
