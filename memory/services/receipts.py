"""A keyed write happens once: its key and its answer are written in the transaction that does it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection

from agentstate.core import canonical
from agentstate.core.clock import now
from agentstate.core.errors import Conflict
from agentstate.core.ids import new_id
from agentstate.core.limits import RECEIPT_DAYS
from agentstate.db import locks, sql
from agentstate.tenants import keyring
from agentstate.tenants.scope import current_tenant
from memory.models import Receipt

CLAIM = """
INSERT INTO memory_receipt (id, tenant_id, key, body_hash, at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT ON CONSTRAINT memory_receipt_key DO NOTHING
"""
DROPPED_AT_ONCE = 5_000


def once(key: str, asked: Any, act: Callable[[], Any], *, by: str = "") -> Any:
    """What `act` answers, which is plain JSON without any text of a person; asked again, the answer it gave then.

    `by`: whose key this is; two callers may use the same one. `asked`: JSON of what is wanted. Asserts a transaction.
    Raises: Conflict for the same key with another body, LockTimeout. Locks: the key.
    """
    assert connection.in_atomic_block, "the receipt stands in the transaction of its act"
    name = hashlib.sha256(f"{by}\0{key}".encode()).hexdigest()
    body_hash = keyring.hmac(current_tenant(), canonical.dumps(asked))
    with locks.translated():  # waits for another writer under the same key
        is_new = sql.execute(CLAIM, [new_id(), current_tenant(), name, body_hash, now()])
    if not is_new:
        return _answer(name, body_hash, key)
    reply = act()
    Receipt.objects.filter(key=name).update(reply=reply)
    return reply


def drop_old() -> int:
    """Drop receipts that nobody can ask for any more; how many. Asserts a transaction."""
    before = now() - timedelta(days=RECEIPT_DAYS)
    old = Receipt.objects.filter(at__lt=before).order_by("at").values_list("id", flat=True)[:DROPPED_AT_ONCE]
    return Receipt.objects.filter(id__in=list(old)).delete()[0]


def _answer(name: str, body_hash: bytes, key: str) -> Any:
    found = Receipt.objects.get(key=name)
    if bytes(found.body_hash) != body_hash:
        raise Conflict(
            "This idempotency key was used for another request. Send a new key, or the same body.", key=key[:200]
        )
    return found.reply
