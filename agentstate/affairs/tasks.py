"""Celery tasks of what spans tiers."""

from __future__ import annotations

import structlog
from celery import shared_task

from agentstate.affairs import erasing, invariants
from agentstate.tenants.models import Tenant

log = structlog.get_logger(__name__)
ERASE_S = 20.0  # of one round; the next one follows soon


@shared_task(name="affairs.invariants")
def check_invariants() -> int:
    """Every rule for every tenant; what is broken goes into the log as an error. Returns how many violations."""
    broken = 0
    for tenant_id in Tenant.objects.values_list("id", flat=True):
        for violation in invariants.check(tenant_id):
            broken += 1
            log.error(
                "invariant.broken", tenant=str(tenant_id), rule=violation.rule, id=violation.object_id,
                detail=violation.text,
            )  # fmt: skip
    return broken


@shared_task(name="affairs.erase")
def go_on_erasing() -> int:
    """Go on with erasures that wait for runs, were too large for one request, or whose process died; how many."""
    return erasing.go_on_with_all(for_s=ERASE_S)
