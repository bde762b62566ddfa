"""A claimed run as the engine holds it in memory: what it knows about the open generation, and the writer of frames.

Only the holder of the fence writes, so this picture stays true until the fence is lost; the turn's SQL checks that
(fence, frame number) and answers "stale" where two processes serve the same claim over HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, TypeVar, cast
from uuid import UUID

from django.db import models

from agentstate.core import canonical
from agentstate.core.limits import SCRATCHPAD_ENTRIES_MAX
from agentstate.crypto.hashing import Hasher
from agentstate.crypto.sealing import seal
from agentstate.db import sql
from agentstate.sdk.store import EffectClass, Entry, Failure, StepKind, StepRecord, Turn, TurnReply
from agentstate.sdk.window import SUMMARISE, noted_after
from agentstate.tenants import keyring
from agentstate.tenants.scope import scope_of, tenant_scope
from checkpoints import keys, reading, upcasting
from checkpoints.reading import Expect
from checkpoints.writing import FrameWriter
from runs import scratchpad, sealing
from runs.models import Event, Run, Step
from runs.selectors import budgets
from runs.selectors.budgets import ContextBudget
from runs.states import StepStatus

AnyModel = TypeVar("AnyModel", bound=models.Model)
CALL_FOR_SHARE = 0.6  # of the lease: a call must have left this process in the trusted part of it


def _columns_of(model: type[models.Model]) -> str:
    return ", ".join(field.column for field in model._meta.concrete_fields)


_RUN = f"SELECT {_columns_of(Run)} FROM runs_run WHERE id = %s"
# The open generation, by the key (run_id, seq).
_STEPS = f"""SELECT {_columns_of(Step)} FROM runs_step s WHERE s.run_id = %s
  AND s.generation = (SELECT r.generation FROM runs_run r WHERE r.id = s.run_id) ORDER BY s.seq"""


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
    month: bytes  # of the run: its trace stands in that month's partition
    state: Any
    base_state: Any
    steps: dict[str, KnownStep] = field(default_factory=dict)
    window: list[dict[str, Any]] = field(default_factory=list)  # of the scratchpad: the entries in force
    noted: dict[str, int] = field(default_factory=dict)  # scope of main -> entries it has written there
    entry_seq: int = 0
    worker_id: UUID | None = None
    last: tuple[Turn, TurnReply] | None = None  # a turn sent twice (its reply was lost) gets the same answer
    broken: bool = False  # a transaction failed half way: load it again
    hinted_at: float = float("-inf")  # monotonic seconds of the last live hint
    closer_until: float = float("-inf")  # monotonic seconds: so long no turn is tried as a plain one
    named: tuple[bytes, ...] = field(init=False)  # what every turn of this claim tells Postgres first
    fingerprint: Hasher = field(init=False)  # as in sealing
    lock: threading.RLock = field(default_factory=threading.RLock)
    _steps_at: str = field(init=False)
    _summaries: int = 0  # steps that no resume goes through
    _by_seq: dict[int, KnownStep] = field(default_factory=dict)
    _started: dict[str, KnownStep] = field(default_factory=dict)  # may still hold some that have ended since

    def __post_init__(self) -> None:
        times = f"{self.lease_s} s".encode(), f"{self.lease_s * CALL_FOR_SHARE} s".encode()  # as it reads an interval
        self.named = (self.tenant_id.bytes, self.run_id.bytes, b"%d" % self.fence, *times, self.month)
        self.fingerprint = keyring.hasher(self.tenant_id)
        self._steps_at = sealing.steps_of(self.tenant_id, self.run_id)

    def keep(self, known: KnownStep) -> None:
        """Know this step from now on; also to be told when a step has started again."""
        if known.name == SUMMARISE and known.identity not in self.steps:
            self._summaries += 1
        self.steps[known.identity] = self._by_seq[known.seq] = known
        if known.status == StepStatus.STARTED:
            self._started[known.identity] = known

    def forget_steps(self) -> None:
        """The generation is closed."""
        for steps in (self.steps, self._by_seq, self._started):
            steps.clear()
        self._summaries = 0

    def steps_counted(self, new: Sequence[Any]) -> int:
        """Steps that a resume has to go through; or the summaries beside them, if there are more of those."""
        summaries: int = self._summaries + sum(step.name == SUMMARISE for step in new)
        return max(summaries, len(self.steps) + len(new) - summaries)

    def by_seq(self, seq: int) -> KnownStep | None:
        return self._by_seq.get(seq)

    def document(
        self, *, state: Any, window: list[dict[str, Any]], noted: dict[str, int], pending: list[str]
    ) -> dict[str, Any]:
        """The checkpoint: agent state, scratchpad window, identities of the calls under way."""
        document = {
            "schema_version": self.writer.version,
            "state": state,
            "scratchpad": window,
            "pending": pending,
        }
        return {**document, "noted": noted} if noted else document

    def note(self, entries: Sequence[Entry]) -> None:
        """Fold entries that stand in the trace into the window."""
        self.window = scratchpad.folded(self.window, entries)
        self.noted = noted_after(self.noted, entries)

    def pending(self) -> list[str]:
        """Identities of the started steps; costs as much as there are of those, not as the generation is long."""
        started = StepStatus.STARTED
        self._started = {identity: known for identity, known in self._started.items() if known.status == started}
        return list(self._started)

    def seal_step(self, identity: str, part: str, plain: bytes) -> bytes:
        return seal(self.key, plain, aad=sealing.at_step(self._steps_at, self.generation, identity, part))

    def open_step(self, step: Step, part: str, sealed: bytes | memoryview[int] | None) -> Any:
        plain = sealing.open_step(self.key, self.tenant_id, self.run_id, step.generation, step.identity, part, sealed)
        return None if plain is None else canonical.loads(plain)


def load(run: Run, *, fence: int, lease_s: float) -> tuple[RunSession, list[StepRecord]]:
    """Rebuild the picture from Postgres. Asserts a tenant scope. Raises: Corrupt naming what does not verify."""
    key = keys.existing(run.id)
    steps = [_row_of(Step, row) for row in sql.rows(_STEPS, [run.id])]
    return _picture(run, key, steps, fence=fence, lease_s=lease_s)


def load_claimed(
    tenant_id: UUID, run_id: UUID, *, lease_s: float
) -> tuple[Run, RunSession, list[StepRecord], ContextBudget]:
    """The run's row and the picture of it, in one round trip for a run that has no frames yet. Raises: Corrupt."""
    _, runs, wrapped, found, budget = sql.together(
        scope_of(tenant_id), (_RUN, [run_id]), keys.asked(run_id), (_STEPS, [run_id]), budgets.asked(run_id)
    )
    run = _row_of(Run, runs[0])
    key, steps = keys.opened(tenant_id, run_id, wrapped), [_row_of(Step, row) for row in found]
    with tenant_scope(tenant_id) if run.frame_n or run.entry_seq else nullcontext():
        session, records = _picture(run, key, steps, fence=run.fence, lease_s=lease_s)
    return run, session, records, budgets.found(budget)


def _picture(
    run: Run, key: bytes, steps: Sequence[Step], *, fence: int, lease_s: float
) -> tuple[RunSession, list[StepRecord]]:
    """Asserts a tenant scope if the run has frames or entries."""
    expect = Expect(agent=run.agent)
    newest = reading.newest(run.tenant_id, run.id, expect, key=key) if run.frame_n else None
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
        month=run.created_at.astimezone(UTC).strftime("%Y-%m-01").encode(),
        state=document.get("state"),
        base_state=base.get("state"),
        window=list(document.get("scratchpad", [])),
        noted=dict(document.get("noted", {})),
        entry_seq=run.entry_seq,
        worker_id=run.worker_id,
    )
    newest_n = max((item["n"] for item in session.window), default=0)
    if run.entry_seq > newest_n:
        session.note(_entries_of_the_trace(session, run, after=newest_n))
    records = []
    for step in steps:
        record = _record(session, step)
        if step.outcome != "resumed":  # that failure was taken back by a person: the agent asks anew
            records.append(record)
    return session, records


def _row_of(model: type[AnyModel], row: sql.Row) -> AnyModel:
    """The object of a row of _columns_of(model), as the ORM makes it."""
    found: AnyModel = model.from_db("default", [field.attname for field in model._meta.concrete_fields], row)
    return found


def _entries_of_the_trace(session: RunSession, run: Run, *, after: int) -> list[Entry]:
    """Entries flushed at a takeover stand in no frame yet; the trace has them."""
    traced = Event.objects.filter(month=run.created_at.date().replace(day=1), run_id=run.id, kind="entry")
    newest = traced.order_by("-seq").values_list("detail", "body")[:SCRATCHPAD_ENTRIES_MAX]
    missing = [
        sealing.open_entry(session.key, session.tenant_id, run.id, detail["n"], body)
        for detail, body in reversed(newest)
        if detail and body and detail["n"] > after
    ]
    return scratchpad.entries_of(missing)


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
