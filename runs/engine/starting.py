"""Beginning steps: new ones for the turn's SQL call, and, beside it, recorded ones, questions and further attempts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agentstate.core import canonical
from agentstate.core.errors import Invalid, NonDeterminism
from agentstate.core.ids import public_id
from agentstate.core.limits import IDENTITY_CHARS_MAX, NAME_CHARS_MAX
from agentstate.sdk.store import Begun, Question, StepStart
from runs import sealing
from runs.engine import acts, doubts, judgement
from runs.engine.session import CALL_FOR_SHARE, KnownStep, RunSession, failure_of
from runs.models import Approval, Run, Step, StepAttempt
from runs.services import approvals, clock, proofs, waiting_times
from runs.states import ApprovalStatus, StepStatus

EFFECTS = frozenset({"keyed", "probed", "destructive"})
KINDS = frozenset({"step", "tool", "model", "ask", "timer", "value", "group", "memory", "summary"})
CLASSES = frozenset({"pure", "replayable"}) | EFFECTS


@dataclass(slots=True)
class NewStep:
    """A step that is not recorded yet, with all that its row needs but the number."""

    position: int
    identity: str
    name: str
    kind: str
    effect: str
    status: str
    parent_seq: int | None
    payload: Any
    plain: bytes
    sha: str
    key: str | None
    call_for_s: float
    start: StepStart
    output: bytes | None = None
    output_hash: bytes | None = None
    question: Question | None = None


def prepare(session: RunSession, start: StepStart, *, position: int) -> NewStep:
    """Raises: Invalid, TooLarge."""
    _check_names(start)
    plain = sealing.canonical_payload(start.payload, what="payload")
    output = output_hash = None
    if start.result is not None:
        output = sealing.canonical_payload(start.result.output, what="output")
        output_hash = session.fingerprint(output)
    parent = session.steps.get(start.parent) if start.parent else None
    return NewStep(
        position=position,
        identity=start.identity,
        name=start.name,
        kind=start.kind,
        effect=start.effect,
        status=_first_status(start),
        parent_seq=parent.seq if parent else None,
        payload=start.payload,
        plain=plain,
        sha=canonical.sha(plain).hex(),
        key=effect_key(session, start, payload=start.payload) if start.effect in EFFECTS else None,
        call_for_s=session.lease_s * CALL_FOR_SHARE,
        start=start,
        output=output,
        output_hash=output_hash,
        question=start.question,
    )


def _check_names(start: StepStart) -> None:
    if not start.name or len(start.name) > NAME_CHARS_MAX:
        raise Invalid(f"A step's name has 1 to {NAME_CHARS_MAX} characters.", field="/start/name")
    if not start.identity or len(start.identity) > IDENTITY_CHARS_MAX:
        raise Invalid(
            f"The identity of step {start.name[:40]} has {len(start.identity):,} characters; nest less deep or use "
            f"shorter names and keys (at most {IDENTITY_CHARS_MAX:,}).",
            field="/start/identity",
        )
    if start.kind not in KINDS:
        raise Invalid(f"{start.kind!r} is no kind of step: use one of {', '.join(sorted(KINDS))}.", field="/start/kind")
    if start.effect not in CLASSES:
        raise Invalid(
            f"{start.effect!r} is no effect class: use one of {', '.join(sorted(CLASSES))}.", field="/start/effect"
        )
    if start.result is not None and start.effect in EFFECTS:
        raise Invalid("An effect is recorded before it is called, never only after.", field="/start/result")
    canonical.check_text(start.identity, where="/start/identity")
    canonical.check_text(start.name, where="/start/name")


def _first_status(start: StepStart) -> str:
    if start.result is not None:
        return StepStatus.DONE
    return StepStatus.WAITING if start.question or start.kind == "timer" else StepStatus.STARTED


def effect_key(
    session: RunSession, start: StepStart, *, payload: Any, retry: int = 0, edit_version: int = 0, branch: int = 0
) -> str:
    """The idempotency key: computed once per retry, frozen in the row, sent as Idempotency-Key."""
    identity = f"{session.generation}/{start.identity}"
    parts = [session.tenant_id, session.run_id, identity, branch, edit_version, retry, start.name, payload]
    return hashlib.sha256(canonical.dumps(parts)).hexdigest()


def check_same(known: KnownStep, start: StepStart) -> None:
    """Raises: NonDeterminism when the recorded step of this identity was another one."""
    plain = sealing.canonical_payload(start.payload, what="payload")
    if known.payload_sha != canonical.sha(plain).hex():
        raise NonDeterminism(
            f"Step {known.seq} {known.name} ({known.identity}) was recorded with another payload. Whatever an agent "
            "reads from outside must be a step; if the code changed on purpose, fork the run.",
            field="/start/payload",
            step=known.seq,
        )
    if known.effect != start.effect:
        raise NonDeterminism(
            f"Step {known.seq} {known.name} was recorded as {known.effect}, not {start.effect}.",
            field="/start/effect",
            step=known.seq,
        )


def texts_of(step: NewStep) -> tuple[bytes, ...]:
    """A row of p_begun of runs_turn."""
    return step.identity.encode(), step.name.encode(), step.kind.encode(), step.effect.encode(), step.status.encode()


def bodies_of(session: RunSession, step: NewStep) -> tuple[bytes | None, ...]:
    """A row of p_inputs of runs_turn."""
    output = None if step.output is None else session.seal_step(step.identity, "output", step.output)
    sealed = session.seal_step(step.identity, "input", step.plain)
    return session.fingerprint(step.plain), sealed, output, step.output_hash


def options_json(step: NewStep) -> dict[str, Any]:
    """What few steps have; absent keys are NULL in the row."""
    start = step.start
    optional = {
        "parent": step.parent_seq,
        "key": step.key,
        "timeout": start.timeout_s,
        "win": start.window_s,
        "settles": start.settles_within_s,
        "probe": start.has_probe or None,
        "due": start.due_s,
    }
    return {name: value for name, value in optional.items() if value is not None}


def effect_act(step: NewStep | KnownStep, to: str) -> dict[str, Any]:
    """The audit entry of an effect, on the chain of its run."""
    detail: dict[str, Any] = {"tool": step.name, "class": step.effect, "key": step.key}
    act = {"action": f"effect.{to}", "was": "claimed" if to == "settled" else "", "now": to, "detail": detail}
    if isinstance(step, KnownStep):
        detail["seq"] = step.seq
    else:
        act["begun"] = step.identity  # it gets its number in the database
    return act


def remember(session: RunSession, step: NewStep, *, seq: int) -> KnownStep:
    known = KnownStep(
        seq=seq,
        identity=step.identity,
        name=step.name,
        effect=step.effect,
        status=step.status,
        fence=session.fence,
        attempt=1,
        payload_sha=step.sha,
        key=step.key,
        output_hash=step.output_hash,
    )
    session.keep(known)
    return known


def begun(step: NewStep, known: KnownStep, session: RunSession) -> Begun:
    if step.status == StepStatus.DONE:
        return Begun("replay", known.seq, output=canonical.loads(step.output or b"null"))
    if step.status == StepStatus.WAITING:  # a question's answer is filled in by ask()
        return Begun("wait", known.seq, wait_s=step.start.due_s)
    return Begun("execute", known.seq, key=step.key or "", call_for_s=step.call_for_s)


def ask(session: RunSession, run: Run, step: NewStep) -> Begun:
    """Put the question of a new waiting step before people. Asserts a tenant scope and the run's lock."""
    assert step.question is not None
    known = session.steps[step.identity]
    approval = approvals.request(
        run, step_seq=known.seq, kind="tool" if step.question.tool else "ask", question=step.question, key=session.key
    )
    return Begun("wait", known.seq, approval_id=public_id("apr", approval.id))


def begin_again(session: RunSession, run: Run, start: StepStart) -> Begun:
    """Rule on a recorded step and act on the ruling. Asserts a tenant scope. Locks: run, step."""
    step = Step.objects.select_for_update().get(run_id=run.id, seq=session.steps[start.identity].seq)
    approval = approvals.of_step(run.id, step.seq)
    facts = judgement.Facts(now=clock.database_now(), fence=session.fence, approval=approval)
    ruling = judgement.judge(step, start, facts)
    return _ACTS[ruling.verdict](session, run, step, start, approval, ruling)


def _replay(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    return Begun("replay", step.seq, attempt=step.attempt, output=session.open_step(step, "output", step.output))


def _same(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    args, edited = approvals.arguments(approval, session.key) if approval else (None, False)
    left = 0.0
    if step.call_by is not None:
        left = max(0.0, (step.call_by - clock.database_now()).total_seconds())
    return Begun(
        "execute", step.seq, attempt=step.attempt, key=step.key or "", args=args, edited=edited, call_for_s=left
    )


def _skip(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    return Begun("skip", step.seq, attempt=step.attempt)


def _wait(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    approval_id = public_id("apr", approval.id) if approval else ""
    return Begun("wait", step.seq, attempt=step.attempt, approval_id=approval_id, wait_s=ruling.wait_s)


def _failed(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    return Begun("failed", step.seq, attempt=step.attempt, failure=failure_of(session, step))


def _rejected(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    """A person said no, answered instead, or nobody answered in time: three different things to the agent."""
    decision = approvals.opened_decision(approval, session.key) if approval else {}
    message = decision.get("message", "")
    if approval is not None and approval.status == ApprovalStatus.RESPONDED:
        output = decision.get("answer", message)
        if step.status == StepStatus.WAITING:
            _end_unasked(session, step, StepStatus.DONE, output=output)
        return Begun("replay", step.seq, output=output, message=message, decision="responded")
    if step.status == StepStatus.WAITING:
        _end_unasked(session, step, StepStatus.REJECTED)
    status = approval.status if approval else "rejected"
    return Begun("rejected", step.seq, message=message, decision=status)


def _end_unasked(session: RunSession, step: Step, status: str, *, output: Any = None) -> None:
    step.status, step.ended_at, step.source = status, clock.database_now(), "operator"
    if status == StepStatus.DONE:
        plain = sealing.canonical_payload(output, what="answer")
        step.output = session.seal_step(step.identity, "output", plain)
        step.output_hash = session.fingerprint(plain)
        step.outcome = "done"
    step.fence = session.fence
    step.save(update_fields=["status", "ended_at", "source", "output", "output_hash", "outcome", "fence"])
    session.steps[step.identity].status = status


def _due(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    _end_unasked(session, step, StepStatus.DONE)
    return Begun("replay", step.seq)


def _first(session: RunSession, run: Run, step: Step, start: StepStart, approval: Approval, ruling: Any) -> Begun:
    """Approved: one send, with the arguments that the person saw or wrote, while the approval is usable."""
    args, edited = approvals.arguments(approval, session.key)
    if approval.kind == "ask":
        _end_unasked(session, step, StepStatus.DONE, output=args)
        return Begun("replay", step.seq, output=args, decision=approval.status)
    if approval.use_by is not None and approval.use_by <= clock.database_now():
        fresh = approvals.ask_anew(run, approval, key=session.key)
        return Begun("wait", step.seq, approval_id=public_id("apr", fresh.id))
    approvals.use(approval)
    if edited:
        step.edit_version += 1
        step.key = effect_key(session, start, payload=args, retry=step.retry, edit_version=step.edit_version)
    _start_row(session, run, step)
    return _execute(session, step, args, edited)


def _again(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    """The outcome is not known, but a repeat is harmless (class) or authorised (a person): same key."""
    was = step.status
    _keep_attempt(session, step)
    step.attempt += 1
    _start_row(session, run, step)
    acts.record(run, step, f"step.{was}_again", worker_id=session.worker_id)
    args, edited = _approved(session, approval)
    return _execute(session, step, args, edited)


def _retry(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    """A definite failure came before, and for an approved tool the same decision holds if it was not sent.

    A new key, unless an attempt before that failure may have happened under the old one.
    """
    outcome = step.outcome
    _keep_attempt(session, step)
    args, edited = _approved(session, approval)
    step.attempt += 1
    step.retry += 1
    if step.key is not None and step.sent == 0:
        payload = args if edited else start.payload
        step.key = effect_key(session, start, payload=payload, retry=step.retry, edit_version=step.edit_version)
        step.first_called_at = None
    step.probes_unknown = 0
    if approval is not None and approval.kind == "tool" and not _licenses_retry(approval, outcome):
        step.status, step.outcome, step.fence, step.due_at = StepStatus.WAITING, "", session.fence, None
        step.save()
        session.steps[step.identity].status = step.status
        fresh = approvals.ask_anew(run, approval, key=session.key)
        return Begun("wait", step.seq, attempt=step.attempt, approval_id=public_id("apr", fresh.id))
    _start_row(session, run, step)
    acts.record(run, step, "step.retried", worker_id=session.worker_id)
    return _execute(session, step, args, edited)


def _execute(session: RunSession, step: Step, args: Any, edited: bool) -> Begun:
    return Begun(
        "execute",
        step.seq,
        attempt=step.attempt,
        key=step.key or "",
        args=args,
        edited=edited,
        call_for_s=session.lease_s * CALL_FOR_SHARE,
    )


def _approved(session: RunSession, approval: Approval | None) -> tuple[Any, bool]:
    """The arguments a person approved, and whether they were edited; None where nobody was asked."""
    if approval is None or approval.kind != "tool":
        return None, False
    return approvals.arguments(approval, session.key)


def _licenses_retry(approval: Approval, outcome: str) -> bool:
    """One approval is one send: it holds for another only when the first never left, and in its time."""
    in_time = approval.use_by is None or approval.use_by > clock.database_now()
    return outcome == "not_sent" and in_time


def _start_row(session: RunSession, run: Run, step: Step) -> None:
    now = clock.database_now()
    step.status, step.outcome, step.fence, step.worker_id = StepStatus.STARTED, "", session.fence, session.worker_id
    step.started_at, step.ended_at, step.end_frame, step.due_at = now, None, None, None
    step.error, step.error_type, step.source = None, "", "worker"
    step.call_by = now + timedelta(seconds=session.lease_s * CALL_FOR_SHARE)
    if step.key is not None:
        step.sent += 1
        step.first_called_at = step.first_called_at or now
        acts.record(run, step, "effect.claimed", worker_id=session.worker_id)
    step.save()
    known = session.steps[step.identity]
    known.status, known.fence, known.attempt, known.key = step.status, step.fence, step.attempt, step.key
    session.keep(known)


def _keep_attempt(session: RunSession, step: Step) -> None:
    """Attempts are never overwritten: the one that ended (or was lost) becomes a row of its own."""
    StepAttempt.objects.create(
        run_id=step.run_id,
        seq=step.seq,
        attempt=step.attempt,
        status=step.status,
        outcome=step.outcome or "lost",
        key=step.key,
        error=step.error,
        error_type=step.error_type,
        fence=step.fence,
        worker_id=step.worker_id,
        source=step.source,
        authorised=step.authorised,
        sent=step.sent,
        started_at=step.started_at,
        ended_at=step.ended_at,
        end_frame=step.end_frame,
    )


def _probe(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    settles_at = waiting_times.probe_settles_at(step, dead_at=proofs.dead_at(step.worker_id))
    wait_s = (settles_at - clock.database_now()).total_seconds()
    return Begun("probe", step.seq, attempt=step.attempt, key=step.key or "", wait_s=max(0.0, wait_s))


def _doubt(session: RunSession, run: Run, step: Step, start: StepStart, approval: Any, ruling: Any) -> Begun:
    if step.status != StepStatus.IN_DOUBT:
        doubts.open_doubt(session, run, step, why="its worker was lost before it reported the outcome")
    return Begun("doubt", step.seq, attempt=step.attempt, key=step.key or "")


_ACTS = {
    "replay": _replay,
    "same": _same,
    "again": _again,
    "retry": _retry,
    "first": _first,
    "wait": _wait,
    "rejected": _rejected,
    "skip": _skip,
    "failed": _failed,
    "probe": _probe,
    "doubt": _doubt,
    "due": _due,
}
