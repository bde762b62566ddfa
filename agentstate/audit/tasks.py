"""The sealer's minute."""

from __future__ import annotations

import structlog
from celery import shared_task
from django.db import DatabaseError

from agentstate.audit import sealing
from agentstate.core.errors import DomainError
from agentstate.tenants.models import Tenant

log = structlog.get_logger(__name__)


@shared_task(name="audit.seal")
def seal() -> int:
    """Seal each tenant; how many seals. One tenant's trouble does not keep the others waiting.

    The roots go to the log as well: a copy that whoever rewrites the database does not reach.
    """
    return sum(_seal(tenant) for tenant in Tenant.objects.order_by("id"))


def _seal(tenant: Tenant) -> int:
    try:
        seals = sealing.seal(tenant.id)
    except (DatabaseError, DomainError) as error:
        log.warning("audit.seal_failed", tenant=tenant.slug, error=type(error).__name__, message=str(error))
        return 0
    for one in seals:
        log.info("audit.sealed", tenant=tenant.slug, seq=one.seq, entries=one.n, root=bytes(one.root).hex())
    return len(seals)
