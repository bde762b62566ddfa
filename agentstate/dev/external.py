"""Servers that are not ours: refused before anything starts, in one sentence that says what to do."""

from __future__ import annotations

from agentstate.affairs import deployment
from agentstate.dev.plan import Plan
from agentstate.dev.servers import CannotStart


def check(plan: Plan) -> None:
    """Raises: CannotStart."""
    if plan.valkey is None:
        for name in ("REDIS_URL", "BROKER_URL"):
            _refuse(deployment.redis_trouble(name, plan.environment[name]))
    if plan.postgres is None:
        _refuse(deployment.database_trouble("DATABASE_URL", plan.environment["DATABASE_URL"], role="app"))
        _refuse(deployment.database_trouble("DATABASE_OWNER_URL", plan.owner_url, role="owner"))
        database_url = plan.environment["DATABASE_URL"]
        direct_url = plan.environment["DATABASE_DIRECT_URL"] or database_url
        _refuse(deployment.lock_trouble(direct_url, database_url=database_url))


def _refuse(trouble: str) -> None:
    if trouble:
        raise CannotStart(trouble)
