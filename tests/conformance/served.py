"""The service's own stores under the suite: on its database directly, and over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import F

from agentstate.core.ids import parse_id
from agentstate.sdk.store import RunStore
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.engine.store import LocalStore
from runs.models import Approval, Run, Step
from runs.services import approvals, clock, control, settling, timers
from tests.conformance.worlds import Settled, Verdict

_SETTLED = {"happened": "happened", "not_happened": "did_not_happen"}


class ServedWorld:
    """Acts on the database, as people and time do; the store under test may reach it another way."""

    def __init__(self, actor: Actor, store: RunStore) -> None:
        self.actor = actor
        self.store = store
        self.tenant_id = actors.tenant_of(actor)

    def expire_lease(self, run_id: str) -> None:
        with tenant_scope(self.tenant_id):
            past = clock.database_now() - timedelta(seconds=1)
            Run.objects.filter(id=parse_id("run", run_id)).update(lease_until=past)

    def skip_wait(self, run_id: str) -> bool:
        with tenant_scope(self.tenant_id):
            run = Run.objects.get(id=parse_id("run", run_id))
            if run.status != "waiting" or run.due_at is None:
                return False
            left = (run.due_at - clock.database_now()).total_seconds()
            self._age(run, max(0.0, left) + 0.001)
            timers.fire(run.id, actor=actors.system("clock"))
            return True

    def age(self, run_id: str, seconds: float) -> None:
        with tenant_scope(self.tenant_id):
            self._age(Run.objects.get(id=parse_id("run", run_id)), seconds)

    def _age(self, run: Run, seconds: float) -> None:
        back = timedelta(seconds=seconds)
        Run.objects.filter(id=run.id).update(due_at=F("due_at") - back)
        Step.objects.filter(run_id=run.id).exclude(status="done").update(
            call_by=F("call_by") - back, first_called_at=F("first_called_at") - back, due_at=F("due_at") - back
        )
        Approval.objects.filter(run_id=run.id).update(use_by=F("use_by") - back, expires_at=F("expires_at") - back)
        for expired in Approval.objects.filter(run_id=run.id, status="pending", expires_at__lte=clock.database_now()):
            approvals.expire(expired.id)

    def open_approval(self, run_id: str) -> str:
        with tenant_scope(self.tenant_id):
            open_ones = Approval.objects.filter(run_id=parse_id("run", run_id), status="pending")
            return str(open_ones.filter(kind__in=("tool", "ask")).get().id)

    def decide(self, approval_id: str, verdict: Verdict, *, args: Any = None, message: str = "") -> None:
        bare = parse_id("apr", approval_id) if approval_id.startswith("apr_") else approval_id
        approval = self._approval(id=bare)
        approvals.decide(
            approval.id,
            actor=self.actor,
            decision=verdict,
            args=args,
            message=message,
            version=approval.version,
            proposal_hash=bytes(approval.proposal_hash).hex(),
        )

    def settle(self, run_id: str, identity: str, verdict: Settled, *, output: Any = None) -> None:
        with tenant_scope(self.tenant_id):
            step = Step.objects.filter(run_id=parse_id("run", run_id), identity=identity).latest("seq")
        approval = self._approval(run_id=step.run_id, step_seq=step.seq, kind="settle", status="pending")
        settling.settle(
            approval.id,
            actor=self.actor,
            verdict=_SETTLED[verdict],
            output=output,
            reason="looked it up",
            version=approval.version,
            proposal_hash=bytes(approval.proposal_hash).hex(),
        )

    def pause(self, run_id: str) -> None:
        control.pause(parse_id("run", run_id), actor=self.actor)

    def cancel(self, run_id: str) -> None:
        control.cancel(parse_id("run", run_id), actor=self.actor)

    def resume(self, run_id: str) -> None:
        control.resume(parse_id("run", run_id), actor=self.actor, reason="go on")

    def _approval(self, **wanted: Any) -> Approval:
        with tenant_scope(self.tenant_id):
            return Approval.objects.get(**wanted)


def local(actor: Actor) -> ServedWorld:
    return ServedWorld(actor, LocalStore(actor, lease_s=30.0, shared=True))
