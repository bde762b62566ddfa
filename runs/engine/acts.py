"""Audit entries of the engine's acts on steps. They stand on the chain of the run, whose row the turn holds locked."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agentstate.audit import trail
from agentstate.tenants import actors
from agentstate.tenants.scope import current_tenant
from runs.models import Run, Step


def worker(worker_id: UUID | None) -> actors.Actor:
    """The worker as an actor; its rights come from its claim, not from a role."""
    return actors.Actor(
        kind="worker",
        id=str(worker_id or ""),
        name="worker",
        tenant_id=current_tenant(),
        role="",
        scopes=frozenset({"runs.work"}),
    )


def record(run: Run, step: Step, action: str, *, worker_id: UUID | None, **detail: Any) -> None:
    """Every step transition that is not plain. Asserts a tenant scope and the run's lock."""
    record_by(run, step, action, actor=worker(worker_id), **detail)


def record_by(run: Run, step: Step, action: str, *, actor: actors.Actor, **detail: Any) -> None:
    """As record(), of an act that no worker did."""
    found = {"seq": step.seq, "tool": step.name, "class": step.effect, "attempt": step.attempt, "key": step.key}
    trail.record(run, action=action, actor=actor, detail={**found, **detail})
