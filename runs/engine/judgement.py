"""May this recorded step be called again? The one place that decides; pure, so that every row of it has a test.

Promise 1 lives here: a blind effect whose outcome is not known is never called again by us.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from agentstate.sdk.store import StepStart
from runs.models import Approval, Step
from runs.states import ApprovalStatus, StepStatus

Verdict = Literal[
    "replay",  # its record answers
    "same",  # this very attempt is under way under this fence: the request was repeated
    "again",  # next attempt with the SAME key: outcome unknown, but repeating is harmless or authorised
    "retry",  # next attempt after a definite failure, with a new key
    "first",  # approved (or answered): now it may be called
    "wait",
    "rejected",
    "skip",
    "failed",
    "probe",
    "doubt",
    "due",  # the timer is over
]
PROBES_UNKNOWN_MAX = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """What the judge knows beside the row; `now` is the database's."""

    now: datetime
    fence: int
    approval: Approval | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    verdict: Verdict
    wait_s: float | None = None


def judge(step: Step, start: StepStart, facts: Facts) -> Ruling:
    """Rule on a request to begin a step that is already recorded (its payload has been compared).

    An attempt that was not sent proves nothing of those before it: a step stays `started` while one of them may have
    happened (see ending), so it is judged as theirs.
    """
    if step.status == StepStatus.DONE:
        return Ruling("replay")
    if step.status == StepStatus.REJECTED:
        return Ruling("rejected")
    if step.status == StepStatus.SKIPPED:
        return Ruling("skip")
    if step.status == StepStatus.WAITING:
        return _waiting(step, facts)
    if step.status == StepStatus.IN_DOUBT:
        return Ruling("again" if step.authorised >= step.sent > 0 else "doubt")
    if step.status == StepStatus.FAILED:
        return _failed(step, start, facts)
    return _started(step, start, facts)


def _waiting(step: Step, facts: Facts) -> Ruling:
    if step.kind == "timer":
        left = 0.0 if step.due_at is None else (step.due_at - facts.now).total_seconds()
        return Ruling("due") if left <= 0 else Ruling("wait", left)
    approval = facts.approval
    assert approval is not None, f"step {step.seq} of run {step.run_id} waits without an approval"
    if approval.status in (ApprovalStatus.APPROVED, ApprovalStatus.EDITED):
        return Ruling("first")
    if approval.status == ApprovalStatus.PENDING:
        return Ruling("wait")
    return Ruling("rejected")


def _failed(step: Step, start: StepStart, facts: Facts) -> Ruling:
    if step.outcome == "resumed":  # a person resumed the run that failed here
        return Ruling("retry")
    if start.attempt != step.attempt + 1 or step.outcome in ("refused", "unknown"):
        return Ruling("failed")
    if step.due_at is not None and step.due_at > facts.now:
        return Ruling("wait", (step.due_at - facts.now).total_seconds())
    return Ruling("retry")


def _started(step: Step, start: StepStart, facts: Facts) -> Ruling:
    ours = step.fence == facts.fence
    if ours and step.outcome == "" and start.attempt in (None, step.attempt):
        return Ruling("same")
    if ours and step.outcome == "" and start.attempt != step.attempt + 1:
        return Ruling("same")
    if step.effect in ("pure", "replayable"):
        return Ruling("again")
    if step.authorised >= step.sent > 0:
        return Ruling("again")
    if step.effect == "keyed":
        return _keyed(step, facts)
    if step.effect == "probed":
        return _probed(step, facts)
    return Ruling("doubt")


def _keyed(step: Step, facts: Facts) -> Ruling:
    """Inside the window since the FIRST send downstream still knows the key; a call takes time, so end it earlier."""
    if step.first_called_at is None:
        return Ruling("again")
    open_until = step.first_called_at + timedelta(seconds=(step.window_s or 0.0) - (step.timeout_s or 0.0))
    if facts.now < open_until:
        return Ruling("again")
    return _probed(step, facts) if step.has_probe else Ruling("doubt")


def _probed(step: Step, facts: Facts) -> Ruling:
    if not step.has_probe or step.probes_unknown >= PROBES_UNKNOWN_MAX:
        return Ruling("doubt")
    if step.due_at is not None and step.due_at > facts.now:  # it said "not happened", too early to be believed
        return Ruling("wait", (step.due_at - facts.now).total_seconds())
    return Ruling("probe")
