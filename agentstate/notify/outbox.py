"""Putting notices into the outbox, and taking them out at least once.

A notice is claimed by moving its due time into the future, sent outside of any transaction, then marked. Whoever dies
in between has it sent again after the back-off: twice is possible, never is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db import connection

from agentstate.audit import trail
from agentstate.core.clock import now
from agentstate.core.ids import new_id
from agentstate.crypto import keys, sealing
from agentstate.db import sql
from agentstate.notify.models import Outbox
from agentstate.tenants import keyring
from agentstate.tenants.actors import system
from agentstate.tenants.scope import current_tenant, tenant_scope

TABLE = "notify_outbox"
ATTEMPTS_MAX = 10
BACK_OFF_S, BACK_OFF_S_MAX = 15, 3600  # doubles; ten attempts are about two hours and a half
CLAIM = """
UPDATE notify_outbox SET attempts = attempts + 1,
  due_at = clock_timestamp() + make_interval(secs => least(%s * power(2, attempts), %s))
WHERE id = (SELECT id FROM notify_outbox WHERE id = %s AND sent_at IS NULL AND given_up_at IS NULL
  AND due_at <= clock_timestamp() FOR UPDATE SKIP LOCKED)
RETURNING attempts
"""


def put(topic: str, key: str, body: Mapping[str, Any], *, due_at: datetime | None = None) -> None:
    """Leave a notice in the caller's transaction. Idempotent by (topic, key). One round trip.

    `approval.mail`, body {"path": "/t/acme/approvals/..."}: a mail with that link to every member who may decide.
    """
    assert connection.in_atomic_block, "a notice is left in the transaction that causes it"
    notice_id, key_bytes, tenant_id = new_id(), keys.new_key(), current_tenant()
    aad = sealing.aad(tenant_id, TABLE, notice_id)
    notice = Outbox(
        id=notice_id,
        topic=topic,
        key=key,
        body=sealing.seal(key_bytes, orjson.dumps(dict(body)), aad=aad),
        wrapped=keyring.wrap_key(tenant_id, key_bytes, aad=aad),
        due_at=due_at or now(),
    )
    Outbox.objects.bulk_create([notice], ignore_conflicts=True)


def due(*, rows_max: int) -> list[tuple[UUID, UUID]]:
    """(tenant, notice) of what may be tried now, of all tenants, the longest due first."""
    return [
        (tenant_id, notice_id)
        for tenant_id, notice_id in sql.rows("SELECT * FROM agentstate_outbox_due(%s)", [rows_max])
    ]


def claim(tenant_id: UUID, notice_id: UUID) -> Outbox | None:
    """Take one notice for this attempt, or None when another process has it or it is over."""
    with tenant_scope(tenant_id):
        if sql.row(CLAIM, [BACK_OFF_S, BACK_OFF_S_MAX, notice_id]) is None:
            return None
        return Outbox.objects.get(id=notice_id)


def read(notice: Outbox) -> dict[str, Any]:
    """What it says. Raises: Corrupt."""
    aad = sealing.aad(notice.tenant_id, TABLE, notice.id)
    key = keyring.unwrap_key(notice.tenant_id, bytes(notice.wrapped), aad=aad)
    body: dict[str, Any] = orjson.loads(sealing.unseal(key, bytes(notice.body), aad=aad))
    return body


def sent(notice: Outbox) -> None:
    """It has left. Idempotent."""
    with tenant_scope(notice.tenant_id):
        Outbox.objects.filter(id=notice.id, sent_at=None, given_up_at=None).update(sent_at=now(), error="")


def failed(notice: Outbox, error: str) -> bool:
    """This attempt failed; the next one comes after the back-off. True when it was the last: that is in the trail."""
    over = notice.attempts >= ATTEMPTS_MAX
    with tenant_scope(notice.tenant_id):
        values = {"error": error[:200], **({"given_up_at": now()} if over else {})}
        changed = Outbox.objects.filter(id=notice.id, sent_at=None, given_up_at=None).update(**values)
        if over and changed:
            detail = {"topic": notice.topic, "attempts": notice.attempts, "error": error[:200]}
            trail.record(notice, action="given_up", actor=system("notify"), detail=detail)
    return over


def drop(notice: Outbox, error: str) -> None:
    """Nobody can be told (no mail server, no member): over without further attempts."""
    with tenant_scope(notice.tenant_id):
        Outbox.objects.filter(id=notice.id, sent_at=None).update(given_up_at=now(), error=error[:200])


def prune(*, sent_days: int = 7, given_up_days: int = 90, rows_max: int = 500) -> int:
    """Delete notices that are long over; how many. What the trail knows of takes leave there first."""
    limits = [now() - timedelta(days=days) for days in (sent_days, given_up_days)]
    found = sql.rows("SELECT * FROM agentstate_outbox_old(%s, %s, %s)", [*limits, rows_max])
    for tenant_id, notice_id in found:
        with tenant_scope(tenant_id):
            _prune(notice_id)
    return len(found)


def _prune(notice_id: UUID) -> None:
    notice = Outbox.objects.filter(id=notice_id).first()
    if notice is None:
        return
    if notice.audit_seq:
        trail.record(notice, action="pruned", actor=system("notify"))
    notice.delete()
