"""A small world on the real engine: one run in each state a page has to show, with steps as agents make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentstate.core.ids import parse_id
from agentstate.sdk.store import (
    AgentSpec,
    Begun,
    Claim,
    End,
    Entry,
    Failure,
    Park,
    Question,
    StepFinish,
    StepStart,
    ToolSpec,
    Turn,
    Usage,
)
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.engine.store import LocalStore
from runs.selectors import approvals
from runs.services import workers

REFUND: dict[str, Any] = {
    "type": "object",
    "required": ["order", "amount", "currency"],
    "additionalProperties": False,
    "properties": {
        "order": {"type": "string", "readOnly": True},
        "amount": {"type": "number", "minimum": 0, "maximum": 500},
        "currency": {"enum": ["EUR", "USD"]},
        "note": {"type": "string", "title": "Note to the customer"},
    },
}
ARGS = {"order": "4467", "amount": 180.50, "currency": "EUR", "note": "Refund for two returned lamps"}
INPUT = {
    "type": "object",
    "required": ["order"],
    "additionalProperties": False,
    "properties": {
        "order": {"type": "string", "title": "Order", "description": "Its number, as on the invoice."},
        "depth": {"type": "integer", "default": 2, "minimum": 1, "maximum": 9},
        "notify": {"type": "boolean", "default": False},
    },
}
SPEC = AgentSpec(
    name="refunds",
    version="119",
    description="Answers customers who want their money back.",
    input_schema=INPUT,
    fingerprint={"main": "a", "policy": "b"},
    tools=[
        ToolSpec(
            name="refund.create",
            effect="destructive",
            schema=REFUND,
            approve="always",
            timeout_s=2.0,
            risk="high",
            lookup_url="https://shop.example.test/ledger?key={key}",
            note="The shop keeps a ledger of refunds by key.",
        ),
        ToolSpec(name="orders.read", effect="replayable"),
        ToolSpec(name="crm.update", effect="keyed", window_s=86400.0),
    ],
)


@dataclass
class World:
    """Verbs of an executor, on one tenant."""

    actor: Actor
    claims: dict[str, Claim] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = LocalStore(self.actor, lease_s=60)
        self.store.register(SPEC)

    def admit(self, order: str, **more: Any) -> str:
        return self.store.admit("refunds", {"order": order}, **more).run_id

    def claim(self, run_id: str) -> Claim:
        claim = self.store.claim(workers.this_process(), agents={SPEC.name: SPEC}, run_id=run_id)
        assert claim is not None
        return claim

    def begin(self, claim: Claim, name: str, **more: Any) -> Begun:
        self.seqs[name] = self.seqs.get(name, 0) + 1
        start = StepStart(f"{name}#{claim.run_id}{self.seqs[name]}", name, **more)
        return self.store.turn(claim, Turn(start=[start])).begun[0]

    def step(self, claim: Claim, name: str, output: Any, **more: Any) -> int:
        """A step that is done."""
        usage = more.pop("usage", None)
        begun = self.begin(claim, name, **more)
        self.store.turn(claim, Turn(finish=[StepFinish(begun.seq, output=output, usage=usage)]))
        return begun.seq

    def preface(self, claim: Claim) -> None:
        """What every run of this agent does first."""
        note = Entry(claim.entry_next, "reasoning", "The customer returned two of three lamps.", important=True)
        usage = Usage("gpt-test", 1204, 96, 0.003)
        begun = self.begin(claim, "plan", kind="model", payload={"prompt": "Refund?"})
        finish = StepFinish(begun.seq, output={"text": "look it up"}, usage=usage)
        self.store.turn(claim, Turn(finish=[finish], entries=[note], state={"order": "4467", "seen": ["invoice"]}))
        self.step(claim, "orders.read", {"id": "4467", "paid": True}, kind="tool", effect="replayable")

    def done(self, order: str, **more: Any) -> str:
        run_id = self.admit(order, **more)
        claim = self.claim(run_id)
        self.preface(claim)
        self.step(claim, "crm.update", {"ok": True}, kind="tool", effect="keyed", window_s=86400.0, payload={"u": 1})
        self.store.turn(claim, Turn(then=End("succeeded", output={"refunded": 180.5})))
        return run_id

    def running(self, order: str, **more: Any) -> str:
        run_id = self.admit(order, **more)
        claim = self.claims[run_id] = self.claim(run_id)
        self.preface(claim)
        self.begin(claim, "gather evidence", kind="group")
        return run_id

    def asking(self, order: str = "4467", *, risk: Any = "high", args: Any = None, **more: Any) -> tuple[str, str]:
        """A run that waits for an approval: (run, approval)."""
        run_id = self.admit(order)
        claim = self.claim(run_id)
        self.preface(claim)
        args = args or {**ARGS, "order": order}
        question = Question(
            title=f"Refund €{args.get('amount')} to the customer of order {order}?",
            tool="refund.create",
            args=args,
            schema=more.pop("schema", REFUND),
            reason=more.pop("reason", "Customer returned two of three lamps. Policy allows a refund without a call."),
            evidence=(1, 2),
            risk=risk,
            **more,
        )
        start = StepStart(f"refund#{order}", "refund.create", "tool", "destructive", payload=args, question=question)
        self.store.turn(claim, Turn(start=[start], then=Park("approval")))
        return run_id, self.question(run_id)

    def asking_freely(self) -> tuple[str, str]:
        run_id = self.admit("free")
        claim = self.claim(run_id)
        schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
        question = Question(title="Which colour shall the new lamp have?", schema=schema, reason="They did not say.")
        self.store.turn(
            claim, Turn(start=[StepStart("ask#1", "colour", "ask", question=question)], then=Park("approval"))
        )
        return run_id, self.question(run_id)

    def in_doubt(self, order: str = "5523") -> tuple[str, int]:
        """A destructive call whose answer was lost: (run, step)."""
        run_id = self.admit(order)
        claim = self.claim(run_id)
        self.preface(claim)
        begun = self.begin(
            claim, "refund.create", kind="tool", effect="destructive", payload={**ARGS, "order": order}, timeout_s=0.0
        )
        failure = Failure("ReadError", "connection reset while reading the answer")
        self.store.turn(claim, Turn(finish=[StepFinish(begun.seq, "unknown", failure=failure)]))
        self.store.turn(claim, Turn(then=Park("in_doubt")))
        return run_id, begun.seq

    def failed(self, order: str = "4411") -> str:
        run_id = self.admit(order, external_id=f"ticket-{order}", tags=["vip"])
        claim = self.claim(run_id)
        self.preface(claim)
        begun = self.begin(
            claim, "crm.update", kind="tool", effect="keyed", window_s=86400.0, payload={"user": "u_209"}
        )
        failure = Failure("PoolTimeout", "no free connection to the CRM within 10 s")
        self.store.turn(claim, Turn(finish=[StepFinish(begun.seq, "not_sent", failure=failure)]))
        self.store.turn(claim, Turn(then=End("failed", failure=failure)))
        return run_id

    def question(self, run_id: str) -> str:
        with tenant_scope(self.store.tenant_id):
            return approvals.of_run(parse_id("run", run_id))[-1].public_id
