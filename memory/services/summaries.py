"""Summaries of sessions, folded segment by segment behind the conversation, and of subjects.

A session is summarised in three steps: what to tell is read, it is told outside any transaction (a model may take its
time), and it is kept under the session's row if nothing has moved meanwhile. Killed anywhere or done twice at once, a
segment is told once. Summaries never change: the newest that is not stale counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.db import connection
from django.db.models import Exists, F, OuterRef

from agentstate.core import clock
from agentstate.core.errors import DomainError
from agentstate.core.failpoints import hit, register
from agentstate.tenants.scope import tenant_scope
from memory import keys, policies, sealing
from memory.models import Message, Session, Summary, Upkeep
from memory.policies import AgentPolicy
from memory.selectors import messages as message_reads
from memory.selectors import summaries as reads
from memory.selectors.messages import OpenedMessage
from memory.selectors.summaries import OpenedSummary
from memory.services import folding, recording, turns, upkeep
from memory.services.folding import Told
from memory.services.upkeep import Progressed
from memory.states import SessionStatus

log = structlog.get_logger(__name__)
register("memory.summarise.told", "a segment read and told / its summaries")

NAME = "summarise"
BATCH_SESSIONS = 20  # told in one transaction
LOOKED_MAX = 200
SUBJECT_SESSIONS_MAX = 20  # the latest, of which a subject's summary is told


@dataclass(frozen=True, slots=True)
class Work:
    """The next segment of a session, and what it was when it was read."""

    session_id: UUID
    version: int
    summarised_seq: int
    to_seq: int  # what the session is summarised to afterwards
    messages: Sequence[OpenedMessage]
    former: OpenedSummary | None
    policy: AgentPolicy


@dataclass(frozen=True, slots=True)
class Kept:
    turns: list[Told]
    segment: Told
    session: Told


def work_on(session: Session, policy: AgentPolicy) -> Work | None:
    """The next segment; None when it is not due yet."""
    most, ended = policy.summarise_at_messages, session.status != SessionStatus.OPEN
    messages = message_reads.following(session.id, session.summarised_seq, rows_max=most + 1 if ended else most)
    chosen = folding.segment_of(messages, most=most, whole=ended)
    if not chosen and not ended:
        return None
    # An ended session whose last messages were taken back is summarised to its end as well.
    to_seq = session.last_seq if len(chosen) == len(messages) and ended else chosen[-1].seq
    former = reads.running(session.id) if session.summarised_seq else None
    return Work(session.id, session.version, session.summarised_seq, to_seq, chosen, former, policy)


def tell(work: Work) -> Kept | None:
    """Tell the segment and fold it in; None when nothing stands in it. No database; a model if the policy asks."""
    if not work.messages:
        return None
    by, most = work.policy.summarise_with, work.policy.summary_tokens
    turns = [folding.turn(messages) for messages in folding.turns_of(work.messages)]
    segment = folding.segment(work.messages, tokens_max=most, by=by)
    session = folding.session(_told(work.former) if work.former else None, segment, tokens_max=most, by=by)
    return Kept(turns, segment, session)


def keep(work: Work, kept: Kept | None) -> bool:
    """Make it rows; False when somebody else was first or the session has changed. Asserts a transaction.

    Locks: session.
    """
    assert connection.in_atomic_block, "summaries and how far the session is summarised are one transaction"
    session = recording.locked(work.session_id)
    if (session.version, session.summarised_seq) != (work.version, work.summarised_seq):
        return False
    if kept is not None:
        _keep(session, work, kept)
    session.summarised_seq = work.to_seq
    session.save(update_fields=["summarised_seq"])
    if session.status != SessionStatus.OPEN:
        tell_subject(session.subject_id)
    return True


def tell_subject(subject_id: UUID) -> Summary | None:
    """What the subject's sessions have come to; None when they have not come to anything, or to nothing new."""
    # Index: memory_summary_subject.
    found = Summary.objects.filter(subject_id=subject_id, level="session", stale=False).order_by("-created_at", "-id")
    latest = sorted(reads.opened(found[:SUBJECT_SESSIONS_MAX]), key=lambda summary: (summary.created_at, summary.id))
    fresh = Summary.objects.filter(subject_id=subject_id, level="subject", stale=False)
    if not latest:
        fresh.update(stale=True)
        return None
    told = folding.subject(
        [_told(one) for one in latest],
        tokens_max=policies.for_agent("").summary_tokens,
        by="extractive",
    )
    former = reads.of_subject(subject_id)
    if former is not None and former.text == told.text and former.source_ids == list(told.source_ids):
        return None
    fresh.update(stale=True)
    row = _row(subject_id, told, keys.existing(subject_id), session=None)
    row.save(force_insert=True)
    return row


def summarise_due(tenant_id: UUID, *, until_s: float) -> int:
    """Fold segments of this tenant's sessions until nothing is due, or the monotonic moment; how many.

    Two at once are harmless: the second finds the first at it, or, without Redis, tells what will not be kept.
    Visible as the upkeep "summarise".
    """
    with turns.taken(tenant_id, NAME, for_s=until_s - time.monotonic()) as is_ours:
        return _folded_until(tenant_id, until_s) if is_ours else 0


def take_back(session: Session, from_seq: int) -> None:
    """Messages from this number on were taken back: what was told of them is stale, what was told before counts again.

    Asserts that the session is held. Its next segments are told again.
    """
    if session.summarised_seq < from_seq:
        return
    mine = Summary.objects.filter(session=session)
    mine.filter(stale=False, to_seq__gte=from_seq).update(stale=True)
    undone = Message.objects.filter(
        session=session, seq__lte=OuterRef("to_seq"), undone_in__gt=OuterRef("session_version")
    )
    # A former summary may itself be of messages that an earlier undo took back.
    former = (
        mine.filter(level="session", to_seq__lt=from_seq).exclude(Exists(undone)).order_by("-to_seq", "-id").first()
    )
    session.summarised_seq = former.to_seq if former is not None else 0
    mine.filter(stale=False, from_seq__gt=session.summarised_seq).update(stale=True)
    if former is not None:
        mine.filter(id=former.id).update(stale=False)
    session.save(update_fields=["summarised_seq"])
    if reads.of_subject(session.subject_id) is not None:
        tell_subject(session.subject_id)


def _folded_until(tenant_id: UUID, until_s: float) -> int:
    done = in_round = 0
    while time.monotonic() < until_s:
        with tenant_scope(tenant_id):
            batch = _next_batch()
        told = []
        for work in batch.works:
            told.append((work, tell(work)))
            hit("memory.summarise.told")
            if time.monotonic() >= until_s:
                break
        progressed = _keep_batch(tenant_id, batch, told)
        if progressed is None or progressed.failed:
            break
        done, in_round = done + progressed.done, in_round + progressed.done
        if progressed.is_over:
            if not in_round:
                break
            in_round = 0
    return done


@dataclass(frozen=True, slots=True)
class _Batch:
    """Work on some of the sessions behind the cursor. `over`: there is none behind them."""

    works: list[Work]
    cursor: str
    over: bool


def _next_batch() -> _Batch:
    row = Upkeep.objects.filter(name=NAME).first()
    after = UUID(row.cursor) if row is not None and row.cursor else UUID(int=0)
    # Index: memory_session_untold.
    found = Session.objects.filter(last_seq__gt=F("summarised_seq"), id__gt=after).order_by("id")
    looked = list(found[:LOOKED_MAX])
    agents = {name: policies.for_agent(name) for name in {session.agent for session in looked}}
    works: list[Work] = []
    for place, session in enumerate(looked):
        if len(works) == BATCH_SESSIONS:
            return _Batch(works, str(looked[place - 1].id), False)
        work = _work_if_due(session, agents[session.agent])
        if work is not None:
            works.append(work)
    return _Batch(works, str(looked[-1].id) if looked else "", len(looked) < LOOKED_MAX)


def _work_if_due(session: Session, policy: AgentPolicy) -> Work | None:
    short = session.last_seq - session.summarised_seq < policy.summarise_at_messages
    if short and session.status == SessionStatus.OPEN:
        return None
    try:
        return work_on(session, policy)
    except DomainError as error:  # one that does not open must not keep the others
        log.warning("memory.summarise_refused", session=str(session.id), error=error.code)
        return None


def _keep_batch(tenant_id: UUID, batch: _Batch, told: Sequence[tuple[Work, Kept | None]]) -> Progressed | None:
    """`told` may be fewer than the batch has, when time was over: the next round goes on behind them."""
    whole = len(told) == len(batch.works)
    cursor = batch.cursor if whole else str(told[-1][0].session_id)

    def kept(_: str) -> Progressed:
        return Progressed(cursor, sum(keep(work, made) for work, made in told), batch.over and whole)

    with tenant_scope(tenant_id, durable=True):
        return upkeep.step(NAME, kept)


def _keep(session: Session, work: Work, kept: Kept) -> None:
    key = keys.existing(session.subject_id)
    segment = _row(session.subject_id, kept.segment, key, session=session)
    running = _row(session.subject_id, kept.session, key, session=session)
    running.source_ids = [*([work.former.id] if work.former is not None else []), segment.id]
    if work.former is not None:
        Summary.objects.filter(id=work.former.id).update(stale=True)
    turns = [_row(session.subject_id, turn, key, session=session) for turn in kept.turns]
    Summary.objects.bulk_create([*turns, segment, running])


def _row(subject_id: UUID, told: Told, key: bytes, *, session: Session | None) -> Summary:
    row = Summary(
        subject_id=subject_id,
        session=session,
        level=told.level,
        from_seq=told.from_seq,
        to_seq=told.to_seq,
        session_version=session.version if session is not None else 1,
        tokens=told.tokens,
        source_ids=list(told.source_ids),
        method=told.method,
        created_at=clock.now(),
    )
    row.text = sealing.seal_text(key, "memory_summary", row.id, told.text)
    return row


def _told(summary: OpenedSummary) -> Told:
    """A summary as the next level is told from it: known by its own id."""
    return Told(
        summary.level, summary.from_seq, summary.to_seq, summary.text, summary.tokens, (summary.id,), summary.method
    )
