"""A claimed run as the engine holds it in memory: what it knows about the open generation, and the writer of frames.

Only the holder of the fence writes, so this picture stays true until the fence is lost; the turn's SQL checks that
(fence, frame number) and answers "stale" where two processes serve the same claim over HTTP.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from agentstate.core import canonical
from agentstate.sdk.store import EffectClass, Entry, Failure, StepKind, StepRecord, Turn, TurnReply
from checkpoints import keys, reading, upcasting
from checkpoints.reading import Expect
from checkpoints.writing import FrameWriter
from runs import sealing
from runs.models import Event, Run, Step
from runs.states import StepStatus

WINDOW_ENTRIES = 64  # scratchpad entries that ride in each frame; older ones stand in the trace


@dataclass(slots=True)
class KnownStep:
    """What a turn needs to know of a recorded step without asking the database."""

    seq: int
    identity: str
    name: str
    effect: str
    status: str
    fence: int
    attempt: int
    payload_sha: str
    key: str | None = None
    output_hash: bytes | None = None


@dataclass(slots=True)
class RunSession:
    tenant_id: UUID
    run_id: UUID
    fence: int
    lease_s: float
    agent: str
    key: bytes
    writer: FrameWriter
    generation: int
    step_seq: int
    state: Any
    base_state: Any
    steps: dict[str, KnownStep] = field(default_factory=dict)
    window: list[dict[str, Any]] = field(default_factory=list)
    entry_seq: int = 0
    worker_id: UUID | None = None
    last: tuple[Turn, TurnReply] | None = None  # a turn sent twice (its reply was lost) gets the same answer
    broken: bool = False  # a transaction failed half way: load it again
    hinted_at: float = float("-inf")  # monotonic seconds of the last live hint
    lock: threading.RLock = field(default_factory=threading.RLock)
    _by_seq: dict[int, KnownStep] = field(default_factory=dict)
    _started: dict[str, KnownStep] = field(default_factory=dict)  # may still hold some that have ended since

    def keep(self, known: KnownStep) -> None:
        """Know this step from now on; also to be told when a step has started again."""
        self.steps[known.identity] = self._by_seq[known.seq] = known
        if known.status == StepStatus.STARTED:
            self._started[known.identity] = known

    def forget_steps(self) -> None:
        """The generation is closed."""
        for steps in (self.steps, self._by_seq, self._started):
            steps.clear()

    def by_seq(self, seq: int) -> KnownStep | None:
        return self._by_seq.get(seq)

    def document(self, *, state: Any, window: list[dict[str, Any]], pending: list[str]) -> dict[str, Any]:
        """The checkpoint: agent state, scratchpad window, identities of the calls under way."""
        return {
            "schema_version": self.writer.version,
            "state": state,
            "scratchpad": window,
            "pending": pending,
        }

    def pending(self) -> list[str]:
        """Identities of the started steps; costs as much as there are of those, not as the generation is long."""
        started = StepStatus.STARTED
        self._started = {identity: known for identity, known in self._started.items() if known.status == started}
        return list(self._started)

    def seal_step(self, identity: str, part: str, plain: bytes) -> bytes:
        return sealing.seal_step(self.key, self.tenant_id, self.run_id, self.generation, identity, part, plain)

    def open_step(self, step: Step, part: str, sealed: bytes | memoryview[int] | None) -> Any:
        plain = sealing.open_step(self.key, self.tenant_id, self.run_id, step.generation, step.identity, part, sealed)
        return None if plain is None else canonical.loads(plain)


def load(run: Run, *, fence: int, lease_s: float) -> tuple[RunSession, list[StepRecord]]:
    """Rebuild the picture from Postgres. Asserts a tenant scope. Raises: Corrupt naming what does not verify."""
    key = keys.existing(run.id)
    expect = Expect(agent=run.agent)
    newest = reading.newest(run.tenant_id, run.id, expect)
    document = newest.doc if newest else {}
    base = reading.load(run.tenant_id, run.id, run.generation_frame, expect).doc if run.generation_frame else {}
    session = RunSession(
        tenant_id=run.tenant_id,
        run_id=run.id,
        fence=fence,
        lease_s=lease_s,
        agent=run.agent,
        key=key,
        writer=FrameWriter(run.tenant_id, run.id, key, newest, schema_version=upcasting.current_version(run.agent)),
        generation=run.generation,
        step_seq=run.step_seq,
        state=document.get("state"),
        base_state=base.get("state"),
        window=list(document.get("scratchpad", [])),
        entry_seq=run.entry_seq,
        worker_id=run.worker_id,
    )
    if run.entry_seq > (session.window[-1]["n"] if session.window else 0):
        session.window = _with_entries_of_the_trace(session, run)
    records = []
    for step in Step.objects.filter(run_id=run.id, generation=run.generation).order_by("seq"):
        record = _record(session, step)
        if step.outcome != "resumed":  # that failure was taken back by a person: the agent asks anew
            records.append(record)
    return session, records


def _with_entries_of_the_trace(session: RunSession, run: Run) -> list[dict[str, Any]]:
    """Entries flushed at a takeover stand in no frame yet; the trace has them."""
    known = {item["n"] for item in session.window}
    traced = Event.objects.filter(month=run.created_at.date().replace(day=1), run_id=run.id, kind="entry")
    newest = traced.order_by("-seq").values_list("detail", "body")[:WINDOW_ENTRIES]
    missing = [
        sealing.open_entry(session.key, session.tenant_id, run.id, detail["n"], body)
        for detail, body in reversed(newest)
        if detail and body and detail["n"] not in known
    ]
    return [*session.window, *missing][-WINDOW_ENTRIES:]


def _record(session: RunSession, step: Step) -> StepRecord:
    plain = sealing.open_step(
        session.key, session.tenant_id, session.run_id, step.generation, step.identity, "input", step.input
    )
    assert plain is not None
    remember(session, step, payload_sha=canonical.sha(plain).hex())
    return StepRecord(
        seq=step.seq,
        identity=step.identity,
        name=step.name,
        kind=cast(StepKind, step.kind),
        effect=cast(EffectClass, step.effect),
        status=step.status,
        payload_sha=session.steps[step.identity].payload_sha,
        output=session.open_step(step, "output", step.output),
        failure=failure_of(session, step),
        attempt=step.attempt,
        retry=step.retry,
    )


def remember(session: RunSession, step: Step, *, payload_sha: str) -> KnownStep:
    known = KnownStep(
        seq=step.seq,
        identity=step.identity,
        name=step.name,
        effect=step.effect,
        status=step.status,
        fence=step.fence,
        attempt=step.attempt,
        payload_sha=payload_sha,
        key=step.key,
        output_hash=None if step.output_hash is None else bytes(step.output_hash),
    )
    session.keep(known)
    return known


def failure_of(session: RunSession, step: Step) -> Failure | None:
    error = session.open_step(step, "error", step.error)
    return None if error is None else Failure(**error)


def entries_of(window: list[dict[str, Any]]) -> list[Entry]:
    return [
        Entry(
            n=item["n"],
            kind=item["kind"],
            text=item["text"],
            important=item.get("important", False),
            step_seq=item.get("step_seq"),
            tokens=item.get("tokens", 0),
        )
        for item in window
    ]
