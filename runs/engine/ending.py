"""Ends of attempts. Plain ones ride in the turn's SQL call; failures, lost outcomes and probes' answers end here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from agentstate.core import canonical
from agentstate.core.errors import Conflict, Fenced
from agentstate.sdk.store import Failure, StepFinish
from runs import sealing
from runs.engine import acts, doubts
from runs.engine.session import KnownStep, RunSession
from runs.models import Run, Step
from runs.services import clock, proofs, waiting_times
from runs.states import StepStatus


class Done(NamedTuple):
    """The plain end of a step."""

    known: KnownStep
    finish: StepFinish
    output: bytes  # canonical
    output_hash: bytes


def digest(done: Sequence[Done]) -> bytes:
    """What the frame chain says of the steps that ended in its turn: a changed step row breaks the chain."""
    ended = sorted(done, key=lambda item: item.known.seq)
    return digest_of(
        [step_line(known.seq, known.identity, known.key, output_hash) for known, _, _, output_hash in ended]
    )


def digest_of(lines: Sequence[bytes]) -> bytes:
    return hashlib.sha256(b"".join(lines)).digest() if lines else b""


def step_line(seq: int, identity: str, key: str | None, output_hash: bytes) -> bytes:
    return canonical.dumps([seq, identity, key, output_hash.hex()])


def usage_json(done: Done) -> dict[str, Any] | None:
    """What the step used, for runs_turn."""
    usage = done.finish.usage
    if not usage:
        return None
    return {"model": usage.model, "tin": usage.tokens_in, "tout": usage.tokens_out, "cost": usage.cost}


def end_otherwise(session: RunSession, run: Run, known: KnownStep, finish: StepFinish) -> None:
    """An end that is not plain. Asserts a tenant scope and the run's lock. Idempotent for the same outcome."""
    step = Step.objects.select_for_update().get(run_id=run.id, seq=known.seq)
    if step.status != StepStatus.STARTED or step.outcome == finish.outcome == "not_sent":
        if step.outcome == finish.outcome or (step.status == StepStatus.IN_DOUBT and finish.outcome == "unknown"):
            return
        raise Conflict(f"Step {step.seq} {step.name} is {step.status}, so it cannot end as {finish.outcome}.")
    if finish.source == "probe":
        _by_probe(session, run, step, finish)
    elif step.fence != session.fence:
        raise Fenced(
            f"Step {step.seq} {step.name} was begun under fence {step.fence}; only a probe or a person ends it."
        )
    elif finish.outcome == "unknown":
        _unknown(session, run, step, finish)
    else:
        _definite(session, run, step, finish)
    known.status = step.status


def _definite(session: RunSession, run: Run, step: Step, finish: StepFinish) -> None:
    """not_sent, refused, failed: it did not happen. Only a blind effect that raised cannot say `failed`."""
    if finish.outcome == "failed" and step.effect in ("keyed", "probed", "destructive"):
        _unknown(session, run, step, finish)
        return
    if step.key is not None:
        step.sent -= 1  # nothing left this process, or downstream said a definite no
    if finish.outcome == "not_sent" and step.key is not None and step.sent > 0:
        # An earlier attempt under this key may have happened: failed, it would be tried again under another one.
        _note_error(session, step, finish.failure)
        step.outcome = finish.outcome
    else:
        _fail(session, step, finish.outcome, finish.failure)
        if finish.retry_in_s:
            step.due_at = clock.database_now() + timedelta(seconds=finish.retry_in_s)
    step.save()
    acts.record(run, step, f"step.{finish.outcome}", worker_id=session.worker_id, error=step.error_type)


def _unknown(session: RunSession, run: Run, step: Step, finish: StepFinish) -> None:
    """The call may have happened. What follows is the class's to say."""
    if step.effect in ("pure", "replayable"):
        _fail(session, step, "failed", finish.failure)
        step.save()
        acts.record(run, step, "step.failed", worker_id=session.worker_id, error=step.error_type)
    elif step.effect == "destructive":
        _note_error(session, step, finish.failure)
        doubts.open_doubt(session, run, step, why="the call was made and no answer came back")
    else:  # keyed, probed: stays started; the next begin repeats it with the same key, or asks the probe
        _note_error(session, step, finish.failure)
        step.outcome = "unknown"
        step.save(update_fields=["outcome", "error", "error_type"])
        acts.record(run, step, "step.unknown", worker_id=session.worker_id, error=step.error_type)


def _by_probe(session: RunSession, run: Run, step: Step, finish: StepFinish) -> None:
    """Happened is believed at once; NotHappened only when no late call can show up any more."""
    if finish.outcome == "done":
        _settle(session, run, step, finish.output, source="probe")
        return
    if finish.outcome == "unknown":
        step.probes_unknown += 1
        step.save(update_fields=["probes_unknown"])
        acts.record(run, step, "step.probe_unknown", worker_id=session.worker_id, times=step.probes_unknown)
        return
    settles_at = waiting_times.probe_settles_at(step, dead_at=proofs.dead_at(step.worker_id))
    if settles_at > clock.database_now():
        step.due_at = settles_at
        step.save(update_fields=["due_at"])
    else:
        _fail(
            session, step, "not_sent", Failure("NotHappened", "The probe says that it did not happen.", retryable=True)
        )
        step.sent -= 1
        step.source = "probe"
        step.save()
        acts.record(run, step, "step.not_happened", worker_id=session.worker_id, source="probe")


def _settle(session: RunSession, run: Run, step: Step, output: Any, *, source: str) -> None:
    plain = sealing.canonical_payload(output, what="output")
    step.output = session.seal_step(step.identity, "output", plain)
    step.output_hash = session.fingerprint(plain)
    step.status, step.outcome, step.source = StepStatus.DONE, "done", source
    step.ended_at, step.fence = clock.database_now(), session.fence
    step.save()
    acts.record(run, step, "effect.settled", worker_id=session.worker_id, source=source)
    session.steps[step.identity].output_hash = step.output_hash


def _fail(session: RunSession, step: Step, outcome: str, failure: Failure | None) -> None:
    step.status, step.outcome, step.ended_at = StepStatus.FAILED, outcome, clock.database_now()
    _note_error(session, step, failure)


def _note_error(session: RunSession, step: Step, failure: Failure | None) -> None:
    failure = failure or Failure("Error", "")
    body = canonical.dumps(
        {"type": failure.type[:200], "message": _printable(failure.message)[:4000], "retryable": failure.retryable}
    )
    step.error = session.seal_step(step.identity, "error", body)
    step.error_type = _printable(failure.type)[:200]


def _printable(text: str) -> str:
    """An error's text is the outside world's: half surrogates and NUL must not stop us from recording it."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
