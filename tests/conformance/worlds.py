"""What the suite needs beside a store: time that passes on demand, and people. One world per kind of store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from agentstate.sdk.store import RunStore
from agentstate.testing import MemoryStore

Verdict = Literal["approve", "edit", "reject", "respond"]
Settled = Literal["happened", "not_happened"]


class World(Protocol):
    """`store` holds leases of at least 5 s. Everything here is what a test does from outside of any worker."""

    store: RunStore

    def expire_lease(self, run_id: str) -> None:
        """The worker was silent for a whole lease; nobody proved its death."""

    def skip_wait(self, run_id: str) -> bool:
        """Let time pass until the run is due by itself; False when it waits for a person, or for nothing."""

    def age(self, run_id: str, seconds: float) -> None:
        """Every moment noted in the run (first sends, call_by, timers, approvals) lies further back; no lease ends."""

    def open_approval(self, run_id: str) -> str:
        """Id of the one pending question of a step (no settle question)."""

    def decide(self, approval_id: str, verdict: Verdict, *, args: Any = None, message: str = "") -> None: ...

    def settle(self, run_id: str, identity: str, verdict: Settled, *, output: Any = None) -> None: ...

    def pause(self, run_id: str) -> None: ...

    def cancel(self, run_id: str) -> None: ...

    def resume(self, run_id: str) -> None: ...


Factory = Callable[[], World]


class MemoryWorld:
    def __init__(self) -> None:
        self.store: MemoryStore = MemoryStore(lease_s=30.0)
        self.pause, self.cancel, self.resume = self.store.pause, self.store.cancel, self.store.resume
        self.expire_lease, self.skip_wait = self.store.expire_lease, self.store.skip_wait

    def age(self, run_id: str, seconds: float) -> None:
        run = self.store.runs[run_id]
        run.due_at = None if run.due_at is None else run.due_at - seconds
        for thing in [*run.rows.values(), *run.approvals]:
            for name in ("first_sent_at", "call_by", "due_at", "use_by", "expires_at"):
                if getattr(thing, name, None) is not None:
                    setattr(thing, name, getattr(thing, name) - seconds)

    def open_approval(self, run_id: str) -> str:
        (approval,) = [found for found in self.store.open_approvals(run_id) if found.kind in ("tool", "ask")]
        return approval.id

    def decide(self, approval_id: str, verdict: Verdict, *, args: Any = None, message: str = "") -> None:
        self.store.decide(approval_id, verdict, args=args, message=message)

    def settle(self, run_id: str, identity: str, verdict: Settled, *, output: Any = None) -> None:
        self.store.settle(run_id, identity, verdict, output=output)
