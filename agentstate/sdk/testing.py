"""For tests of agents: a store in memory, runs driven in this process, crashes on purpose.

store = MemoryStore()
info = run_agent(main, {"q": "x"}, store=store)         # to the end, or to the first wait for a person
store.decide(store.open_approvals()[0].id, "approve")
info = run_agent(main, run_id=info.run_id, store=store)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from agentstate.sdk.agents import Agent
from agentstate.sdk.executor import Driven
from agentstate.sdk.in_memory import MemoryStore
from agentstate.sdk.in_memory_run import Run
from agentstate.sdk.judgement import Approval, Row
from agentstate.sdk.store import (
    AgentSpec,
    Claim,
    Entry,
    Renewal,
    RunInfo,
    RunStore,
    StepFinish,
    Turn,
    TurnReply,
    WorkerInfo,
)
from agentstate.sdk.values import settled
from agentstate.sdk.worker import Hosted, serve_one

__all__ = [
    "Approval",
    "Crashing",
    "Killed",
    "MemoryStore",
    "Row",
    "Run",
    "drive_once",
    "run_agent",
]

WORKER = WorkerInfo("test", host="test", pid=1, boot_id="test", pid_start=1)
DRIVES_MAX = 10_000


class Killed(BaseException):
    """The process is gone: raised through everything, and nothing is written after it."""


class Crashing:
    """A RunStore whose process is killed at the `at`-th turn (from 1): before it is sent, or after it is committed.

    From then on every call raises Killed, as nothing comes from a dead process any more; `revive` is a new process.
    """

    def __init__(self, store: Any, *, at: int, when: Literal["before", "after"] = "before") -> None:
        self.store = store
        self.at, self.when = at, when
        self.turns = 0
        self.dead = False
        self._lock = threading.Lock()

    def revive(self) -> None:
        self.dead = False

    def turn(self, claim: Claim, turn: Turn) -> TurnReply:
        reply: TurnReply = self._sent(lambda: self.store.turn(claim, turn))
        return reply

    def register(self, agent: AgentSpec) -> None:
        self.store.register(agent)

    def admit(self, agent: str, input: Any, **options: Any) -> RunInfo:
        found: RunInfo = self.store.admit(agent, input, **options)
        return found

    def get(self, run_id: str) -> RunInfo:
        found: RunInfo = self.store.get(run_id)
        return found

    def claim(
        self, worker: WorkerInfo, *, agents: Mapping[str, AgentSpec], run_id: str = "", wait_s: float = 0.0
    ) -> Claim | None:
        self._live()
        found: Claim | None = self.store.claim(worker, agents=agents, run_id=run_id, wait_s=wait_s)
        return found

    def renew(self, claim: Claim) -> Renewal:
        self._live()
        found: Renewal = self.store.renew(claim)
        return found

    def note(self, claim: Claim, entries: Sequence[Entry]) -> None:
        self._live()
        self.store.note(claim, entries)

    def memory(self, claim: Claim, act: str, body: Any, *, step_seq: int, key: str) -> Any:
        """Counts as a turn: between it and the next one a process may die as well."""
        return self._sent(lambda: self.store.memory(claim, act, body, step_seq=step_seq, key=key))

    def late(self, claim: Claim, finish: StepFinish) -> None:
        self._live()
        self.store.late(claim, finish)

    def _sent(self, send: Callable[[], Any]) -> Any:
        self._live()
        with self._lock:
            self.turns += 1
            is_last = self.turns == self.at
        if is_last and self.when == "before":
            self._die()
        reply = send()
        if is_last:
            self._die()
        return reply

    def _die(self) -> None:
        self.dead = True
        raise Killed

    def _live(self) -> None:
        if self.dead:
            raise Killed


def drive_once(agent: Agent, run_id: str, *, store: RunStore, **options: Any) -> Driven | None:
    """Claim this run and drive it until it ends or gives the run back. None: it is not due.

    `options` are the executor's. Raises: Killed, of a Crashing store or of the agent's own code.
    """
    options.setdefault("on_stuck", _stay)
    return serve_one(store, Hosted.of((agent,)), info=WORKER, run_id=run_id, **options)


def run_agent(
    agent: Agent,
    input: Any = None,
    *,
    store: RunStore,
    run_id: str = "",
    external_id: str = "",
    suspend_always: bool = False,
    controls: Any = None,
    **options: Any,
) -> RunInfo:
    """Drive a new run, or `run_id`, in this process until it ends or waits for somebody.

    Time is not waited for: `controls.skip_wait(run_id)` moves it to the next timer or retry, and says whether there was
    one. A process killed by a Crashing store, or by raising Killed in a step, is followed by a new one after
    `controls.expire_lease(run_id)`. A MemoryStore has both; pass `controls` for another store.
    """
    controls = controls or getattr(store, "store", store)
    if not run_id:
        store.register(agent.spec())
        run_id = store.admit(agent.name, settled(input), external_id=external_id).run_id
    for _ in range(DRIVES_MAX):
        try:
            driven = drive_once(agent, run_id, store=store, suspend_always=suspend_always, **options)
        except Killed:
            if isinstance(store, Crashing):
                store.revive()
            controls.expire_lease(run_id)
            continue
        if driven is None and not controls.skip_wait(run_id):
            return store.get(run_id)
    raise AssertionError(f"{run_id} was driven {DRIVES_MAX} times and goes on; does it wait for itself?")


def _stay() -> None:
    """Tests live on after a stuck call; its result is not used."""
