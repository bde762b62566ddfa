"""The turn: what ended, what begins and how the run goes on, all at once and under the fence.

A plain turn (steps done, new steps begun) is one SQL call in autocommit. Whatever else stands in it (a failure, a
question, a second attempt, a pause, the end) happens in one transaction together with that same call.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from agentstate.core import canonical, tokens
from agentstate.core.errors import Conflict, Fenced, Invalid
from agentstate.core.failpoints import hit, register
from agentstate.core.ids import public_id
from agentstate.core.limits import GENERATION_STEPS_MAX
from agentstate.db import sql, wake
from agentstate.sdk.store import (
    UNCHANGED,
    Begun,
    Continue,
    Control,
    End,
    Entry,
    Park,
    StepFinish,
    StepStart,
    Turn,
    TurnReply,
)
from agentstate.sdk.window import noted_after
from agentstate.tenants.scope import tenant_scope
from checkpoints import blobs
from checkpoints.writing import FrameRow
from runs import scratchpad, sealing
from runs.engine import ending, going_on, renewing, starting
from runs.engine.ending import Done
from runs.engine.session import KnownStep, RunSession
from runs.engine.starting import NewStep
from runs.states import RunStatus

register("turn.before", "codec done / the turn's transaction")
register("turn.blobs", "large values of the state stored / the turn that refers to them")
register("turn.committed", "the turn's commit / its reply to the executor")
register("turn.cold", "the hot part inside the transaction / the rest of it")
register("turn.scratchpad", "the turn's commit / the scratchpad in Redis")

HINT_EVERY_S = 0.1
CLOSER_FOR_S = 1.0
OVER = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED})
TURN = sql.Call(
    "agentstate_turn",
    """SELECT runs_turn($1::uuid, $2::uuid, $3::bigint, $4::interval, $5::interval, $6::date, $7::int, $8::int,
      $9::text, $10::int, $11::int, $12::bytea, $13::bytea, $14::bytea, $15::int, $16::int[], $17::bytea[],
      $18::int, $19::int, $20::text[], $21::bytea[], $22::bytea[], $23::jsonb, $24::jsonb)""",
    binary=(1, 2, *range(12, 15), 16, 17, 20, 21, 22),
)
PLAIN_TURN = sql.Call(
    "agentstate_plain_turn",
    """SELECT runs_turn_plain($1::uuid, $2::uuid, $3::bigint, $4::interval, $5::interval, $6::date, $7::int, $8::int,
      $9::text, $10::int, $11::int, $12::bytea, $13::bytea, $14::bytea, $15::int, $16::bytea, $17::bytea, $18::text,
      $19::text, $20::text, $21::text, $22::bytea, $23::bytea, $24::jsonb)""",
    binary=(1, 2, *range(12, 15), *range(16, 24)),
)
EndArgs = tuple[bytes, bytes, bytes]
StartArgs = tuple[tuple[bytes, ...], tuple[bytes | None, ...]]


class StaleSession(Exception):
    """Another process served this claim meanwhile: load the session again and repeat."""


@dataclass(slots=True)
class Plan:
    """A turn, judged: `done` and `new` go into the SQL call, the rest is done beside it in one transaction."""

    done: list[Done] = field(default_factory=list)
    other_ends: list[tuple[KnownStep, StepFinish]] = field(default_factory=list)
    new: list[NewStep] = field(default_factory=list)
    old: list[tuple[int, StepStart]] = field(default_factory=list)  # (position in the turn, start)
    replies: list[Begun | None] = field(default_factory=list)
    then: Park | End | Continue | None = None
    asks: bool = False  # a new step waits for a person
    destroys: bool = False  # a new step is a destructive effect

    def is_plain(self) -> bool:
        return not (self.other_ends or self.old or self.then or self.asks)

    def is_one_step(self) -> bool:
        """One step begins and at most one ends: a plain turn of the database, unless there is more to say of them."""
        return len(self.new) == 1 and len(self.done) <= 1 and self.new[0].status == "started"

    def is_boundary(self) -> bool:
        """A keyframe stands before destructive effects, at approvals, on pause and at a generation's start."""
        return self.then is not None or self.asks or self.destroys

    def begin(self, step: NewStep) -> None:
        self.new.append(step)
        self.asks = self.asks or step.question is not None
        self.destroys = self.destroys or step.effect == "destructive"


def apply(session: RunSession, turn: Turn) -> TurnReply:
    """Raises: Fenced, NonDeterminism, Invalid, TooLarge, Conflict, StaleSession. Idempotent: see runs_turn."""
    with session.lock:
        if session.broken:
            raise StaleSession
        if session.last is not None and session.last[0] == turn:
            return _again(session, turn, session.last[1])
        fresh = [entry for entry in turn.entries if entry.n > session.entry_seq]
        plan = _plan(session, turn)
        state = session.state if turn.state is UNCHANGED else turn.state
        if isinstance(plan.then, Continue):
            state = plan.then.state
        before = session.window
        window = scratchpad.folded(before, fresh) if fresh else before
        hit("turn.before")
        if plan.is_plain():
            reply = _record(session, plan, state, window, fresh)
        else:
            reply = _record_in_transaction(session, plan, state, window, fresh)
        session.last = (turn, reply)
        hit("turn.committed")
    hit("turn.scratchpad")
    if fresh and reply.status not in OVER:  # a run that is over has left Redis: its entries stand in the trace
        scratchpad.flushed(session, fresh, before=before)
    _hint(session, at_once=not plan.is_plain())
    return reply


def _hint(session: RunSession, *, at_once: bool) -> None:
    """Tell open pages to look, at most ten times a second: a hint costs a turn a fifth of its time.

    A page that found something new looks once more a second later, so the last turn of a burst is seen too.
    """
    now = time.monotonic()
    if at_once or now - session.hinted_at >= HINT_EVERY_S:
        session.hinted_at = now
        wake.publish(wake.live_channel(session.tenant_id, session.run_id), "")


def _again(session: RunSession, turn: Turn, reply: TurnReply) -> TurnReply:
    """The same turn again: its reply was lost. Raises: Fenced, StaleSession.

    Steps it began are ruled on anew from their rows: the time in which they may be called runs from the first reply.
    """
    if turn.start or turn.then is None:
        raise StaleSession
    if reply.status == "running":
        renewing.renew(session.tenant_id, session.run_id, fence=session.fence, lease_s=session.lease_s)
    return reply


def _plan(session: RunSession, turn: Turn) -> Plan:
    plan = Plan(then=turn.then)
    for finish in turn.finish:
        _plan_finish(session, plan, finish)
    for position, start in enumerate(turn.start):
        plan.replies.append(None)
        known = session.steps.get(start.identity)
        if known is None:
            plan.begin(starting.prepare(session, start, position=position))
        else:
            starting.check_same(known, start)
            plan.old.append((position, start))
    if session.steps_counted(plan.new) > GENERATION_STEPS_MAX:
        raise Invalid(
            f"This generation has {GENERATION_STEPS_MAX:,} steps, the most that a resume may have to read. "
            "Close it with continue_from(state).",
            field="/start",
        )
    return plan


def _plan_finish(session: RunSession, plan: Plan, finish: StepFinish) -> None:
    known = session.by_seq(finish.seq)
    if known is None:
        raise Invalid(f"Step {finish.seq} is not in the open generation of this run.", field="/finish/seq")
    if finish.outcome != "done" or finish.source != "worker" or known.fence != session.fence:
        plan.other_ends.append((known, finish))
        return
    output = sealing.canonical_payload(finish.output, what="output")
    output_hash = session.fingerprint(output)
    if known.status == "done":
        if known.output_hash != output_hash:
            raise Conflict(
                f"Step {known.seq} {known.name} is done with another result already; the recorded one stays.",
                field="/finish/output",
            )
        return
    if known.status != "started":
        raise Conflict(f"Step {known.seq} {known.name} is {known.status}, so it cannot be finished.")
    plan.done.append(Done(known, finish, output, output_hash))


def _record(
    session: RunSession, plan: Plan, state: Any, window: list[dict[str, Any]], entries: Any, *, kind: str = "step"
) -> TurnReply:
    """The SQL call and, when it landed, the session brought up to date."""
    frame = _frame(session, plan, state, window, entries, kind)
    if frame.blobs:  # before the turn: an unreferenced blob is dropped by compaction, a missing one is corruption
        with tenant_scope(session.tenant_id):
            for blob in frame.blobs:
                blobs.put(session.run_id, blob)
        hit("turn.blobs")
    answer = _sent(session, plan, entries, frame)
    if answer is None:
        name = public_id("run", session.run_id)
        raise Fenced(f"{name} belongs to another worker, or its lease (fence {session.fence}) has ended.")
    if answer in (b"stale", b"again"):  # again: it landed, but its reply was lost
        raise StaleSession
    first, _, control = answer.decode().partition(" ")
    if first == "refused":
        return _without_starts(session, plan, state, window, entries, control)
    session.writer.advance(frame)
    _landed(session, plan, int(first), state, window, entries)
    return TurnReply(begun=_begun(plan), control=cast("Control", control) if control else None)


def _frame(
    session: RunSession, plan: Plan, state: Any, window: list[dict[str, Any]], entries: Any, kind: str
) -> FrameRow:
    ended = {done.known.identity for done in plan.done}
    pending = [identity for identity in session.pending() if identity not in ended]
    pending += [step.identity for step in plan.new if step.status == "started"]
    return session.writer.prepare(
        session.document(state=state, window=window, noted=_noted(session, plan, entries), pending=pending),
        boundary=plan.is_boundary(),
        steps_digest=ending.digest(plan.done),
        kind=_frame_kind(plan, kind),
        generation=session.generation,
        step_seq=session.step_seq,
        fence=session.fence,
    )


def _record_in_transaction(
    session: RunSession, plan: Plan, state: Any, window: list[dict[str, Any]], entries: Any
) -> TurnReply:
    session.broken = True  # until the transaction is through, the picture is ahead of the database
    with tenant_scope(session.tenant_id):
        reply = _record(session, plan, state, window, entries)
        hit("turn.cold")
        run = going_on.locked(session)
        for known, finish in plan.other_ends:
            ending.end_otherwise(session, run, known, finish)
        if reply.control is None:
            for position, start in plan.old:
                plan.replies[position] = starting.begin_again(session, run, start)
            for step in plan.new:
                if step.question:
                    plan.replies[step.position] = starting.ask(session, run, step)
        status = going_on.go_on(session, run, plan.then) if plan.then else run.status
    session.broken = False
    return TurnReply(begun=_begun(plan), control=reply.control, status=status)


def _without_starts(
    session: RunSession, plan: Plan, state: Any, window: list[dict[str, Any]], entries: Any, control: Any
) -> TurnReply:
    """Somebody stopped, paused or cancelled the run, or its budget is used up: record what ended, begin nothing."""
    left = Plan(done=plan.done, other_ends=plan.other_ends, replies=plan.replies, then=plan.then)
    for step in plan.new:
        if step.status == "done":
            left.begin(step)
    reply = _record(session, left, state, window, entries)
    plan.new, plan.old = [], []
    return TurnReply(begun=reply.begun, control=control)


def _frame_kind(plan: Plan, kind: str) -> str:
    if isinstance(plan.then, Continue):
        return "generation"
    if plan.asks:
        return "approval"
    if plan.destroys:
        return "effect"
    return "pause" if isinstance(plan.then, Park) else kind


def _sent(session: RunSession, plan: Plan, entries: Any, frame: FrameRow) -> bytes | None:
    """What the database answers. A turn that it does not take for a plain one is sent whole, for a while at once."""
    run = [
        *(*session.named, b"%d" % frame.n, None if frame.base_n is None else b"%d" % frame.base_n),
        *(frame.kind.encode(), b"%d" % frame.schema_version, b"%d" % frame.plain_bytes),
        *(frame.body, frame.sha, frame.chain),
    ]
    told = orjson.dumps({"ended": [done.known.seq for done in plan.done], "begun": len(plan.new)})
    more = _more(session, plan, entries)
    ends = [_end(session, done) for done in plan.done]
    starts = [(starting.texts_of(step), starting.bodies_of(session, step)) for step in plan.new]
    if more is None and plan.is_one_step() and time.monotonic() >= session.closer_until:
        end = ends[0] if ends else (None, None, None)
        answer = PLAIN_TURN([*run, *end, *starts[0][0][:4], *starts[0][1][:2], told])
        if answer is not None:
            return answer
        session.closer_until = time.monotonic() + CLOSER_FOR_S
    sealed = sql.array([_sealed_entry(session, entry) for entry in entries], of=sql.BYTEA)
    return TURN([*run, *_arrays(plan, ends, starts), sealed, told, None if more is None else orjson.dumps(more)])


def _end(session: RunSession, done: Done) -> EndArgs:
    """p_end to p_output_hash of runs_turn_plain."""
    return b"%d" % done.known.seq, session.seal_step(done.known.identity, "output", done.output), done.output_hash


def _arrays(plan: Plan, ends: list[EndArgs], starts: list[StartArgs]) -> list[bytes]:
    """p_ends to p_inputs of runs_turn."""
    return [
        *(b"%d" % len(ends), sql.integers([done.known.seq for done in plan.done])),
        sql.array([body for end in ends for body in end[1:]], of=sql.BYTEA, width=2),
        *(b"%d" % len(starts), b"%d" % sum(step.status != "done" for step in plan.new)),
        sql.array([text for texts, _ in starts for text in texts], of=sql.TEXT, width=5),
        sql.array([body for _, bodies in starts for body in bodies], of=sql.BYTEA, width=4),
    ]


def _more(session: RunSession, plan: Plan, entries: Any) -> dict[str, Any] | None:
    """What few turns have, for p_more; None where there is nothing of it."""
    more: dict[str, Any] = {}
    usage = [done.finish.usage for done in plan.done if done.finish.usage]
    if usage:
        more["tin"] = sum(item.tokens_in for item in usage)
        more["tout"] = sum(item.tokens_out for item in usage)
        more["cost"] = sum(item.cost for item in usage)
        more["finish"] = [ending.usage_json(done) for done in plan.done]
    options = [starting.options_json(step) for step in plan.new]
    if any(options):
        more["start"] = options
    if entries:
        more["entry"] = [{"n": entry.n, "tokens": entry.tokens or tokens.count(entry.text)} for entry in entries]
    audit = [starting.effect_act(done.known, "settled") for done in plan.done if done.known.key]
    audit += [starting.effect_act(step, "claimed") for step in plan.new if step.key and step.status == "started"]
    if audit:
        more["audit"] = audit
    return more or None


def _sealed_entry(session: RunSession, entry: Entry) -> bytes:
    plain = canonical.dumps(scratchpad.entry_json(entry))
    return sealing.seal_entry(session.key, session.tenant_id, session.run_id, entry.n, plain)


def _landed(
    session: RunSession, plan: Plan, first_seq: int, state: Any, window: list[dict[str, Any]], entries: Any
) -> None:
    for done in plan.done:
        done.known.status = "done"
        done.known.output_hash = done.output_hash
    for offset, step in enumerate(plan.new):
        known = starting.remember(session, step, seq=first_seq + offset)
        plan.replies[step.position] = starting.begun(step, known, session)
    session.step_seq = first_seq + len(plan.new) - 1
    session.state, session.window = state, window
    session.noted = _noted(session, plan, entries)
    session.entry_seq += len(entries)


def _noted(session: RunSession, plan: Plan, entries: Any) -> dict[str, int]:
    """Main starts anew with a generation, and so does the count of what it has written."""
    if isinstance(plan.then, Continue):
        return {}
    return noted_after(session.noted, entries) if entries else session.noted


def _begun(plan: Plan) -> list[Begun]:
    return [reply for reply in plan.replies if reply is not None]
