"""Who may write memory: a run's worker for its agent, a person or a key with the scope."""

from __future__ import annotations

from agentstate.tenants import actors
from agentstate.tenants.actors import Actor


def require_writing(actor: Actor) -> None:
    """Raises: Forbidden."""
    if not actors.allows(actor, "runs.work"):
        actors.require(actor, "memory.write")
