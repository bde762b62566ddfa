"""Rehearsing a restore: the agent replays the run from what is stored, up to the next new step, which is not called.

Nothing is written and nothing is sent: every new step is answered with "wait".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models.functions import Random

from agentstate.core.errors import Corrupt, DomainError
from agentstate.core.ids import public_id
from agentstate.sdk.agents import Agent
from agentstate.sdk.executor import Executor
from agentstate.sdk.store import (
    AgentSpec,
    Begun,
    Claim,
    End,
    Entry,
    Renewal,
    RunInfo,
    StepFinish,
    StepStart,
    Turn,
    TurnReply,
    WorkerInfo,
)
from agentstate.tenants.scope import tenant_scope
from checkpoints import reading
from checkpoints.reading import Expect
from runs import sealing
from runs.engine import ending, leases
from runs.engine import session as sessions
from runs.models import Run, Step
from runs.selectors import budgets
from runs.states import RUN_LIVE

LEASE_S = 3_600.0


@dataclass(slots=True)
class Rehearsal:
    """What came of it. `next_steps`: what the agent would begin; empty when it came to its end."""

    run_id: str
    status: str
    frames: int = 0
    hydrated: bool = False
    replayed: int = 0
    next_steps: list[str] = field(default_factory=list)
    ended: str = ""
    problems: list[str] = field(default_factory=list)


class DryStore:
    """Answers an executor from the claim alone."""

    def __init__(self) -> None:
        self.asked: list[StepStart] = []
        self.ended = ""
        self._seq = 1_000_000  # beyond every recorded step

    def turn(self, claim: Claim, turn: Turn) -> TurnReply:
        begun = [self._begun(start) for start in turn.start]
        if isinstance(turn.then, End):
            self.ended = turn.then.outcome
        return TurnReply(begun=begun, status="dry")

    def renew(self, claim: Claim) -> Renewal:
        return Renewal(LEASE_S)

    def note(self, claim: Claim, entries: Sequence[Entry]) -> None:
        """Shown to nobody."""

    def memory(self, claim: Claim, act: str, body: Any, *, step_seq: int, key: str) -> Any:
        raise AssertionError("no step is begun in a rehearsal, so none can ask memory")

    def late(self, claim: Claim, finish: StepFinish) -> None:
        raise AssertionError("nothing is called in a rehearsal, so nothing can be late")

    def register(self, agent: AgentSpec) -> None:
        """Known already."""

    def admit(self, agent: str, input: Any, **more: Any) -> RunInfo:
        raise AssertionError("a rehearsal starts no run")

    def get(self, run_id: str) -> RunInfo:
        raise AssertionError("a rehearsal reads one run only")

    def claim(
        self, worker: WorkerInfo, *, agents: Mapping[str, AgentSpec], run_id: str = "", wait_s: float = 0.0
    ) -> Claim | None:
        raise AssertionError("a rehearsal takes no lease")

    def _begun(self, start: StepStart) -> Begun:
        self._seq += 1
        if start.result is not None:
            return Begun("replay", self._seq, output=start.result.output)
        self.asked.append(start)
        return Begun("wait", self._seq)


def rehearse(tenant_id: UUID, run_id: UUID, agent: Agent | None) -> Rehearsal:
    """Verify every kept frame against its chain and the run's head; then hydrate and replay, if the agent is at hand.

    Never raises for what it finds: problems are words in the answer.
    """
    with tenant_scope(tenant_id):
        run = Run.objects.get(id=run_id)
        found = Rehearsal(run_id=public_id("run", run.id), status=run.status)
        try:
            _verify_frames(run, found)
            session, records = sessions.load(run, fence=run.fence, lease_s=LEASE_S)
            given = sealing.open_run(session.key, tenant_id, run.id, "input", run.input)
        except Corrupt as error:
            found.problems.append(error.message)
            return found
        claim = leases.claim_of(
            run,
            session,
            records,
            given=given,
            lease_s=LEASE_S,
            entries=session.window,
            reason="rehearsal",
            context_budget_tokens=budgets.context(run.id).tokens,
        )
    if agent is not None:
        _replay(agent, claim, found)
    return found


def chosen(tenant_id: UUID, *, runs_max: int, run_id: UUID | None) -> list[tuple[UUID, str]]:
    """(run, agent): the one named, or live runs first and then a random choice of the others."""
    with tenant_scope(tenant_id):
        runs = Run.objects.values_list("id", "agent")
        if run_id is not None:
            return list(runs.filter(id=run_id))
        live = list(runs.filter(status__in=sorted(RUN_LIVE)).order_by("-id")[:runs_max])
        others = runs.exclude(status__in=sorted(RUN_LIVE)).order_by(Random())
        return live + list(others[: max(0, runs_max - len(live))])


def _verify_frames(run: Run, found: Rehearsal) -> None:
    """Raises: Corrupt. The chain covers the steps that ended in each frame's turn; its head stands in the run's row."""
    last = None
    digests = _steps_digests(run)
    for frame in reading.history(run.tenant_id, run.id, Expect(agent=run.agent, steps_digest=digests.get)):
        found.frames += 1
        last = frame
    if last is None:
        if run.frame_n:
            found.problems.append(f"{run.frame_n} frames were written and none is kept (expired).")
    elif last.n != run.frame_n or last.chain != bytes(run.chain):
        found.problems.append(
            f"The newest frame is {last.n}, but the run ended its chain at {run.frame_n}: frames are gone."
        )


def _steps_digests(run: Run) -> dict[int, bytes]:
    """Frame number -> digest of the steps that ended in its turn, recomputed from the step rows."""
    lines: dict[int, list[tuple[int, bytes]]] = {n: [] for n in range(1, run.frame_n + 1)}
    ended = Step.objects.filter(run_id=run.id, status="done", end_frame__isnull=False)
    for step in ended.exclude(kind="value").only("seq", "identity", "key", "output_hash", "end_frame"):
        line = ending.step_line(step.seq, step.identity, step.key, bytes(step.output_hash or b""))
        lines.setdefault(step.end_frame or 0, []).append((step.seq, line))
    return {n: ending.digest_of([line for _, line in sorted(found)]) for n, found in lines.items()}


def _replay(agent: Agent, claim: Claim, found: Rehearsal) -> None:
    store = DryStore()
    try:
        agent.hydrated_state(claim.state)
        found.hydrated = True
        Executor(store, claim, agent).run()
    except DomainError as error:
        found.problems.append(error.message)
    except Exception as error:  # the agent's own code, at the border of our process
        found.problems.append(f"{type(error).__name__} while the agent replayed.")
    found.replayed = len(claim.history)
    found.next_steps = [start.name for start in store.asked]
    found.ended = store.ended
