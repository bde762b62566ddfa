"""Leases: taking a run, keeping it, and taking it over from a worker that is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any, Literal, NamedTuple, cast
from uuid import UUID

from agentstate.core import canonical
from agentstate.core.errors import Fenced
from agentstate.core.failpoints import hit, register
from agentstate.core.ids import public_id
from agentstate.core.limits import CLAIMS_WITHOUT_PROGRESS_MAX
from agentstate.db import sql, wake
from agentstate.sdk.lease import RENEWALS_PER_LEASE
from agentstate.sdk.store import AgentSpec, Claim, Control, Failure, StepRecord
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys
from runs import scratchpad, sealing
from runs.engine import acts, doubts, going_on, renewing
from runs.engine import session as sessions
from runs.engine.session import RunSession
from runs.models import AgentVersion, Run, Step, Stop, Worker
from runs.services import clock, control, registry, status, timers, workers
from runs.states import RunStatus, StepStatus

Mode = Literal["replay", "snapshot"]

register("claim.committed", "the lease / loading the run")
register("claim.read", "the run read, a takeover noted / its scratchpad in Redis")
register("claim.loaded", "the run loaded / handing it to the executor")

CLAIM_SQL = (
    "SELECT runs_claim(%s::uuid, %s::uuid, %s::uuid, %s::text[], %s::uuid[], %s::int, %s::float8)"  # see sql/claim.sql
)
# A claim that was lost before it was handed out was no try of the agent's code. The primary key.
NO_TRY = "UPDATE runs_run SET claims = claims - 1 WHERE id = %s AND claims > 0 AND status IN ('queued', 'running')"
LOOK_CLOSER = 0
FIRST_FENCE = 1
PATIENCE = (1, 2, 4, 8)  # leases that the claim after so many without a turn gets: the last may have been too short


class Taken(NamedTuple):
    """What became of a try to take a run."""

    fence: int  # 0: not taken
    over: bool = False  # from a worker that is gone


NOT_TAKEN = Taken(0)


def claim(
    run_id: UUID,
    *,
    tenant_id: UUID,
    worker: Worker,
    agents: Mapping[str, AgentSpec],
    lease_s: float,
    actor: Actor,
) -> tuple[Claim, RunSession] | None:
    """Take the lease of this run if it is free to take; None else.

    The attempt is counted before anything of the run is loaded, so a run that kills its worker is quarantined; one that
    we live to see lost before it is handed out counts no more. The fence grows with every claim. Locks: run.
    """
    asked_at = monotonic()
    taken = _take_plainly(run_id, tenant_id=tenant_id, worker=worker, agents=agents, lease_s=lease_s)
    if taken is None:
        with tenant_scope(tenant_id, durable=True):
            taken = _look_closer(run_id, worker=worker, agents=agents, lease_s=lease_s, actor=actor)
    if not taken.fence:
        return None
    hit("claim.committed")
    run, session, records, budget = sessions.load_claimed(tenant_id, run_id, lease_s=lease_s)
    if run.fence != taken.fence:  # our lease ended meanwhile, and somebody else has the run
        _take_back_try(tenant_id, run_id)
        return None
    if taken.over:
        _report_lost_effects(session)
    given = sealing.open_run(session.key, tenant_id, run.id, "input", run.input)
    if run.fence > FIRST_FENCE:  # nobody has shown anything in a run that nobody had
        _flush(run, session)
    hit("claim.read")
    if run.fence > FIRST_FENCE:
        scratchpad.rebuild(session)
    hit("claim.loaded")
    if not _is_in_time(session, asked_at):
        _take_back_try(tenant_id, run_id)
        return None
    reason = "recovery" if taken.over else run.wake_reason
    claimed = claim_of(
        run,
        session,
        records,
        given=given,
        lease_s=lease_s,
        entries=session.window,
        reason=reason,
        context_budget_tokens=budget.tokens,
    )
    return claimed, session


def _take_plainly(
    run_id: UUID, *, tenant_id: UUID, worker: Worker, agents: Mapping[str, AgentSpec], lease_s: float
) -> Taken | None:
    """By the one SQL call that takes a run of which nothing but its turn has to be said; None: look closer."""
    versions = [registry.known(tenant_id, spec) for spec in agents.values()]
    known = [version and version.id for version in versions]
    args = [tenant_id, run_id, worker.id, list(agents), known, CLAIMS_WITHOUT_PROGRESS_MAX, lease_s]
    found = sql.row(CLAIM_SQL, args)
    fence = found[0] if found else None
    if fence:
        wake.live(tenant_id, run_id)
    return None if fence == LOOK_CLOSER else Taken(fence or 0)


def _look_closer(
    run_id: UUID, *, worker: Worker, agents: Mapping[str, AgentSpec], lease_s: float, actor: Actor
) -> Taken:
    """Asserts a tenant scope. Locks: run."""
    timers.fire(run_id, actor=actor)
    run = _lock_free(run_id)
    if run is None or run.agent not in agents or _is_stopped(run):
        return NOT_TAKEN
    worker = workers.again(worker)
    if not _may_go_on(run, agents[run.agent], worker=worker):
        return NOT_TAKEN
    over = run.status == RunStatus.RUNNING
    _take(run, worker=worker, lease_s=lease_s)
    return Taken(run.fence, over)


def _is_in_time(session: RunSession, asked_at: float) -> bool:
    """Whether the lease holds for whoever gets the claim; one that took long to load is renewed first."""
    if monotonic() - asked_at < session.lease_s / RENEWALS_PER_LEASE:
        return True
    try:
        renewing.renew(session.tenant_id, session.run_id, fence=session.fence, lease_s=session.lease_s)
    except Fenced:
        return False
    return True


def _take_back_try(tenant_id: UUID, run_id: UUID) -> None:
    with tenant_scope(tenant_id):
        sql.execute(NO_TRY, [run_id])


def _flush(run: Run, session: RunSession) -> None:
    """Entries that the last worker had shown but not yet made durable go into the trace first. Locks: run."""
    late = scratchpad.unflushed(session)
    if not late:
        return
    with tenant_scope(session.tenant_id):
        locked = control.locked(run.id)
        if locked.fence != session.fence:
            return
        for item in late:
            plain = canonical.dumps(item)
            sealed = sealing.seal_entry(session.key, session.tenant_id, run.id, item["n"], plain)
            locked.event_seq += 1
            status.add_event(locked, "entry", {"n": item["n"]}, body=sealed, tokens=item["tokens"])
        locked.entry_seq = session.entry_seq = late[-1]["n"]
        locked.save(update_fields=["event_seq", "entry_seq"])
    session.note(scratchpad.entries_of(late))


def claim_of(
    run: Run,
    session: RunSession,
    records: Sequence[StepRecord],
    *,
    given: Any,
    lease_s: float,
    entries: list[dict[str, Any]],
    reason: str,
    context_budget_tokens: int,
) -> Claim:
    """What an executor is told about a run."""
    return Claim(
        run_id=public_id("run", run.id),
        agent=run.agent,
        fence=run.fence,
        lease_s=lease_s,
        mode=cast(Mode, run.mode),
        input=given,
        state=session.state,
        base_state=session.base_state,
        generation=run.generation,
        history=tuple(records),
        entries=tuple(scratchpad.entries_of(entries)),
        entry_next=session.entry_seq + 1,
        noted=session.noted,
        context_budget_tokens=context_budget_tokens,
        trace_id=run.trace_id,
        session=run.session_key,
        attempt=run.attempt,
        reason=reason,
        control=cast(Control | None, run.control or None),
    )


def _lock_free(run_id: UUID) -> Run | None:
    """The run, locked, when it is queued and due, or its holder is gone; None when it is not free or is being taken."""
    run = (
        Run.objects.select_for_update(no_key=True, skip_locked=True)
        .filter(id=run_id, held=False)
        .defer("input", "output")
        .first()
    )
    if run is None:
        return None
    if run.status == RunStatus.QUEUED:
        return run if run.due_at is None or run.due_at <= clock.database_now() else None
    return run if run.status == RunStatus.RUNNING and is_lost(run) else None


def is_lost(run: Run) -> bool:
    """Whether a running one may be taken from its worker: its lease has ended, or the worker is gone."""
    lapsed = run.lease_until is None or run.lease_until <= clock.database_now()
    return lapsed or _holder_is_gone(run)


def _holder_is_gone(run: Run) -> bool:
    """Before the lease ends only proof of death counts, or, where a repeat is harmless, the loss of its connection."""
    holder = Worker.objects.filter(id=run.worker_id).first() if run.worker_id else None
    if holder is None or holder.dead_at is None:
        return False
    if holder.dead_proof:
        return True
    risky = Step.objects.filter(run_id=run.id, status=StepStatus.STARTED, effect__in=("probed", "destructive"))
    return not risky.exists()


def _is_stopped(run: Run) -> bool:
    return Stop.objects.filter(status="active", agent__in=("", run.agent)).exists()


def _may_go_on(run: Run, spec: AgentSpec, *, worker: Worker) -> bool:
    """Poison, a requested end, changed code: each ends or pauses the run instead of handing it out."""
    actor = acts.worker(worker.id)
    if run.control == "cancel":
        _doubt_lost_effects(run)
        control.end_cancelled(run, actor=actor, reason="cancel was requested and its worker is gone")
        return False
    if run.control == "pause":
        status.move(run, to=RunStatus.PAUSED, actor=actor, changes={"control": "", "due_at": None, "lease_until": None})
        return False
    if run.claims >= CLAIMS_WITHOUT_PROGRESS_MAX:
        _quarantine(run, actor=actor)
        return False
    return _code_is_the_same(run, spec, actor=actor)


def _quarantine(run: Run, *, actor: Actor) -> None:
    text = f"{run.claims} workers in turn took this run and were gone before its first step ended."
    failure = going_on.failure_columns(keys.existing(run.id), run, Failure("Poison", text))
    changes = {**failure, "ended_at": clock.database_now(), "lease_until": None, "due_at": None}
    status.move(run, to=RunStatus.FAILED, actor=actor, changes=changes, reason=text)


def _code_is_the_same(run: Run, spec: AgentSpec, *, actor: Actor) -> bool:
    """The first claim writes down the code; another one later stops the run and names the difference."""
    version = registry.register(spec)
    if run.version_id in (None, version.id):
        run.version = version
        return True
    before = AgentVersion.objects.get(id=run.version_id)
    if before.fingerprint == version.fingerprint or spec.on_code_change == "continue" or run.step_seq == 0:
        run.version = version
        return True
    difference = registry.difference(before.fingerprint, version.fingerprint)
    words = "; ".join(f"{how}: {', '.join(names)}" for how, names in difference.items() if names)
    changes = {"waiting_for": "code", "due_at": None, "lease_until": None}
    status.move(run, to=RunStatus.PAUSED, actor=actor, changes=changes, reason=f"The agent's code changed ({words}).")
    return False


def _take(run: Run, *, worker: Worker, lease_s: float) -> None:
    now = clock.database_now()
    was = run.worker_id if run.status == RunStatus.RUNNING else None
    status.move(
        run,
        to=RunStatus.RUNNING,
        actor=acts.worker(worker.id),
        reason="" if was is None else "its worker is gone",
        changes={
            "fence": run.fence + 1,
            "worker": worker,
            "lease_until": now + timedelta(seconds=lease_s * PATIENCE[min(run.claims, len(PATIENCE) - 1)]),
            "claims": run.claims + 1,
            "attempt": run.attempt + 1,
            "started_at": run.started_at or now,
            "version": run.version,
            "waiting_for": "",
            "due_at": None,
        },
    )


def _report_lost_effects(session: RunSession) -> None:
    """What the lost worker had begun is judged when the agent asks for it; here the takeover only counts."""
    lost = [known.seq for known in session.steps.values() if known.status == StepStatus.STARTED and known.key]
    if not lost:
        return
    with tenant_scope(session.tenant_id):
        run = control.locked(session.run_id)
        if run.fence != session.fence:
            return
        run.event_seq += 1
        run.save(update_fields=["event_seq"])
        status.add_event(run, "takeover", {"fence": session.fence, "lost": lost})


def _doubt_lost_effects(run: Run) -> None:
    """A cancelled run asks no more: effects that its lost worker had begun are in doubt now."""
    lost = Step.objects.filter(run_id=run.id, status=StepStatus.STARTED, key__isnull=False)
    if not lost.exists():
        return
    session, _ = sessions.load(run, fence=run.fence, lease_s=0.0)
    for step in lost.select_for_update():
        doubts.open_doubt(session, run, step, why="the run was cancelled and its worker lost before it reported")
