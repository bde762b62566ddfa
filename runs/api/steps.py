"""One step over HTTP: its identity out of name and key, and waiting until it can go on."""

from __future__ import annotations

from typing import Any, Literal

from agentstate.core import clock
from agentstate.core.errors import Invalid, NotFound
from agentstate.core.ids import parse_id
from agentstate.db import wake
from agentstate.http import waiting
from agentstate.sdk import wire
from agentstate.sdk.identity import Scope, check_name
from agentstate.sdk.store import StepStart
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from runs.api import approvals, requests
from runs.schemas.runs import FailureOut
from runs.schemas.work import StepOut
from runs.selectors import approvals as inbox
from runs.selectors import runs as listing
from runs.selectors import steps

SEQ_MAX = 2**31 - 1
KEY_CHARS_MAX = 200


def read(sent: dict[str, Any]) -> tuple[StepStart, bool]:
    """The step of a request body and whether to park on wait. Raises: Invalid naming the field."""
    rest = {name: value for name, value in sent.items() if name not in ("key", "ordinal", "park", "identity")}
    if "identity" in sent:
        raise Invalid("Send name, and key or ordinal; the identity is made of them.", field="/identity")
    start = wire.decode(StepStart, {**rest, "identity": ""})
    key = _member(sent, "key", str, "")
    ordinal = _member(sent, "ordinal", int, 1)
    identity = _identity(start, key=key, ordinal=ordinal)
    return wire.decode(StepStart, {**rest, "identity": identity}), _member(sent, "park", bool, True)


async def settled(actor: Actor, run_id: str, seq: int, *, wait_s: float) -> StepOut:
    """The step when it can go on, or as it stands after wait_s. Raises: NotFound."""
    if not 0 < seq <= SEQ_MAX:
        raise NotFound("This run has no such step.")
    newest: list[StepOut] = []

    async def look() -> StepOut | None:
        newest[:] = [await waiting.in_database(lambda: requests.scoped(actor, lambda: _shown(run_id, seq)))]
        return newest[0] if newest[0].next == "begin" else None

    # The channel is named by what was asked for: a run of somebody else has no hints, and is not found anyway.
    run = parse_id("run", run_id)
    await waiting.until(wake.live_channel(actors.tenant_of(actor), run), wait_s=wait_s, look=look)
    return newest[0]


def _identity(start: StepStart, *, key: str, ordinal: int) -> str:
    try:
        check_name(start.name)
    except ValueError as error:
        raise Invalid(str(error), field="/name") from None
    if len(key) > KEY_CHARS_MAX:
        raise Invalid(f"A key has at most {KEY_CHARS_MAX} characters.", field="/key")
    if not 0 < ordinal <= SEQ_MAX:
        raise Invalid("Ordinals count from 1.", field="/ordinal")
    scope = Scope(start.parent, parent=start.parent)
    if key:
        return scope.reserve(start.name, key=key)
    return f"{start.parent}/{start.name}#{ordinal}" if start.parent else f"{start.name}#{ordinal}"


def _member(sent: dict[str, Any], name: str, kind: type[wire.AnyType], default: wire.AnyType) -> wire.AnyType:
    try:
        return wire.decode(kind, sent[name]) if name in sent else default
    except Invalid as fault:
        fault.field = f"/{name}"
        raise


def _shown(run_id: str, seq: int) -> StepOut:
    run = listing.find(run_id)
    found = steps.detail(run, seq)
    questions = inbox.of_run(run, step_seq=seq)
    question = approvals.shown(questions[-1]) if questions else None
    row = found.row
    return StepOut(
        seq=row.seq,
        identity=row.identity,
        name=row.name,
        kind=row.kind,
        effect=row.effect,
        status=row.status,
        outcome=row.outcome,
        attempt=row.attempt,
        key=found.key,
        source=row.source,
        input=found.input,
        output=found.output,
        failure=FailureOut(**found.error) if found.error else None,
        started_at=row.started_at,
        ended_at=row.ended_at,
        due_at=row.due_at,
        approval=question,
        next=_next(row, pending=any(each.pending for each in questions)),
        corrupt=found.corrupt,
    )


def _next(row: steps.StepRow, *, pending: bool) -> Literal["wait", "begin"]:
    if row.status == "waiting" and row.kind == "timer":
        return "wait" if row.due_at is not None and row.due_at > clock.now() else "begin"
    return "wait" if pending or row.status == "started" else "begin"
