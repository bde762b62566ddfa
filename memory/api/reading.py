"""Recall, the preview of a context, and the injection ledger."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.http.schemas import Problem
from agentstate.http.waiting import offloaded
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from memory.api import acting
from memory.api.acting import named
from memory.context import asking, building
from memory.context.building import Context, ContextRequest
from memory.recall import questions
from memory.recall.questions import Asked
from memory.schemas.parts import CursorQuery
from memory.schemas.reading import (
    BlockOut,
    CallOut,
    CallPageOut,
    ContextIn,
    ContextOut,
    HitOut,
    InjectedOut,
    InjectedQuery,
    LeftOutOut,
    LineOut,
    RecallIn,
    RecallOut,
    SourceUsesOut,
)
from memory.selectors import ledger
from memory.selectors import sessions as session_reads
from memory.selectors.ledger import Call, Line
from memory.services import recalling
from memory.services.recalling import Found

router = Router()
SOURCES = ("item", "message", "summary", "prompt", "progress")


@router.post("/memory/recall", response={200: RecallOut, (404, 422): Problem}, operation_id="recall")
@offloaded
def recall(request: HttpRequest, wanted: RecallIn) -> RecallOut:
    """The messages and items of a subject that answer a question best, with the parts of every score."""
    actor = acting.reader(request)
    with acting.pointing():
        asked = _asked(actor, wanted.question)

    def read() -> RecallOut:
        answer = recalling.ask(
            acting.subject_of(wanted.subject),
            asked,
            k=wanted.k,
            kinds=wanted.kinds,
            session_id=session_reads.find(wanted.session).id if wanted.session else None,
            authors=wanted.authors,
            after=wanted.after,
            before=wanted.before,
            at=wanted.at,
            namespace=wanted.namespace,
            explain=wanted.explain,
        )
        return RecallOut(
            hits=[_hit(each) for each in answer.found],
            rung=answer.rung,
            degraded_because=answer.degraded_because,
            units=answer.units,
            took_ms=answer.took,
        )

    with acting.pointing():
        return acting.read(actor, read)


@router.post("/memory/context", response={200: ContextOut, (404, 409, 422): Problem}, operation_id="preview_context")
@offloaded
def preview(request: HttpRequest, wanted: ContextIn) -> ContextOut:
    """What a call would be given: by the same function as the call, with nothing recorded."""
    actor = acting.reader(request)
    with acting.pointing():
        session_id = parse_id("session", wanted.session) if wanted.session.startswith("session_") else None
        of = asking.of_session(agent=wanted.agent, session=session_id or wanted.session)
        is_question = bool(wanted.question.strip())
        asked = asking.asked(wanted.question, tenant_id=actors.tenant_of(actor), of=of) if is_question else ""

    def read() -> ContextOut:
        asks = ContextRequest(
            session_id=session_id,
            session_key="" if session_id else wanted.session,
            agent=wanted.agent,
            question=asked,
            budget_tokens=wanted.budget_tokens,
            strategy=wanted.strategy,
        )
        return _context(building.build(asks, record=False))

    with acting.pointing():
        return acting.read(actor, read)


@router.get("/memory/ledger/step", response={200: InjectedOut, (404, 422): Problem}, operation_id="injected_in_step")
@offloaded
def of_step(request: HttpRequest, wanted: Query[InjectedQuery]) -> InjectedOut:
    """What a step was given, word for word; empty for one that read no memory."""
    actor = acting.reader(request)
    acting.only(request, wanted)
    lines = acting.read(actor, lambda: ledger.of_step(parse_id("run", wanted.run_id), wanted.step_seq))
    return InjectedOut(lines=[_line(each) for each in lines])


@router.get(
    "/memory/ledger/sources/{source_id}", response={200: SourceUsesOut, 404: Problem}, operation_id="uses_of_source"
)
@offloaded
def of_source(request: HttpRequest, source_id: str) -> SourceUsesOut:
    """In which runs an item, message, summary, prompt or progress document was put before a model."""
    actor = acting.reader(request)
    uses = acting.read(actor, lambda: ledger.uses_of(_source(source_id)))
    runs = [public_id("run", each) for each in uses.run_ids]
    return SourceUsesOut(source_id=source_id, runs=uses.count, run_ids=runs, last_at=uses.last_at)


@router.get(
    "/memory/ledger/sessions/{session_id}", response={200: CallPageOut, 404: Problem}, operation_id="calls_of_session"
)
@offloaded
def of_session(request: HttpRequest, session_id: str, wanted: Query[CursorQuery]) -> CallPageOut:
    """The calls made for a session, newest first, each with what it was given."""
    actor = acting.reader(request)
    acting.only(request, wanted)

    def read() -> CallPageOut:
        found = session_reads.find(session_id)
        before = parse_id("call", wanted.cursor) if wanted.cursor else None
        calls = ledger.of_session(found.id, before=before)
        following = public_id("call", calls[-1].call_id) if calls else ""
        return CallPageOut(calls=[_call(each) for each in calls], next=following)

    return acting.read(actor, read)


def _source(source_id: str) -> UUID:
    prefix = source_id.partition("_")[0]
    if prefix not in SOURCES:
        raise NotFound(f"A source is one of {', '.join(SOURCES)}.")
    return parse_id(prefix, source_id)


def _asked(actor: Actor, question: str) -> Asked:
    """May ask models: before the transaction."""
    return questions.asked(question, tenant_id=actors.tenant_of(actor))


def _hit(found: Found) -> HitOut:
    hit = found.hit
    return HitOut(
        id=found.public_id,
        kind=hit.kind,
        text=found.text,
        version=found.version,
        score=hit.score,
        scores=hit.scores,
        session_id=named("session", hit.session_id),
        author=found.author,
        at=hit.sent_at,
        matched=list(hit.matched),
        raw=hit.raw,
    )


def _context(built: Context) -> ContextOut:
    own = {"source_id"}
    blocks = [
        BlockOut(
            source_id=public_id(block.source, block.source_id),
            **{name: getattr(block, name) for name in BlockOut.model_fields.keys() - own},
        )
        for block in built.blocks
    ]
    left_out = [
        LeftOutOut(
            part=left.part,
            source_id=public_id(left.source, left.source_id) if left.source_id else None,
            tokens=left.tokens,
            why=left.reason,
            count=left.count,
            from_seq=left.from_seq,
            to_seq=left.to_seq,
        )
        for left in built.account.left_out
    ]
    account = built.account
    return ContextOut(
        text=built.text,
        blocks=blocks,
        budget_tokens=account.budget,
        used_tokens=account.used,
        strategy=account.strategy,
        left_out=left_out,
    )


def _line(line: Line) -> LineOut:
    plain = {name: getattr(line, name) for name in LineOut.model_fields.keys() - {"source_id"}}
    return LineOut(source_id=line.public_id, **plain)


def _call(call: Call) -> CallOut:
    return CallOut(
        call_id=public_id("call", call.call_id),
        run_id=named("run", call.run_id),
        step_seq=call.step_seq,
        at=call.at,
        lines=[_line(line) for line in call.lines],
    )
