"""What happens at one call of a step, told as a sequence of requests: the same for sync and for async functions.

The procedure never blocks and never calls anything: it yields what it wants done and is sent the answer. Drivers for
both worlds stand in `executor`. Whether a call may be made is the service's judgement, not this file's.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agentstate.sdk.outcomes import Happened, NotHappened
from agentstate.sdk.pacing import back_off_s
from agentstate.sdk.signals import Answered, Expired, Rejected, Waiting, Withdrawn, error_of
from agentstate.sdk.steps import Call
from agentstate.sdk.store import Begun, Failure, Outcome, Park, StepFinish, StepRecord, StepStart

if TYPE_CHECKING:
    from agentstate.sdk.executor import Executor

_DECISIONS = {"rejected": Rejected, "expired": Expired, "withdrawn": Withdrawn}


@dataclass(frozen=True, slots=True)
class Begin:
    """Ask the service; the answer is a Begun."""

    start: StepStart


@dataclass(frozen=True, slots=True)
class Invoke:
    """Call the function; the answer is an Ending."""

    call: Call
    begun: Begun
    asked_at: float
    retries_left: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the tool's probe; the answer is Happened, NotHappened or Unknown."""

    call: Call
    begun: Begun


@dataclass(frozen=True, slots=True)
class Report:
    """Commit a probe's answer at once."""

    finish: StepFinish


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait in this process."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended. `retry_in_s` is set when it may be tried again."""

    outcome: Outcome
    output: Any = None
    failure: Failure | None = None
    retry_in_s: float | None = None
    steps: tuple[int, ...] = ()  # that failed, this one last


@dataclass(frozen=True, slots=True)
class Tidy:
    """Summarise the scratchpad, before anything new is begun."""


Request = Begin | Invoke | Probe | Report | Pause | Tidy
Steps = Generator[Request, Any, Any]


def proceed(executor: Executor, call: Call, *, due_s: float | None = None) -> Steps:
    """The value the agent gets. Raises: what the agent may catch, and RunInterrupted."""
    record = executor.book.find(call.identity)
    executor.book.check_payload(call.identity, call.payload_sha)
    executor.book.check_expected(call.identity, scope=call.scope.path, shared=call.scope.shared)
    if record is not None and _is_final(record, call):
        return _answer_from(record, call, executor)
    executor.check_boundary()
    if executor.is_tidying_due:
        yield Tidy()
    is_lost = record is not None and record.status in ("started", "in_doubt")
    retry = record.retry if record else 0
    return (yield from _until_over(executor, call, _start_of(call, record, due_s), retry=retry, is_lost=is_lost))


def _until_over(executor: Executor, call: Call, start: StepStart, *, retry: int, is_lost: bool) -> Steps:
    """`is_lost`: an attempt was begun by somebody who did not live to say how it ended."""
    open_keys = set[str]()  # calls under them may have happened, whatever becomes of a later one
    while True:
        begun, asked_at = yield Begin(start)
        if begun.action == "execute":
            if is_lost and begun.key:
                open_keys.add(begun.key)
            ending = yield Invoke(call, begun, asked_at, call.step.retries - retry)
            is_open = ending.outcome == "unknown" or (ending.outcome == "not_sent" and begun.key in open_keys)
            if ending.outcome in ("done", "refused") or not (is_open or ending.retry_in_s is not None):
                return _value_of(ending, call)
            pause_s = ending.retry_in_s
            if is_open:
                open_keys.add(begun.key)
                pause_s = back_off_s(call.identity, begun.attempt - 1)
            else:
                retry += 1
            yield from _wait(executor, pause_s or 0.0, why="retry")
            start = _again(start, begun.attempt + 1)
        elif begun.action == "probe":
            is_lost = False  # what is called after it has a new key
            answer = yield Probe(call, begun)
            yield Report(_probe_finish(begun.seq, answer))
            start = _again(start, begun.attempt + 1)
        elif begun.action == "wait" and not begun.approval_id and begun.wait_s is not None:
            why = "timer" if call.step.kind == "timer" else "probe" if call.step.probe else "retry"
            yield from _wait(executor, begun.wait_s, why=why)
        else:
            return _judged(begun, call)


def _judged(begun: Begun, call: Call) -> Any:
    if begun.action == "wait":
        raise Waiting(Park("approval", due_s=begun.wait_s, detail=call.identity))
    if begun.action == "doubt":
        raise Waiting(Park("in_doubt", detail=call.identity))
    if begun.action == "rejected":
        raise _DECISIONS.get(begun.decision, Rejected)(begun.message)
    if begun.action == "failed":
        raise error_of(begun.failure, steps=(begun.seq,))
    if begun.message and call.step.kind == "tool":
        raise Answered(begun.message)
    return call.step.hydrated_result(begun.output)


def _value_of(ending: Ending, call: Call) -> Any:
    if ending.outcome == "done":
        return call.step.hydrated_result(ending.output)
    raise error_of(ending.failure, steps=ending.steps)


def _is_final(record: StepRecord, call: Call) -> bool:
    """Over for good, so that its record is the answer. A failed step with retries left is not."""
    if record.status == "failed":
        return not _may_retry(record, call)
    return record.status in ("done", "rejected", "skipped")


def _may_retry(record: StepRecord, call: Call) -> bool:
    return record.failure is not None and record.failure.retryable and record.retry < call.step.retries


def _answer_from(record: StepRecord, call: Call, executor: Executor) -> Any:
    if record.status == "rejected":
        raise _DECISIONS.get(record.decision, Rejected)(record.message)
    if record.status == "failed":
        raise error_of(record.failure, steps=executor.book.failed_below(record))
    if record.message and call.step.kind == "tool":
        raise Answered(record.message)
    return call.step.hydrated_result(record.output)


def _start_of(call: Call, record: StepRecord | None, due_s: float | None) -> StepStart:
    step, tool = call.step, call.step.tool
    return StepStart(
        identity=call.identity,
        name=step.name,
        kind=step.kind,
        effect=step.effect,
        payload=call.payload,
        parent=call.scope.parent,
        attempt=_attempt_of(record),
        timeout_s=step.timeout_s,
        window_s=tool.window_s if tool else None,
        settles_within_s=tool.settles_within_s if tool else None,
        has_probe=step.probe is not None,
        question=call.question,
        due_s=due_s,
    )


def _attempt_of(record: StepRecord | None) -> int:
    if record is None:
        return 1
    return record.attempt if record.status == "waiting" else record.attempt + 1


def _again(start: StepStart, attempt: int) -> StepStart:
    return replace(start, attempt=attempt)


def _probe_finish(seq: int, answer: Any) -> StepFinish:
    if isinstance(answer, Happened):
        return StepFinish(seq, "done", output=answer.result, source="probe")
    if isinstance(answer, NotHappened):
        return StepFinish(seq, "failed", source="probe")
    return StepFinish(seq, "unknown", source="probe")


def _wait(executor: Executor, wait_s: float, *, why: Any) -> Steps:
    if wait_s >= executor.in_process_s:
        raise Waiting(Park(why, due_s=wait_s))
    yield Pause(wait_s)
    return None
