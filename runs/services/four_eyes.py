"""Who asked may not decide: in a production tenant the person who started a run does not approve its calls."""

from __future__ import annotations

from agentstate.core.errors import Forbidden
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from runs.models import Run


def check(run: Run, actor: Actor) -> None:
    """Raises: Forbidden."""
    if not is_barred(run, actor):
        return
    raise Forbidden("You started this run, so somebody else has to decide. Ask another approver.")


def is_barred(run: Run, actor: Actor) -> bool:
    if (run.started_by_kind, run.started_by_id) != (actor.kind, actor.id):
        return False
    return Tenant.objects.filter(id=run.tenant_id, production=True).exists()
