"""May this step be called? The rules the service applies when a step is begun that has a row already.

Pure functions over one row, without clock, store or lock of their own. The server has the same rules in SQL; the
conformance suite holds both against the same cases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from agentstate.core import canonical
from agentstate.core.errors import Conflict, NonDeterminism
from agentstate.sdk.store import Begun, EffectClass, Failure, Question, StepFinish, StepKind, StepRecord, StepStart

UNKNOWN_PROBES_MAX = 3
_EFFECTS = ("keyed", "probed", "destructive")
PROBE_AGAIN_S = 1.0  # after an Unknown; doubles


@dataclass(slots=True)
class Approval:
    """One question to a person and its decision."""

    id: str
    run_id: str
    seq: int
    question: Question
    kind: Literal["tool", "ask", "budget", "settle"] = "tool"
    status: str = "pending"
    version: int = 1
    args: Any = None  # what was approved, maybe edited; the answer of a free question
    message: str = ""
    actor: str = ""
    use_by: float | None = None
    expires_at: float | None = None
    sent: bool = False  # one approval is one send


@dataclass(slots=True)
class Row:
    """One step. Times are seconds of the store's clock."""

    tenant: str
    run_id: str
    generation: int
    seq: int
    identity: str
    name: str
    kind: StepKind
    effect: EffectClass
    payload: Any
    payload_sha: str
    status: str = "started"  # waiting started done failed in_doubt rejected skipped
    attempt: int = 1
    retry: int = 0
    edit_version: int = 0
    fence: int = 0
    key: str = ""
    window_s: float | None = None
    settles_within_s: float = 0.0
    timeout_s: float = 60.0
    has_probe: bool = False
    first_sent_at: float = 0.0  # with the present key
    call_by: float = 0.0
    is_unknown: bool = False  # the attempt ended, and nobody knows how
    is_taken_back: bool = False  # a person resumed the run that failed by it
    may_repeat: bool = False  # a person, or a probe in time, said that it did not happen
    is_repeat: bool = False  # the attempt under way was begun because of that
    undone: int = 0  # attempts with the present key that certainly did not happen
    due_at: float | None = None  # of a timer, a retry or the next probe
    probes_unknown: int = 0
    output: Any = None
    failure: Failure | None = None
    outcome: str = ""
    source: str = "worker"
    decision: str = ""
    message: str = ""
    approval: Approval | None = None
    attempts: list[tuple[int, str]] = field(default_factory=list)  # (attempt, key) of every send allowed

    def record(self) -> StepRecord:
        return StepRecord(
            self.seq,
            self.identity,
            self.name,
            self.kind,
            self.effect,
            self.status,
            self.payload_sha,
            self.output,
            self.failure,
            self.attempt,
            self.retry,
            self.decision,
            self.message,
        )

    def derive_key(self) -> None:
        """The branch of the key is the generation: identities are unique within one only."""
        args = self.approval.args if self.approval is not None and self.edit_version else self.payload
        parts = [
            self.tenant,
            self.run_id,
            self.identity,
            self.generation,
            self.edit_version,
            self.retry,
            self.name,
            args,
        ]
        self.key = canonical.digest(parts).hex()


@dataclass(frozen=True, slots=True)
class Moment:
    """When and by whom a question is asked."""

    now: float
    fence: int
    call_for_s: float


def begin(row: Row, moment: Moment) -> Begun:
    """The first answer for a row that was made just now, in the state `waiting` when somebody or something decides."""
    if row.status == "waiting":
        return _waiting(row, moment)
    if row.status == "done":
        return Begun("replay", row.seq, output=row.output)
    row.derive_key()
    return _execute(row, moment)


def judge(row: Row, start: StepStart, moment: Moment) -> Begun:
    """The answer for a row that stands already; the row is changed to fit.

    Raises: NonDeterminism for another payload, Conflict for an attempt that can be none of the next ones.
    """
    if canonical.digest(start.payload).hex() != row.payload_sha or start.name != row.name:
        raise NonDeterminism(f"{row.identity} was recorded with other arguments than it is asked for now.", seq=row.seq)
    if row.status == "done":
        return Begun("replay", row.seq, row.attempt, row.key, output=row.output)
    if row.status == "rejected":
        return Begun("rejected", row.seq, row.attempt, message=row.message, decision=row.decision)
    if row.status == "skipped":
        action: Literal["replay", "skip"] = "replay" if row.message else "skip"
        return Begun(action, row.seq, row.attempt, output=row.output, message=row.message, decision=row.decision)
    if row.status == "waiting":
        return _waiting(row, moment)
    if start.attempt not in (None, row.attempt, row.attempt + 1) and not row.is_taken_back:
        raise Conflict(
            f"{row.identity} is at attempt {row.attempt}; {start.attempt} cannot be begun.", attempt=row.attempt
        )
    if row.status == "failed":
        return _failed(row, start, moment)
    if row.status == "in_doubt":
        return _again(row, moment) if row.may_repeat else _doubt(row)
    return _started(row, start, moment)


def finish(row: Row, end: StepFinish, *, now: float, fence: int) -> None:
    """Take the end of an attempt. Idempotent. Raises: Conflict for a step that has ended otherwise."""
    if end.source == "probe":
        return _probed(row, end, now=now)
    if row.status in ("done", "failed") or row.is_unknown:
        if row.outcome == end.outcome and (end.outcome != "done" or _same(row.output, end.output)):
            return None
        raise Conflict(f"{row.identity} has ended already, as {row.outcome or row.status}.", seq=row.seq)
    if row.status != "started" or row.fence != fence:
        raise Conflict(f"{row.identity} is {row.status} and not being run by this claim.", seq=row.seq)
    outcome = "unknown" if end.outcome == "failed" and row.effect in _EFFECTS else end.outcome
    row.outcome, row.failure = outcome, end.failure
    if outcome == "done":
        row.status, row.output, row.source = "done", end.output, "worker"
    elif outcome == "unknown":  # also a tool that "failed": an exception is no proof that nothing happened
        row.is_unknown = True
        if row.effect == "destructive":
            row.status = "in_doubt"
    else:
        _did_not_happen(row, due_at=None if end.retry_in_s is None else now + end.retry_in_s)
    return None


def _did_not_happen(row: Row, *, due_at: float | None) -> None:
    """This attempt. Not sent, it proves nothing of those before it, and they had the same key."""
    row.undone += 1
    if row.outcome == "not_sent" and _may_have_happened(row):
        row.is_unknown, row.may_repeat = True, row.is_repeat
    else:
        row.status, row.due_at = "failed", due_at


def _waiting(row: Row, moment: Moment) -> Begun:
    if row.kind == "timer":
        return _timer(row, moment)
    approval = row.approval
    assert approval is not None
    if approval.status == "pending":
        if approval.expires_at is not None and moment.now >= approval.expires_at:
            return _expire(row, approval)
        wait_s = None if approval.expires_at is None else approval.expires_at - moment.now
        return Begun("wait", row.seq, row.attempt, approval_id=approval.id, wait_s=wait_s)
    if approval.use_by is not None and moment.now > approval.use_by:
        return _ask_anew(row, approval)
    return _execute(row, moment)


def _timer(row: Row, moment: Moment) -> Begun:
    assert row.due_at is not None
    if moment.now < row.due_at:
        return Begun("wait", row.seq, row.attempt, wait_s=row.due_at - moment.now)
    row.status, row.outcome = "done", "done"
    return Begun("replay", row.seq, row.attempt)


def _expire(row: Row, approval: Approval) -> Begun:
    approval.status = "expired"
    row.status, row.decision, row.message = "rejected", "expired", "nobody decided, or used it, in time"
    return Begun("rejected", row.seq, row.attempt, message=row.message, decision="expired")


def _ask_anew(row: Row, approval: Approval) -> Begun:
    """An approval that was not used in time is no licence any more: the same question again."""
    approval.status, approval.use_by, row.status = "pending", None, "waiting"
    approval.args, approval.version = approval.question.args, approval.version + 1
    row.is_taken_back = False
    return Begun("wait", row.seq, row.attempt, approval_id=approval.id)


def _failed(row: Row, start: StepStart, moment: Moment) -> Begun:
    is_next = start.attempt == row.attempt + 1 or row.is_taken_back
    if not is_next and not (row.may_repeat and start.attempt is None):
        return Begun("failed", row.seq, row.attempt, failure=row.failure)
    if row.due_at is not None and moment.now < row.due_at:
        return Begun("wait", row.seq, row.attempt, wait_s=row.due_at - moment.now)
    approval = row.approval
    if approval is not None:
        if approval.use_by is not None and moment.now > approval.use_by:
            return _ask_anew(row, approval)
        if row.outcome != "not_sent" and not row.may_repeat:  # the one send is used up
            if not row.is_taken_back:
                return Begun("failed", row.seq, row.attempt, failure=row.failure)
            row.attempt, row.retry = row.attempt + 1, row.retry + 1
            return _ask_anew(row, approval)
    row.retry += 1
    if not _may_have_happened(row):
        row.derive_key()
    return _again(row, moment)


def _started(row: Row, start: StepStart, moment: Moment) -> Begun:
    is_same = row.fence == moment.fence and start.attempt in (None, row.attempt)
    if is_same and not row.is_unknown:
        return _allowed(row, max(0.0, row.call_by - moment.now))
    if row.effect in ("pure", "replayable") or row.may_repeat:
        return _again(row, moment)
    if row.effect == "keyed" and moment.now <= row.first_sent_at + (row.window_s or 0.0):
        return _again(row, moment)
    if row.effect == "probed" or (row.effect == "keyed" and row.has_probe):
        return _probe(row, moment)
    row.status = "in_doubt"
    return _doubt(row)


def _probe(row: Row, moment: Moment) -> Begun:
    if row.due_at is not None and moment.now < row.due_at:
        return Begun("wait", row.seq, row.attempt, row.key, wait_s=row.due_at - moment.now)
    return Begun("probe", row.seq, row.attempt, row.key)


def _probed(row: Row, end: StepFinish, *, now: float) -> None:
    if row.status != "started":
        return
    row.is_unknown = True  # whoever asked a probe does not know how the attempt ended
    conclusive_at = row.call_by + row.settles_within_s
    if end.outcome == "done":
        row.status, row.output, row.source, row.outcome = "done", end.output, "probe", "done"
    elif end.outcome == "failed" and now >= conclusive_at:
        row.status, row.source, row.outcome, row.may_repeat = "failed", "probe", "failed", True
        row.failure, row.due_at, row.is_unknown = None, None, False
        row.undone += 1
    elif end.outcome == "failed":
        row.due_at = conclusive_at
    else:
        row.probes_unknown += 1
        row.due_at = now + PROBE_AGAIN_S * 2.0 ** (row.probes_unknown - 1)
        if row.probes_unknown >= UNKNOWN_PROBES_MAX:
            row.status = "in_doubt"


def _may_have_happened(row: Row) -> bool:
    """Some attempt under the present key."""
    return sum(key == row.key for _, key in row.attempts) > row.undone


def _doubt(row: Row) -> Begun:
    return Begun("doubt", row.seq, row.attempt, row.key)


def _again(row: Row, moment: Moment) -> Begun:
    row.attempt += 1
    return _execute(row, moment)


def _execute(row: Row, moment: Moment) -> Begun:
    if not row.key:
        row.derive_key()
    if row.key not in {key for _, key in row.attempts}:
        row.first_sent_at, row.undone = moment.now, 0
    row.status, row.fence, row.is_repeat = "started", moment.fence, row.may_repeat
    row.is_unknown = row.may_repeat = row.is_taken_back = False
    row.due_at, row.probes_unknown, row.outcome = None, 0, ""
    row.call_by = moment.now + moment.call_for_s
    row.attempts.append((row.attempt, row.key))
    if row.approval is not None:
        row.approval.sent = True
    return _allowed(row, moment.call_for_s)


def _allowed(row: Row, call_for_s: float) -> Begun:
    args = row.approval.args if row.approval is not None else None
    return Begun(
        "execute", row.seq, row.attempt, row.key, args=args, edited=row.edit_version > 0, call_for_s=call_for_s
    )


def _same(one: Any, other: Any) -> bool:
    return canonical.dumps(one) == canonical.dumps(other)
