"""Rounds over all tenants: each gets its turn, nobody's work keeps the others waiting, and a round ends in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

import structlog
from django.db import DatabaseError

from agentstate.core.errors import DomainError
from agentstate.tenants.models import Tenant
from memory.services import turns, upkeep
from memory.services.upkeep import Progressed

log = structlog.get_logger(__name__)


def over_tenants(turn: Callable[[UUID, float], bool], *, for_s: float) -> None:
    """Give every tenant a turn, again and again while it has more to do, until the time is over.

    `turn` gets the tenant and the monotonic moment at which it must end, and tells whether there is more. A round
    begins with another tenant each time, so that one that always ends early reaches everybody.
    """
    until_s = time.monotonic() + for_s
    waiting = _rotated(tenant_ids())
    while waiting:
        more = []
        for place, tenant_id in enumerate(waiting):
            now_s = time.monotonic()
            if now_s >= until_s:
                return
            share_s = (until_s - now_s) / (len(waiting) - place)
            if _guarded(turn, tenant_id, now_s + share_s):
                more.append(tenant_id)
        waiting = more


def batches(name: str, work: Callable[[str], Progressed], *, target: str = "") -> Callable[[UUID, float], bool]:
    """A turn that does one batch of an upkeep."""

    def turn(tenant_id: UUID, until_s: float) -> bool:
        progressed = upkeep.drive(tenant_id, name, work, target=target, batches_max=1)
        return progressed is not None and not progressed.is_over and not progressed.failed

    return turn


def apart(
    name: str, ready: Callable[[UUID, str], Callable[[], Progressed]], *, target: str = ""
) -> Callable[[UUID, float], bool]:
    """A turn that does one batch of an upkeep of which a model does a part: see upkeep.apart()."""

    def turn(tenant_id: UUID, until_s: float) -> bool:
        with turns.taken(tenant_id, name, for_s=until_s - time.monotonic()) as is_ours:
            progressed = upkeep.apart(tenant_id, name, partial(ready, tenant_id), target=target) if is_ours else None
        return progressed is not None and not progressed.is_over and not progressed.failed

    return turn


def tenant_ids() -> list[UUID]:
    return list(Tenant.objects.order_by("id").values_list("id", flat=True))


def _rotated(ids: list[UUID]) -> list[UUID]:
    start = int(time.time()) % len(ids) if ids else 0
    return ids[start:] + ids[:start]


def _guarded(turn: Callable[[UUID, float], bool], tenant_id: UUID, until_s: float) -> bool:
    try:
        return turn(tenant_id, until_s)
    except (DatabaseError, DomainError) as error:
        log.warning("memory.upkeep_refused", tenant=str(tenant_id), error=type(error).__name__)
        return False
