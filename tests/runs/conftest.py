"""A store on the real database, and small verbs for taking, losing and judging runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from agentstate.core.ids import parse_id
from agentstate.sdk.store import AgentSpec, Begun, Claim, StepFinish, StepStart, ToolSpec, Turn
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.engine.store import LocalStore
from runs.models import Run, Step
from runs.services import clock, workers

SPEC = AgentSpec(
    name="desk",
    version="1",
    fingerprint={"main": "a"},
    tools=[ToolSpec(name="refund", effect="destructive", schema={"type": "object"}, timeout_s=2.0)],
)


class Desk:
    """One tenant's engine as an executor sees it, with the means to lose a worker."""

    def __init__(self, actor: Actor, *, lease_s: float = 5) -> None:
        self.actor = actor
        self.store = LocalStore(actor, lease_s=lease_s)
        self.store.register(SPEC)
        self.tenant_id: UUID = self.store.tenant_id

    def start(self, **more: Any) -> Claim:
        return self.take(self.store.admit("desk", more.pop("input", {}), **more).run_id)

    def take(self, run_id: str) -> Claim:
        claim = self.try_take(run_id)
        assert claim is not None, f"{run_id} is not free"
        return claim

    def try_take(self, run_id: str, spec: AgentSpec = SPEC) -> Claim | None:
        return self.store.claim(workers.this_process(), agents={spec.name: spec}, run_id=run_id)

    def begin(self, claim: Claim, name: str, **more: Any) -> Begun:
        effect = more.pop("effect", "pure")
        start = StepStart(more.pop("identity", f"{name}#1"), name, kind=more.pop("kind", "step"), effect=effect, **more)
        reply = self.store.turn(claim, Turn(start=[start]))
        assert len(reply.begun) == 1, reply
        return reply.begun[0]

    def finish(self, claim: Claim, seq: int, **more: Any) -> None:
        self.store.turn(claim, Turn(finish=[StepFinish(seq, **more)]))

    def lose(self, claim: Claim) -> None:
        """The worker is gone and its lease is over; nobody proved its death."""
        with tenant_scope(self.tenant_id):
            past = clock.database_now() - timedelta(seconds=1)
            Run.objects.filter(id=parse_id("run", claim.run_id)).update(lease_until=past)

    def retake(self, claim: Claim) -> Claim:
        self.lose(claim)
        return self.take(claim.run_id)

    def run(self, claim: Claim) -> Run:
        with tenant_scope(self.tenant_id):
            return Run.objects.get(id=parse_id("run", claim.run_id))

    def step(self, claim: Claim, seq: int = 1) -> Step:
        with tenant_scope(self.tenant_id):
            return Step.objects.get(run_id=parse_id("run", claim.run_id), seq=seq)

    def age(self, claim: Claim, seq: int = 1, *, seconds: float) -> None:
        """Let time pass for one step: its moments lie further back."""
        with tenant_scope(self.tenant_id):
            step = Step.objects.get(run_id=parse_id("run", claim.run_id), seq=seq)
            back = timedelta(seconds=seconds)
            for name in ("call_by", "first_called_at", "due_at"):
                if getattr(step, name) is not None:
                    setattr(step, name, getattr(step, name) - back)
            step.save(update_fields=["call_by", "first_called_at", "due_at"])


@pytest.fixture
def desk(alice: Actor) -> Desk:
    return Desk(alice)


@pytest.fixture
def scoped(desk: Desk) -> Callable[[], Any]:
    return lambda: tenant_scope(desk.tenant_id)
