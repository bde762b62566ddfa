"""Everything that is remembered of a subject as lines of JSON, in bounded memory and short transactions.

Rows are read in batches by their ids, each batch in a scope of its own, so a large export holds no snapshot open. What
is written meanwhile may or may not be in it; what is there at the beginning and stays is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

import orjson
from django.db.models import QuerySet

from agentstate.audit import trail
from agentstate.core.clock import now
from agentstate.core.errors import Conflict
from agentstate.core.ids import public_id
from agentstate.core.limits import EXPORTED_ROWS
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory import keys, sealing, transfer
from memory.models import (
    Alias,
    Author,
    Injection,
    Item,
    ItemRevision,
    Message,
    Progress,
    ProgressVersion,
    Proposal,
    RecallQuestion,
    Session,
    Subject,
    Summary,
)
from memory.services import subjects
from memory.states import SubjectStatus
from memory.transfer import Line

NIL = UUID(int=0)


def export(tenant_id: UUID, subject_id: UUID, *, actor: Actor) -> Iterator[bytes]:
    """The file in pieces. The first one is made under the subject's lock, with the audit entry of the export.

    Asserts that no scope is open: each piece opens its own. Raises: NotFound, Conflict while it is erased, Corrupt.
    """
    seal, told = _End(), _Told()
    with tenant_scope(tenant_id):
        subject = subjects.get(subject_id)
        if subject.status != SubjectStatus.ACTIVE:
            raise Conflict(f"{public_id('subject', subject_id)} is being erased.", status=subject.status)
        trail.record(subject, action="subject.exported", actor=actor)
        first = [transfer.HeaderLine(tenant=tenant_id, exported_at=now()), _subject(subject, keys.existing(subject_id))]
    yield seal.add(first)
    for batches in _PARTS:
        for lines in batches(tenant_id, subject_id):
            yield seal.add([line for line in lines if told.takes(line)])
    yield seal.last()


class _Told:
    """Which sessions and authors went out. Each batch is read by itself, so a later one may name one that came since.

    Of such a session nothing goes out; a session whose author is unknown ends before that message, without a hole.
    """

    def __init__(self) -> None:
        self._sessions: set[UUID] = set()
        self._authors = {0}
        self._ended: dict[UUID, int] = {}  # session -> the first number that is left out

    def takes(self, line: Line) -> bool:
        if isinstance(line, transfer.SessionLine):
            self._sessions.add(line.id)
        elif isinstance(line, transfer.AuthorLine):
            self._authors.add(line.no)
        elif isinstance(line, transfer.MessageLine):
            return self._takes_message(line)
        elif isinstance(line, transfer.SummaryLine) and line.session is not None:
            return line.session in self._sessions and line.to_seq < self._ended.get(line.session, line.to_seq + 1)
        return True

    def _takes_message(self, line: transfer.MessageLine) -> bool:
        if line.author not in self._authors:
            self._ended.setdefault(line.session, line.seq)
        return line.session in self._sessions and line.session not in self._ended


class _End:
    """Counts and digests what went out."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._digest = hashlib.sha256()

    def add(self, lines: Iterable[Line]) -> bytes:
        out = bytearray()
        for line in lines:
            self._counts[line.type] += 1  # type: ignore[attr-defined]
            out += _written(line)
        self._digest.update(out)
        return bytes(out)

    def last(self) -> bytes:
        return _written(transfer.EndLine(counts=dict(self._counts), sha256=self._digest.hexdigest()))


def _written(line: Line) -> bytes:
    return orjson.dumps(line.model_dump(mode="json")) + b"\n"


def _subject(row: Subject, key: bytes) -> Line:
    return transfer.SubjectLine(
        id=row.id,
        external_id=row.external_id,
        name=_text(key, "memory_subject", row.id, row.name),
        cap_bytes=row.cap_bytes,
        created_at=row.created_at,
        last_active_at=row.last_active_at,
    )


def _by_id(found: Callable[[UUID], QuerySet[Any]], line: Callable[[Any, bytes], Iterable[Line]]) -> Any:
    """Batches of the rows of a subject in the order of their ids."""

    def batches(tenant_id: UUID, subject_id: UUID) -> Iterator[list[Line]]:
        after = NIL
        while True:
            with tenant_scope(tenant_id):
                rows = list(found(subject_id).filter(id__gt=after).order_by("id")[:EXPORTED_ROWS])
                if not rows:
                    return
                key = keys.in_use(subject_id)
                lines = [each for row in rows for each in line(row, key)]
            after = rows[-1].id
            yield lines

    return batches


def _authors(tenant_id: UUID, subject_id: UUID) -> Iterator[list[Line]]:
    after = 0
    while True:
        with tenant_scope(tenant_id):
            rows = list(Author.objects.filter(subject_id=subject_id, no__gt=after).order_by("no")[:EXPORTED_ROWS])
            if not rows:
                return
            key = keys.in_use(subject_id)
            names = [_text(key, "memory_author", f"{subject_id}:{row.no}", row.name) for row in rows]
        after = rows[-1].no
        yield [transfer.AuthorLine(no=row.no, name=name) for row, name in zip(rows, names, strict=True)]


def _messages(tenant_id: UUID, subject_id: UUID) -> Iterator[list[Line]]:
    """Session by session, in the order of their numbers. Index: memory_message_seq."""
    with tenant_scope(tenant_id):
        session_ids = list(Session.objects.filter(subject_id=subject_id).order_by("id").values_list("id", flat=True))
    for session_id in session_ids:
        after = 0
        while True:
            with tenant_scope(tenant_id):
                rows = list(
                    Message.objects.filter(session_id=session_id, seq__gt=after).order_by("seq")[:EXPORTED_ROWS]
                )
                if not rows:
                    break
                key = keys.in_use(subject_id)
                lines = [_message(row, key) for row in rows]
            after = rows[-1].seq
            yield lines


def _alias(row: Alias, key: bytes) -> Iterator[Line]:
    value = _text(key, "memory_alias", row.id, row.value)
    yield transfer.AliasLine(kind=row.kind, value=value, created_at=row.created_at)


def _session(row: Session, key: bytes) -> Iterator[Line]:
    yield transfer.SessionLine(
        id=row.id,
        key=row.key,
        agent=row.agent,
        title=_text(key, "memory_session", row.id, row.title),
        status=row.status,
        version=row.version,
        summarised_seq=row.summarised_seq,
        created_at=row.created_at,
        last_active_at=row.last_active_at,
        idle_s=row.idle_s,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
    )


def _message(row: Message, key: bytes) -> Line:
    return transfer.MessageLine(
        id=row.id,
        session=row.session_id,
        seq=row.seq,
        role=row.role,
        author=row.author_no,
        text=_text(key, "memory_message", row.id, row.text),
        importance=row.importance,
        origin=row.origin,
        outcome=row.outcome,
        client_id=row.client_id,
        sent_at=row.sent_at,
        recorded_at=row.recorded_at,
        undone_in=row.undone_in,
        run=row.run_id,
        step=row.step_seq,
    )


def _summary(row: Summary, key: bytes) -> Iterator[Line]:
    yield transfer.SummaryLine(
        id=row.id,
        session=row.session_id,
        level=row.level,
        from_seq=row.from_seq,
        to_seq=row.to_seq,
        session_version=row.session_version,
        text=_text(key, "memory_summary", row.id, row.text),
        sources=row.source_ids,
        method=row.method,
        stale=row.stale,
        run=row.run_id,
        created_at=row.created_at,
    )


def _item(row: Item, key: bytes) -> Iterator[Line]:
    """The item, then each of its revisions. One more statement an item: they are few, by the cap."""
    yield transfer.ItemLine(
        id=row.id,
        kind=row.kind,
        namespace=row.namespace,
        fact_kind=row.fact_kind,
        attribute_hmac=None if row.attribute is None else bytes(row.attribute).hex(),
        schema_version=row.schema_version,
        status=row.status,
        pinned=row.pinned,
        importance=row.importance,
        version=row.version,
        origin=row.origin,
        valid_from=row.valid_from,
        valid_to=row.valid_to,
        known_from=row.known_from,
        known_to=row.known_to,
        expires_at=row.expires_at,
        superseded_by=row.superseded_by,
        sources=row.source_message_ids,
        run=row.source_run_id,
        step=row.source_step_seq,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
    # A newer one may have come since the item was read: its words would be more than the line before says.
    for revision in ItemRevision.objects.filter(item_id=row.id, version__lte=row.version).order_by("version"):
        yield _revision(revision, key)


def _revision(row: ItemRevision, key: bytes) -> Line:
    place = f"{row.item_id}:{row.version}"
    facts = None if row.facts is None else sealing.open_json(key, "memory_itemrevision", f"{place}:facts", row.facts)
    return transfer.RevisionLine(
        item=row.item_id,
        version=row.version,
        change=row.change,
        text=_text(key, "memory_itemrevision", f"{place}:text", row.text),
        facts=facts,
        reason=_text(key, "memory_itemrevision", f"{place}:reason", row.reason),
        status=row.status,
        pinned=row.pinned,
        importance=row.importance,
        valid_from=row.valid_from,
        valid_to=row.valid_to,
        schema_version=row.schema_version,
        restored_from=row.restored_from,
        merged=row.merged_ids,
        by=_by(row),
        run=row.run_id,
        created_at=row.created_at,
    )


def _proposal(row: Proposal, key: bytes) -> Iterator[Line]:
    yield transfer.ProposalLine(
        id=row.id,
        act=row.act,
        status=row.status,
        item=row.item_id,
        expected_version=row.expected_version,
        body=sealing.open_json(key, "memory_proposal", f"{row.id}:body", row.body),
        why=_text(key, "memory_proposal", f"{row.id}:why", row.why),
        method=row.method,
        confidence=row.confidence,
        sources=row.source_message_ids,
        decided_by=row.decided_by,
        run=row.source_run_id,
        step=row.source_step_seq,
        created_at=row.created_at,
        decided_at=row.decided_at,
    )


def _progress(row: Progress, key: bytes) -> Iterator[Line]:
    yield transfer.ProgressLine(
        id=row.id,
        key=row.key,
        agent=row.agent,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
    for each in ProgressVersion.objects.filter(progress_id=row.id, version__lte=row.version).order_by("version"):
        place = f"{row.id}:{each.version}"
        yield transfer.ProgressVersionLine(
            progress=row.id,
            version=each.version,
            body=_text(key, "memory_progressversion", f"{place}:body", each.body),
            reason=_text(key, "memory_progressversion", f"{place}:reason", each.reason),
            by=_by(each),
            run=each.run_id,
            step=each.step_seq,
            created_at=each.created_at,
        )


def _question(row: RecallQuestion, key: bytes) -> Iterator[Line]:
    text = _text(key, "memory_recallquestion", row.id, row.text)
    yield transfer.QuestionLine(id=row.id, agent=row.agent, text=text, run=row.run_id, step=row.step_seq, at=row.at)


def _injection(row: Injection, _key: bytes) -> Iterator[Line]:
    yield transfer.InjectionLine(
        id=row.id,
        call=row.call_id,
        session=row.session_id,
        part=row.part,
        source=row.source,
        source_id=row.source_id,
        version=row.version,
        position=row.position,
        score=row.score,
        scores=row.scores,
        tokens=row.tokens,
        masked=row.masked,
        run=row.run_id,
        step=row.step_seq,
        at=row.at,
    )


def _text(key: bytes, table: str, row: UUID | str, sealed: bytes | memoryview) -> str:
    return sealing.open_text(key, table, row, sealed) if sealed else ""


def _by(row: ItemRevision | ProgressVersion) -> transfer.By:
    return transfer.By(kind=row.actor_kind, id=row.actor_id, name=row.actor_name)


def _of(model: Any) -> Callable[[UUID], QuerySet[Any]]:
    return lambda subject_id: model.objects.filter(subject_id=subject_id)


# Parents before children.
_PARTS: tuple[Callable[[UUID, UUID], Iterator[list[Line]]], ...] = (
    _by_id(_of(Alias), _alias),
    _authors,
    _by_id(_of(Session), _session),
    _messages,
    _by_id(_of(Summary), _summary),
    _by_id(_of(Item), _item),
    _by_id(_of(Proposal), _proposal),
    _by_id(_of(Progress), _progress),
    _by_id(_of(RecallQuestion), _question),
    _by_id(_of(Injection), _injection),
)
