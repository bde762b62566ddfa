"""Small verbs for speaking the protocol by hand."""

from __future__ import annotations

from typing import Any

from agentstate.sdk.store import (
    AgentSpec,
    Begun,
    Claim,
    Question,
    StepFinish,
    StepRecord,
    StepStart,
    ToolSpec,
    Turn,
    TurnReply,
    WorkerInfo,
)
from tests.conformance.worlds import World

WINDOW_S = 3_600.0
SETTLES_S = 60.0
ORDER = {"order": "A1", "amount": 5}
SCHEMA = {
    "type": "object",
    "properties": {"order": {"type": "string", "readOnly": True}, "amount": {"type": "integer"}},
    "required": ["order", "amount"],
    "additionalProperties": False,
}
SPEC = AgentSpec(
    name="desk",
    version="1",
    fingerprint={"main": "0" * 64},
    tools=[
        ToolSpec("refund", "destructive", schema=SCHEMA, timeout_s=1.0),
        ToolSpec("mail", "keyed", window_s=WINDOW_S, timeout_s=1.0),
        ToolSpec("book", "probed", settles_within_s=SETTLES_S, has_probe=True, timeout_s=1.0),
    ],
)
WORKER = WorkerInfo("bench", host="elsewhere", pid=1, boot_id="none", pid_start=1)
_MORE: dict[str, dict[str, Any]] = {
    "keyed": {"window_s": WINDOW_S},
    "probed": {"settles_within_s": SETTLES_S, "has_probe": True},
}


class Bench:
    """One store, as a worker's process sees it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self.store.register(SPEC)

    def admit(self, **more: Any) -> Claim:
        return self.take(self.store.admit(SPEC.name, more.pop("input", {}), **more).run_id)

    def take(self, run_id: str) -> Claim:
        claim = self.try_take(run_id)
        assert claim is not None, f"{run_id} is not free: {self.store.get(run_id)}"
        return claim

    def try_take(self, run_id: str) -> Claim | None:
        return self.store.claim(WORKER, agents={SPEC.name: SPEC}, run_id=run_id)

    def retake(self, claim: Claim) -> Claim:
        """The worker of this claim is gone, the next one comes."""
        self.world.expire_lease(claim.run_id)
        return self.take(claim.run_id)

    def take_history(self, claim: Claim) -> list[StepRecord]:
        """What the next worker would be told, by its claim."""
        return list(self.retake(claim).history)

    def turn(self, claim: Claim, **parts: Any) -> TurnReply:
        return self.store.turn(claim, Turn(**parts))

    def begin(self, claim: Claim, effect: str = "pure", **more: Any) -> Begun:
        reply = self.turn(claim, start=[step(effect, **more)])
        assert len(reply.begun) == 1, reply
        return reply.begun[0]

    def finish(self, claim: Claim, seq: int, outcome: str = "done", **more: Any) -> TurnReply:
        return self.turn(claim, finish=[StepFinish(seq, outcome, **more)])  # type: ignore[arg-type]


NAMES = {"destructive": "refund", "keyed": "mail", "probed": "book"}


def step(effect: str = "pure", **more: Any) -> StepStart:
    """A step of this class; tools have one name per class."""
    name = more.pop("name", NAMES.get(effect, "look"))
    kind = more.pop("kind", "tool" if effect in NAMES else "step")
    fields: dict[str, Any] = {"payload": ORDER, "attempt": 1, **_MORE.get(effect, {}), **more}
    return StepStart(fields.pop("identity", f"{name}#1"), name, kind=kind, effect=effect, **fields)  # type: ignore[arg-type]


def question(**more: Any) -> Question:
    return Question("Refund 5 to A1?", tool="refund", args=ORDER, schema=SCHEMA, **more)
