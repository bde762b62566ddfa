"""The calls of a worker: claim, heartbeat, turn; and the same in small for an agent that is a shell script.

These views are async and do their work in waiting.in_database: a few threads keep their connections, so a turn costs no
new thread and no connection set-up, and a long poll holds neither while it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

from django.http import HttpRequest, HttpResponse
from ninja import Router
from ninja.params.functions import Query

from agentstate.core.errors import Conflict, Invalid
from agentstate.core.limits import LONG_POLL_S_MAX, NAME_CHARS_MAX
from agentstate.http import waiting
from agentstate.http.schemas import Problem
from agentstate.sdk import wire
from agentstate.sdk.store import Begun, Claim, End, Failure, Park, StepFinish, StepStart, Turn
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from runs.api import requests, steps
from runs.engine.store import LocalStore
from runs.schemas.pads import PadOut
from runs.schemas.protocol import (
    MEMORY_BODIES,
    BegunOut,
    ClaimIn,
    ClaimOut,
    RenewalOut,
    ScratchpadIn,
    StepFinishIn,
    TurnIn,
    TurnReplyOut,
)
from runs.schemas.work import CompleteIn, FailIn, FinishIn, StatusOut, StepIn, StepOut
from runs.selectors import pads, story

router = Router()
REFUSALS = {(404, 409, 413, 422): Problem}
FENCED = {"parameters": [requests.FENCE_HEADER]}


BOOT_ID_CHARS_MAX = 64
_PARKS = ("wait", "doubt")
_STOPPED = {
    "stop": "An emergency stop is active for this agent: no step may begin until it is lifted.",
    "pause": "A person asked to pause this run. Send a turn with then: {park: {why: pause}}.",
    "cancel": "A person cancelled this run. Send a turn with then: {end: {outcome: cancelled}}.",
    "budget": "The run's budget is used up. Send a turn with then: {park: {why: budget}}.",
}


def _reads(schema: type[Any], *, fenced: bool = True) -> dict[str, Any]:
    return {**(FENCED if fenced else {}), "requestBody": requests.documented(schema)}


def _reads_any(*schemas: type[Any]) -> dict[str, Any]:
    return {
        "parameters": [requests.FENCE_HEADER, requests.IDEMPOTENCY_HEADER],
        "requestBody": requests.documented(*schemas),
    }


@router.post(
    "/runs/claim",
    response={200: ClaimOut, 204: None, **REFUSALS},
    operation_id="claim_run",
    openapi_extra=_reads(ClaimIn, fenced=False),
)
async def claim(request: HttpRequest) -> HttpResponse:
    """Take the lease of the oldest due run of these agents; 204 when none came within wait_s."""
    return await _claim(request, "")


@router.post(
    "/runs/{run_id}/claim",
    response={200: ClaimOut, 204: None, **REFUSALS},
    operation_id="claim_one_run",
    openapi_extra=_reads(ClaimIn, fenced=False),
)
async def claim_one(request: HttpRequest, run_id: str) -> HttpResponse:
    """Take the lease of this run; 204 when it is not due, or somebody drives it, for all of wait_s."""
    return await _claim(request, run_id)


@router.put(
    "/runs/{run_id}/lease",
    response={200: RenewalOut, **REFUSALS},
    operation_id="renew_lease",
    openapi_extra=FENCED,
)
async def renew(request: HttpRequest, run_id: str) -> HttpResponse:
    """Heartbeat. 409 `fenced`: somebody else has the run, or the lease has ended; stop at once."""
    return await _answered(request, lambda store: store.renew(requests.held(request, run_id)))


@router.post(
    "/runs/{run_id}/turn",
    response={200: TurnReplyOut, **REFUSALS},
    operation_id="turn",
    openapi_extra=_reads(TurnIn),
)
async def turn(request: HttpRequest, run_id: str) -> HttpResponse:
    """Which steps ended, which begin, and how the run goes on: atomic, and sent twice it gives the same answer."""
    actor: Actor = request.auth  # type: ignore[attr-defined]
    sent, fence = request.body, request.headers.get("Run-Fence", "")
    found = await waiting.in_database(lambda: turned(actor, run_id, fence=fence, sent=sent))
    return HttpResponse(found, content_type="application/json")


def turned(actor: Actor, run_id: str, *, fence: str, sent: bytes) -> bytes:
    """A turn, from the bytes of its body to those of its answer: for the view and for agentstate.api.direct.

    Waits for the database. Raises: Invalid, Forbidden, and what LocalStore.turn raises.
    """
    wanted = wire.decode(Turn, requests.parsed(sent))
    actors.require(actor, "runs.work")
    claim = Claim(run_id=run_id, agent="", fence=requests.fence_in(fence), lease_s=0.0)
    return wire.reply(requests.worker_store(actor).turn(claim, wanted))


@router.post(
    "/runs/{run_id}/steps",
    response={200: BegunOut, **REFUSALS},
    operation_id="begin_step",
    openapi_extra=_reads(StepIn),
)
async def begin(request: HttpRequest, run_id: str) -> HttpResponse:
    """Begin one step, or ask how it stands: execute, replay, wait, rejected, skip, failed, probe or doubt."""
    start, park = steps.read(requests.body(request))
    return await _answered(request, lambda store: _begin(store, requests.held(request, run_id), start, park=park))


@router.put(
    "/runs/{run_id}/steps/{seq}",
    response={200: StatusOut, **REFUSALS},
    operation_id="finish_step",
    openapi_extra=_reads(FinishIn),
)
async def finish(request: HttpRequest, run_id: str, seq: int) -> HttpResponse:
    """The end of one attempt. The same end again is harmless; another one is refused with 409."""
    ended = wire.decode(StepFinish, {**requests.body(request), "seq": seq})
    return await _answered(request, lambda store: _status(run_id, store, request, Turn(finish=[ended])))


@router.get("/runs/{run_id}/steps/{seq}", response={200: StepOut, 404: Problem}, operation_id="get_step", by_alias=True)
async def get_step(
    request: HttpRequest, run_id: str, seq: int, wait: Annotated[float, Query(ge=0, le=LONG_POLL_S_MAX)] = 0.0
) -> StepOut:
    """One step with its question. With `wait` the answer comes when it is decided or over, or after so many seconds."""
    actor = requests.allowed(request, "runs.read")
    return await steps.settled(actor, run_id, seq, wait_s=wait)


@router.post(
    "/runs/{run_id}/complete",
    response={200: StatusOut, **REFUSALS},
    operation_id="complete_run",
    openapi_extra=FENCED,
)
async def complete(request: HttpRequest, run_id: str, wanted: CompleteIn) -> HttpResponse:
    """The run succeeded."""
    end = End("succeeded", output=wanted.output)
    return await _answered(request, lambda store: _status(run_id, store, request, Turn(then=end)))


@router.post(
    "/runs/{run_id}/fail", response={200: StatusOut, **REFUSALS}, operation_id="fail_run", openapi_extra=FENCED
)
async def fail(request: HttpRequest, run_id: str, wanted: FailIn) -> HttpResponse:
    """The run failed; a person can resume it."""
    end = End("failed", failure=Failure(wanted.type, wanted.message))
    return await _answered(request, lambda store: _status(run_id, store, request, Turn(then=end)))


@router.post(
    "/runs/{run_id}/scratchpad",
    response={204: None, **REFUSALS},
    operation_id="note",
    openapi_extra=_reads(ScratchpadIn),
)
async def note(request: HttpRequest, run_id: str) -> HttpResponse:
    """Show entries in the live scratchpad at once; `durable` also writes them into the trace."""
    wanted = wire.decode(wire.ScratchpadRequest, requests.body(request))
    return await _answered(request, lambda store: _note(store, requests.held(request, run_id), wanted))


@router.get("/runs/{run_id}/scratchpad", response={200: PadOut, 404: Problem}, operation_id="get_scratchpad")
@waiting.offloaded
def get_scratchpad(request: HttpRequest, run_id: str) -> PadOut:
    """The entries in force, how full they make the context budget, and what was masked and summarised.

    The full text of every entry stands in the run's events.
    """
    actor = requests.allowed(request, "runs.read")
    return requests.scoped(actor, lambda: PadOut(**pads.plain(pads.read(story.find(run_id)))))


@router.post(
    "/runs/{run_id}/memory/{act}",
    response={200: dict[str, Any], **REFUSALS},
    operation_id="memory_act",
    openapi_extra=_reads_any(*MEMORY_BODIES),
)
async def memory_act(
    request: HttpRequest, run_id: str, act: str, step_seq: Annotated[int, Query(ge=1, le=2**31 - 1)]
) -> HttpResponse:
    """Read or write memory for a step of kind `memory` that was begun under this claim.

    Acts: session, say, undo, context, recall, remember, forget, propose, read-progress, write-progress, prompt. A write
    is begun as `keyed` and sends the key of its step as Idempotency-Key: asked again it gives the same answer.
    """
    wanted, key = requests.body(request), requests.idempotency_key(request)
    return await _answered(
        request, lambda store: store.memory(requests.held(request, run_id), act, wanted, step_seq=step_seq, key=key)
    )


@router.post(
    "/runs/{run_id}/late",
    response={204: None, **REFUSALS},
    operation_id="late_reply",
    openapi_extra=_reads(StepFinishIn),
)
async def late(request: HttpRequest, run_id: str) -> HttpResponse:
    """The reply of a call that came after the lease was lost: kept as evidence, the step is not touched."""
    ended = wire.decode(StepFinish, requests.body(request))
    return await _answered(request, lambda store: store.late(requests.held(request, run_id), ended))


async def _answered(request: HttpRequest, call: Callable[[LocalStore], Any]) -> HttpResponse:
    """Ask the store in a database thread; a method without an answer is 204."""
    store = requests.worker_store(requests.allowed(request, "runs.work"))
    found = await waiting.in_database(lambda: call(store))
    return HttpResponse(status=204) if found is None else requests.answer(found)


async def _claim(request: HttpRequest, run_id: str) -> HttpResponse:
    wanted = wire.decode(wire.ClaimRequest, requests.body(request))
    _check_claim(wanted)
    actor = requests.allowed(request, "runs.work")
    store = requests.worker_store(actor)
    found = await waiting.until(
        f"as:{actors.tenant_of(actor)}:wake",
        wait_s=wanted.wait_s,
        look=lambda: _taken(store, lambda: store.claim(wanted.worker, agents=wanted.agents, run_id=run_id)),
    )
    return HttpResponse(status=204) if found is None else requests.answer(found)


def _check_claim(wanted: wire.ClaimRequest) -> None:
    """Raises: Invalid naming the field."""
    if not 0 <= wanted.wait_s <= LONG_POLL_S_MAX:
        raise Invalid(f"Wait between 0 and {LONG_POLL_S_MAX} seconds, then ask again.", field="/wait_s")
    for name, chars_max in (("name", NAME_CHARS_MAX), ("host", NAME_CHARS_MAX), ("boot_id", BOOT_ID_CHARS_MAX)):
        if len(getattr(wanted.worker, name)) > chars_max:
            raise Invalid(f"At most {chars_max} characters are kept here.", field=f"/worker/{name}")
    if not 0 <= wanted.worker.pid < 2**31:
        raise Invalid("A process id is between 0 and 2147483647.", field="/worker/pid")
    for name, agent in wanted.agents.items():
        if agent.name != name:
            raise Invalid(f"The entry {name[:80]!r} describes {agent.name[:80]!r}.", field=f"/agents/{name[:80]}/name")


async def _taken(store: LocalStore, take: Callable[[], Claim | None]) -> Claim | None:
    """A claim whose caller hangs up meanwhile is given back at once, not when its lease ends."""
    taking = asyncio.ensure_future(waiting.in_database(take))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        claim = await taking
        if claim is not None:
            back = Turn(then=Park("shutdown", detail="the caller hung up"))
            await waiting.in_database(lambda: store.turn(claim, back))
        raise


def _begin(store: LocalStore, claim: Claim, start: StepStart, *, park: bool) -> Begun:
    reply = store.turn(claim, Turn(start=[start]))
    if not reply.begun:
        raise Conflict(_STOPPED[reply.control or "stop"], control=reply.control, status=reply.status)
    begun = reply.begun[0]
    if park and begun.action in _PARKS:
        store.turn(claim, Turn(then=Park(_why(start, begun), due_s=begun.wait_s)))
    return begun


def _why(start: StepStart, begun: Begun) -> Literal["approval", "timer", "in_doubt"]:
    if begun.action == "doubt":
        return "in_doubt"
    return "timer" if begun.wait_s is not None else "approval"


def _status(run_id: str, store: LocalStore, request: HttpRequest, turn: Turn) -> dict[str, Any]:
    reply = store.turn(requests.held(request, run_id), turn)
    return {"run_id": run_id, "status": reply.status, "control": reply.control}


def _note(store: LocalStore, claim: Claim, wanted: wire.ScratchpadRequest) -> None:
    store.note(claim, wanted.entries)
    if wanted.durable:
        store.turn(claim, Turn(entries=wanted.entries))
