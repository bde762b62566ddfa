"""The engine against a small model: whatever is done in whatever order, each effect happens as often as allowed.

The other side is part of the model: a list of what was really called. Time is moved by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentstate.affairs import invariants
from agentstate.core.errors import Conflict, Fenced
from agentstate.core.ids import parse_id
from agentstate.sdk.store import Begun, Claim, End, Failure, Park, Question, StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.models import Approval, Run, Step
from runs.services import approvals, clock, control, settling
from tests.runs.conftest import Desk

# Time passes only when the machine says so: a slow test would else meet other cases than a quick one.
LEASE_S = 3_600.0
PASSING_S = 4_000.0
CLASSES: dict[str, dict[str, Any]] = {
    "pure": {},
    "keyed": {"window_s": 1_000_000.0, "timeout_s": 2.0},
    "probed": {"has_probe": True, "settles_within_s": 1.0, "timeout_s": 2.0},
    "destructive": {"timeout_s": 2.0},
}
OVER = ("succeeded", "cancelled", "failed")


@dataclass
class Effect:
    """What the model knows of one step."""

    effect: str
    calls: list[str] = field(default_factory=list)  # keys, in the order in which the agent was told to call
    happened: int = 0
    authorised: int = 0
    is_done: bool = False


class Engine(RuleBasedStateMachine):
    """One run with an agent that does anything an executor may do, and people who do anything people may."""

    alice: Actor
    bob: Actor

    @initialize()
    def admit(self) -> None:
        self.desk = Desk(self.alice, lease_s=LEASE_S)
        self.run_id = self.desk.store.admit("desk", {}).run_id
        self.claim: Claim | None = None
        self.zombies: list[tuple[Claim, int]] = []
        self.open: dict[str, Begun] = {}  # calls that this claim's holder may make or has made
        self.model: dict[str, Effect] = {}

    # The worker

    @precondition(lambda self: self.claim is None)
    @rule()
    def take(self) -> None:
        self.claim = self.desk.try_take(self.run_id)
        self.open = {}
        assert self.claim is None or self.row().status == "running"

    @precondition(lambda self: self.claim is not None)
    @rule(name=st.sampled_from("abc"), effect=st.sampled_from(sorted(CLASSES)), ask=st.booleans())
    def begin(self, name: str, effect: str, ask: bool) -> None:
        known = self.model.setdefault(name, Effect(effect))
        if name in self.open:
            return
        begun = self.send(Turn(start=[self.start(name, known.effect, ask)]))
        if begun is None or not begun.begun:
            return
        self.told(name, known, begun.begun[0])

    def told(self, name: str, known: Effect, begun: Begun) -> None:
        if begun.action == "execute":
            assert not known.is_done, "a step that is done was to be called again"
            self.open[name] = begun
            known.calls.append(begun.key)
            known.happened += known.effect != "keyed" or known.calls.count(begun.key) == 1
        elif begun.action == "probe":
            answer: Any = "done" if known.happened else "failed"
            self.send(Turn(finish=[StepFinish(begun.seq, answer, {"by": "probe"}, source="probe")]))
        elif begun.action == "doubt":
            self.park("in_doubt")
        elif begun.action == "wait":
            self.park("approval")

    @precondition(lambda self: bool(self.claim and self.open))
    @rule(outcome=st.sampled_from(["done", "not_sent", "refused", "unknown"]), pick=st.integers(0, 9))
    def finish(self, outcome: Any, pick: int) -> None:
        name = sorted(self.open)[pick % len(self.open)]
        begun, known = self.open[name], self.model[name]
        failure = None if outcome == "done" else Failure("Error", "", retryable=True)
        if self.send(Turn(finish=[StepFinish(begun.seq, outcome, {"n": 1}, failure, retry_in_s=0.0)])) is None:
            return
        del self.open[name]
        known.is_done = known.is_done or outcome == "done"
        if outcome in ("not_sent", "refused"):  # the other side agrees that nothing was done
            known.calls.pop()
            known.happened -= known.effect != "keyed" or begun.key not in known.calls

    @precondition(lambda self: self.claim is not None)
    @rule()
    def crash(self) -> None:
        """The holder is gone; what it was told to call may have been called."""
        assert self.claim is not None
        self.zombies += [(self.claim, begun.seq) for begun in self.open.values()]
        if self.row().status == "running":
            self.desk.lose(self.claim)
        self.claim, self.open = None, {}

    @precondition(lambda self: bool(self.zombies))
    @rule()
    def zombie_reports(self) -> None:
        """A holder of former times comes back: refused, and kept as evidence."""
        claim, seq = self.zombies.pop()
        if claim.fence == self.row().fence and self.row().status == "running":
            return  # nobody has taken it since; it is still its own
        with pytest.raises(Fenced):
            self.desk.store.turn(claim, Turn(finish=[StepFinish(seq, output={"late": True})]))
        self.desk.store.late(claim, StepFinish(seq, output={"late": True}))

    @precondition(lambda self: bool(self.claim and not self.open))
    @rule()
    def end(self) -> None:
        if self.send(Turn(then=End("succeeded", {}))) is not None:
            self.claim = None

    def park(self, why: Any) -> None:
        if self.open:
            return
        if self.send(Turn(then=Park(why))) is not None:
            self.claim = None

    # People and time

    @rule()
    def pause(self) -> None:
        self.obeyed(lambda: control.pause(self.id(), actor=self.alice))

    @rule()
    def resume(self) -> None:
        self.obeyed(lambda: control.resume(self.id(), actor=self.alice, reason="go on"))

    @precondition(lambda self: self.zombies)
    @rule()
    def cancel(self) -> None:
        self.obeyed(lambda: control.cancel(self.id(), actor=self.alice))

    @rule()
    def time_passes(self) -> None:
        with tenant_scope(self.desk.tenant_id):
            seqs = list(Step.objects.filter(run_id=self.id()).values_list("seq", flat=True))
        for seq in seqs:
            if self.claim is None:
                self.desk.age(Claim(self.run_id, "desk", 0, LEASE_S), seq, seconds=PASSING_S)

    @rule(decision=st.sampled_from(["approve", "reject"]))
    def decide(self, decision: str) -> None:
        for asked in self.questions("tool"):
            said: dict[str, Any] = {
                "version": asked.version,
                "proposal_hash": bytes(asked.proposal_hash).hex(),
                "message": "because",
            }
            approvals.decide(asked.id, actor=self.bob, decision=decision, **said)

    @rule()
    def settle(self) -> None:
        """As a careful person: by what the other side says."""
        for doubt in self.questions("settle"):
            with tenant_scope(self.desk.tenant_id):
                step = Step.objects.get(run_id=self.id(), seq=doubt.step_seq or 0)
            known = self.model[step.identity.removesuffix("#1")]
            # A keyed or destructive call of the model happens when it is allowed to be made, unless it ended otherwise.
            verdict = "happened" if known.happened else "did_not_happen"
            said: dict[str, Any] = {"version": doubt.version, "proposal_hash": bytes(doubt.proposal_hash).hex()}
            said |= {"verdict": verdict, "reason": "looked"}
            settled = self.obeyed(partial(settling.settle, doubt.id, actor=self.bob, **said))
            known.is_done = known.is_done or bool(settled and verdict == "happened")

    # What must hold after each of it

    @invariant()
    def no_effect_happens_twice(self) -> None:
        for name, known in getattr(self, "model", {}).items():
            if known.effect in ("keyed", "destructive", "probed"):
                assert known.happened <= 1, f"{name} ({known.effect}) happened {known.happened} times: {known.calls}"

    @invariant()
    def no_rule_is_broken(self) -> None:
        if hasattr(self, "desk"):
            assert [str(one) for one in invariants.check(self.desk.tenant_id, audit=False)] == []

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            assert invariants.check(self.desk.tenant_id) == []
            with tenant_scope(self.desk.tenant_id):  # the tenant is shared by all examples: nobody comes for this run
                Run.objects.filter(status="running").update(lease_until=clock.database_now() + timedelta(hours=1))

    # Pieces

    def start(self, name: str, effect: str, ask: bool) -> StepStart:
        question = Question(title="May I?", tool=name, args={}) if ask and effect == "destructive" else None
        return StepStart(f"{name}#1", name, "tool", effect, question=question, **CLASSES[effect])  # type: ignore[arg-type]

    def send(self, turn: Turn) -> Any:
        """The reply; None when the claim was lost, or refused because the run was asked to stop."""
        assert self.claim is not None
        try:
            reply = self.desk.store.turn(self.claim, turn)
        except Fenced:
            self.claim, self.open = None, {}
            return None
        if turn.then is None and reply.control is not None and not self.open:
            then: Any = End("cancelled") if reply.control == "cancel" else Park(reply.control)
            self.desk.store.turn(self.claim, Turn(then=then))
            self.claim = None
        return reply

    def obeyed(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Conflict:
            return None

    def questions(self, kind: str) -> list[Approval]:
        with tenant_scope(self.desk.tenant_id):
            return list(Approval.objects.filter(run_id=self.id(), kind=kind, status="pending"))

    def id(self) -> UUID:
        return parse_id("run", self.run_id)

    def row(self) -> Run:
        with tenant_scope(self.desk.tenant_id):
            return Run.objects.get(id=self.id())


def test_the_engine_keeps_its_promises_in_any_order(alice: Actor, bob: Actor) -> None:
    Engine.alice, Engine.bob = alice, bob
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=12,
            phases=(Phase.explicit, Phase.generate),  # each step is a dozen statements: shrinking would take minutes
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
