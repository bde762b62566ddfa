"""Erasures kept outside the database, and done again in one that was restored from before them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from agentstate.affairs import erasing, receipts
from agentstate.affairs.models import Erasure
from agentstate.affairs.states import ErasureStatus
from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id
from agentstate.tenants.actors import system
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope

REASON = "erased before; done again after a restore"


@dataclass(frozen=True, slots=True)
class Replayed:
    """`outcome`: nothing to do (it is not there), erased, or the status in which it goes on."""

    subject: str
    outcome: str


def saved() -> Iterator[bytes]:
    """Every receipt of every tenant, one document a line: to be kept where the backups are not."""
    for tenant_id in Tenant.objects.order_by("id").values_list("id", flat=True):
        with tenant_scope(tenant_id):
            found = list(Erasure.objects.filter(status=ErasureStatus.VERIFIED).order_by("id"))
        for erasure in found:
            yield orjson.dumps(erasing.document(erasure)) + b"\n"


def replay(lines: Iterable[bytes], *, wait_s: float = 60.0) -> Iterator[Replayed]:
    """Erase again whatever a line says was erased and is there. A receipt that does not verify stops it.

    Raises: Invalid. Idempotent.
    """
    for line in lines:
        if line.strip():
            yield _replay(receipts.check(line), wait_s=wait_s)


def _replay(receipt: dict[str, Any], *, wait_s: float) -> Replayed:
    tenant_id, subject_id = UUID(receipt["tenant_id"]), parse_id("subject", receipt["subject"])
    try:
        actor = system("replay_erasures", tenant_id=tenant_id)
        done = erasing.erase(subject_id, actor=actor, reason=REASON, confirm=receipt["subject"], wait_s=wait_s)
    except NotFound:
        return Replayed(receipt["subject"], "nothing to do")
    return Replayed(receipt["subject"], "erased" if done.status == ErasureStatus.VERIFIED else done.status)
