"""Celery's side of checkpoints."""

from __future__ import annotations

import structlog
from celery import shared_task

from agentstate.tenants.models import Tenant
from checkpoints import compaction

log = structlog.get_logger(__name__)


@shared_task(name="checkpoints.compact")
def compact() -> None:
    """Compact all tenants. Lost: tomorrow's does it. Doubled: each run is done by one."""
    for tenant_id in Tenant.objects.order_by("id").values_list("id", flat=True):
        outcome = compaction.run(tenant_id)
        log.info("checkpoints.compacted", tenant=str(tenant_id), **compaction.as_fields(outcome))
        for problem in outcome.problems:
            log.error("checkpoints.corrupt", tenant=str(tenant_id), problem=problem)
