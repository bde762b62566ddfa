"""An export of a subject brought in: into the subject that it names, another one, or a new one. All of it, or nothing.

Every row gets an id of its own that follows from the target and the id in the file, so the same file twice brings
nothing new, and no file can name a row of somebody else. A dry run is the import itself, taken back.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Count, Max, Q, Sum
from pydantic import ValidationError

from agentstate.audit import trail
from agentstate.core import canonical, tokens
from agentstate.core.clock import now
from agentstate.core.errors import Conflict, DomainError, Invalid, NotFound, TooLarge, Unavailable
from agentstate.core.ids import public_id
from agentstate.core.limits import FACTS_BYTES_MAX, IMPORT_LINE_BYTES_MAX, IMPORT_LINES_MAX, PROGRESS_BYTES_MAX
from agentstate.tenants import actors, keyring
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant, tenant_scope
from memory import facts as fact_kinds
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
from memory.models.item import CHANGES
from memory.recall import units
from memory.services import cap, drafts, recording, revising, subjects, suggesting
from memory.services.subjects import AliasIn
from memory.states import ItemStatus
from memory.transfer import Line

BATCH_LINES = 200
CONFLICTS_NAMED_MAX = 50
PURPOSE = b"memory.import\0"
PASSED_ON = (Conflict, NotFound, Unavailable)  # about the target, not about the file
TRIES = 100  # ids of a subject that was erased and imported so often


@dataclass(slots=True)
class Report:
    """What an import brought in, or would. `conflicts`: why it cannot be, each with its line."""

    subject_id: UUID | None = None
    is_new: bool = False
    new: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    evicted: int = 0  # items that left recall because of the cap
    cap_bytes: int = 0
    links_left_out: int = 0  # to runs of the tenant that exported it
    conflicts: list[str] = field(default_factory=list)
    done: bool = False

    @property
    def public_id(self) -> str:
        return public_id("subject", self.subject_id) if self.subject_id else ""


def bring_in(file: BinaryIO, *, into: UUID | None = None, actor: Actor, dry_run: bool = False) -> Report:
    """Import a file; with `into` into that subject, whatever the file calls it. Opens its own transaction.

    Raises: Forbidden; Invalid and TooLarge naming the line; Conflict with all conflicts (a dry run reports them);
    NotFound for `into`. Locks: the subject. Idempotent.
    """
    actors.require(actor, "memory.erase")
    with tenant_scope(actors.tenant_of(actor), durable=True):
        with transaction.atomic():
            report = _Import(into, actor).run(_lines(file))
            if dry_run or report.conflicts:
                transaction.set_rollback(True)
        report.done = not dry_run and not report.conflicts
    if report.conflicts and not dry_run:
        raise Conflict(
            f"{len(report.conflicts)} lines do not fit what is here: {report.conflicts[0]} Nothing was imported.",
            conflicts=report.conflicts[:CONFLICTS_NAMED_MAX],
        )
    return report


@dataclass(frozen=True, slots=True)
class _Numbered:
    number: int
    line: Any


def _lines(file: BinaryIO) -> Iterator[_Numbered]:
    """Each line checked by itself, then the end compared with what came before it."""
    digest, counts, number, ended = hashlib.sha256(), Counter[str](), 0, False
    while raw := file.readline(IMPORT_LINE_BYTES_MAX + 1):
        number += 1
        if ended:
            raise _bad(number, "nothing may follow the end")
        line = _parsed(raw, number)
        if isinstance(line, transfer.EndLine):
            if line.counts != dict(counts) or line.sha256 != digest.hexdigest():
                raise _bad(number, "the end does not fit what came before: lines are missing, added or changed")
            ended = True
            continue
        digest.update(raw)
        counts[line.type] += 1  # type: ignore[attr-defined]
        _check_order(line, number)
        yield _Numbered(number, line)
    if not ended:
        raise _bad(number + 1, "the file ends too early: it has no end line")


def _parsed(raw: bytes, number: int) -> Line:
    if len(raw) > IMPORT_LINE_BYTES_MAX:
        raise TooLarge(f"Line {number} has more than {IMPORT_LINE_BYTES_MAX:,} bytes.", field=f"/{number}", line=number)
    if number > IMPORT_LINES_MAX:
        raise TooLarge(f"A file has at most {IMPORT_LINES_MAX:,} lines.", field=f"/{number}", line=number)
    try:
        found = canonical.parse(raw)
        named = found.get("type") if isinstance(found, dict) else None
        schema = transfer.BY_TYPE.get(named) if isinstance(named, str) else None
        if schema is None:
            raise _bad(number, f"its type is none of {', '.join(transfer.BY_TYPE)}")
        return schema.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _bad(number, f"{'/'.join(map(str, first['loc']))}: {first['msg']}") from None
    except Invalid as error:
        raise error if error.data.get("line") else _bad(number, error.message) from None


def _check_order(line: Line, number: int) -> None:
    at_the_beginning = {1: "header", 2: "subject"}
    found: str = line.type  # type: ignore[attr-defined]
    wanted = at_the_beginning.get(number, "")
    if wanted and found != wanted:
        raise _bad(number, f"here the {wanted} is expected")
    if not wanted and found in at_the_beginning.values():
        raise _bad(number, "a file is about one subject: this line may stand at its beginning only")


def _bad(number: int, why: str) -> Invalid:
    return Invalid(f"Line {number}: {why}. Nothing was imported.", field=f"/{number}", line=number)


class _Import:
    """One file on its way in, inside one transaction under the target's lock."""

    def __init__(self, into: UUID | None, actor: Actor) -> None:
        self.into, self.actor = into, actor
        self.report = Report()
        self.subject: Subject
        self.key = b""
        self.same_tenant = False
        self.authors: dict[int, tuple[int, str]] = {0: (0, "")}  # number in the file -> number here, name
        self.sessions: dict[UUID, UUID] = {}  # id in the file -> id here
        self.seen: set[UUID] = set()  # ids of items and documents in the file
        self.skipped: set[UUID] = set()  # those that are known: so are their revisions
        self.items: dict[UUID, tuple[Item, int]] = {}  # in the file's id -> the new item, its line
        self.waiting: list[_Numbered] = []

    def run(self, lines: Iterator[_Numbered]) -> Report:
        for each in lines:
            kind = type(each.line)
            if self.waiting and (type(self.waiting[0].line) is not kind or len(self.waiting) >= BATCH_LINES):
                self._flush()
            self.waiting.append(each)
        self._flush()
        self._finish()
        return self.report

    def _flush(self) -> None:
        batch, self.waiting = self.waiting, []
        if not batch:
            return
        take = getattr(self, f"_take_{batch[0].line.type}")
        try:
            with transaction.atomic():
                take(batch)
        except (IntegrityError, DomainError) as error:
            if isinstance(error, DomainError) and (error.data.get("line") or isinstance(error, PASSED_ON)):
                raise
            why = error.message if isinstance(error, DomainError) else "what it says is not possible here"
            raise _bad(batch[0].number, f"(or one of the {len(batch)} from here on) {why}") from error

    # What each type of line becomes.

    def _take_header(self, batch: Sequence[_Numbered]) -> None:
        self.same_tenant = batch[0].line.tenant == current_tenant()

    def _take_subject(self, batch: Sequence[_Numbered]) -> None:
        line: transfer.SubjectLine = batch[0].line
        found = subjects.get(self.into) if self.into is not None else self._target(line)
        if found is None:
            self.subject = self._made(line)
            self.report.is_new = True
            self.report.new["subject"] += 1
        else:
            self.subject = subjects.locked(found.id)
            self.report.known["subject"] += 1
        self.key = keys.in_use(self.subject.id)
        self.report.subject_id = self.subject.id

    def _target(self, line: transfer.SubjectLine) -> Subject | None:
        if line.external_id is not None:
            return subjects.find(external_id=line.external_id)
        known = [line.id] if self.same_tenant else []
        return Subject.objects.filter(id__in=[*known, self._subject_id(line)]).order_by("id").first()

    def _subject_id(self, line: transfer.SubjectLine) -> UUID:
        """The id here; the next one where that was erased."""
        for again in range(TRIES):
            found = _mapped(UUID(int=again), line.id)
            if not keys.is_destroyed(found):
                return found
        raise Conflict("This subject was imported and erased too often.")

    def _made(self, line: transfer.SubjectLine) -> Subject:
        subject = Subject(
            id=self._subject_id(line),
            external_id=line.external_id,
            cap_bytes=line.cap_bytes,
            created_at=line.created_at,
            last_active_at=line.last_active_at,
        )
        key = keys.owner_key(subject.id)
        subject.name = self._sealed(line.name, "memory_subject", subject.id, key=key)
        subject.save(force_insert=True)
        return trail.record(subject, action="subject.created", actor=self.actor)

    def _take_alias(self, batch: Sequence[_Numbered]) -> None:
        known = set(Alias.objects.filter(subject=self.subject).values_list("id", flat=True))
        for each in batch:
            wanted = AliasIn(each.line.kind, each.line.value)
            try:
                with transaction.atomic():
                    alias = subjects.add_alias(self.subject.id, wanted, actor=self.actor)
            except Conflict as error:
                self._conflict(each, error.message)
                continue
            self._counted("alias", alias.id not in known)
            if alias.id not in known:
                Alias.objects.filter(id=alias.id).update(created_at=each.line.created_at)

    def _take_author(self, batch: Sequence[_Numbered]) -> None:
        names = {each.line.name for each in batch}
        known = Author.objects.filter(subject=self.subject).count()
        numbers = recording.author_numbers(self.subject.id, names, self.key)
        fresh = Author.objects.filter(subject=self.subject).count() - known
        self.report.new["author"] += fresh
        self.report.known["author"] += len(batch) - fresh
        for each in batch:
            if each.line.no in self.authors:
                raise _bad(each.number, f"there is an author {each.line.no} already")
            self.authors[each.line.no] = (numbers[each.line.name], each.line.name)

    def _take_session(self, batch: Sequence[_Numbered]) -> None:
        here = self._here(Session, batch)
        taken = set(Session.objects.filter(key__in=[each.line.key for each in batch]).values_list("key", flat=True))
        for each in batch:
            line: transfer.SessionLine = each.line
            if line.id in self.sessions:
                raise _bad(each.number, "this session came before")
            if line.id in here:
                self.sessions[line.id] = here[line.id]
            elif line.key in taken:
                self._conflict(each, f"the session {line.key} is here already.")
                self.sessions[line.id] = self._id(line.id)
                continue
            else:
                self._write_session(line)
            self._counted("session", line.id not in here)

    def _write_session(self, line: transfer.SessionLine) -> None:
        session_id = self.sessions[line.id] = self._id(line.id)
        is_open = line.status == "open"
        due_at = recording.due_at(last_active_at=line.last_active_at, idle_s=line.idle_s, expires_at=line.expires_at)
        fields = line.model_dump(include={"key", "agent", "status", "version", "summarised_seq", "idle_s"})
        Session.objects.create(
            id=session_id,
            subject=self.subject,
            title=self._sealed(line.title, "memory_session", session_id),
            created_at=line.created_at,
            last_active_at=line.last_active_at,
            expires_at=line.expires_at,
            ended_at=line.ended_at,
            due_at=due_at if is_open else None,
            **fields,
        )

    def _take_message(self, batch: Sequence[_Numbered]) -> None:
        here, pairs = self._here(Message, batch), []
        for each in batch:
            line: transfer.MessageLine = each.line
            if line.session not in self.sessions:
                raise _bad(each.number, "its session did not come before it")
            if line.author not in self.authors:
                raise _bad(each.number, f"author {line.author} did not come before it")
            self._counted("message", line.id not in here)
            self._link(line.run)
            if line.id not in here:
                pairs.append((each, self._message(line), self.authors[line.author][1]))
        self._check_places(pairs)
        if self.report.conflicts:
            return
        Message.objects.bulk_create([row for _, row, _ in pairs])
        units.index_messages([(row, each.line.text, author) for each, row, author in pairs])

    def _message(self, line: transfer.MessageLine) -> Message:
        message_id = self._id(line.id)
        return Message(
            id=message_id,
            session_id=self.sessions[line.session],
            subject_id=self.subject.id,
            author_no=self.authors[line.author][0],
            text=sealing.seal_text(self.key, "memory_message", message_id, line.text),
            tokens=tokens.count(line.text),
            bytes=len(line.text.encode()),
            **line.model_dump(
                include={
                    *("seq", "role", "importance", "origin", "outcome", "client_id"),
                    *("sent_at", "recorded_at", "undone_in"),
                }
            ),
        )

    def _check_places(self, pairs: Sequence[tuple[_Numbered, Message, str]]) -> None:
        """A place in a session that something else has by now."""
        wanted = Q()
        for _, row, _ in pairs:
            wanted |= Q(session_id=row.session_id, seq=row.seq)
        taken = set(Message.objects.filter(wanted).values_list("session_id", "seq")) if pairs else set()
        for each, row, _ in pairs:
            if (row.session_id, row.seq) in taken:
                self._conflict(each, f"message {row.seq} of its session is another one here.")
            taken.add((row.session_id, row.seq))

    def _take_summary(self, batch: Sequence[_Numbered]) -> None:
        here, rows = self._here(Summary, batch), []
        for each in batch:
            line: transfer.SummaryLine = each.line
            if line.session is not None and line.session not in self.sessions:
                raise _bad(each.number, "its session did not come before it")
            self._counted("summary", line.id not in here)
            self._link(line.run)
            if line.id not in here:
                row = Summary(
                    id=self._id(line.id),
                    subject=self.subject,
                    session_id=self.sessions[line.session] if line.session else None,
                    tokens=tokens.count(line.text),
                    source_ids=self._ids(line.sources),
                    **line.model_dump(
                        include={"level", "from_seq", "to_seq", "session_version", "method", "stale", "created_at"}
                    ),
                )
                row.text = sealing.seal_text(self.key, "memory_summary", row.id, line.text)
                rows.append(row)
        Summary.objects.bulk_create(rows)

    def _take_item(self, batch: Sequence[_Numbered]) -> None:
        here = self._here(Item, batch)
        for each in batch:
            line: transfer.ItemLine = each.line
            if line.id in self.seen:
                raise _bad(each.number, "this item came before")
            self.seen.add(line.id)
            self._counted("item", line.id not in here)
            self._link(line.run)
            if line.id in here:
                self.skipped.add(line.id)
            else:
                self.items[line.id] = (self._item(line, each.number), each.number)

    def _item(self, line: transfer.ItemLine, number: int) -> Item:
        if line.pinned and line.expires_at is not None:
            raise _bad(number, "what is pinned does not expire")
        if line.valid_to is not None and line.valid_to < line.valid_from:
            raise _bad(number, "it ends before it begins")
        attribute = bytes.fromhex(line.attribute_hmac) if line.attribute_hmac and self.same_tenant else None
        return Item(
            id=self._id(line.id),
            subject=self.subject,
            attribute=attribute,
            superseded_by=self._id(line.superseded_by) if line.superseded_by else None,
            source_message_ids=self._ids(line.sources),
            bytes=0,
            tokens=0,
            **line.model_dump(
                include={
                    *("kind", "namespace", "fact_kind", "schema_version", "status", "pinned", "importance", "version"),
                    *("origin", "valid_from", "valid_to", "known_from", "known_to", "expires_at"),
                    *("created_at", "updated_at"),
                }
            ),
        )

    def _take_revision(self, batch: Sequence[_Numbered]) -> None:
        rows = []
        for each in batch:
            line: transfer.RevisionLine = each.line
            if line.item in self.skipped:
                self.report.known["revision"] += 1
                continue
            if line.item not in self.items:
                raise _bad(each.number, "its item did not come before it")
            if line.change not in CHANGES:
                raise _bad(each.number, f"change is one of {', '.join(CHANGES)}")
            item, _ = self.items[line.item]
            rows.append(self._revision(line, item, each.number))
            self._counted("revision", True)
            self._link(line.run)
            if line.version == item.version:
                self._begin(each, item)
        ItemRevision.objects.bulk_create(rows)

    def _begin(self, each: _Numbered, item: Item) -> None:
        """With its newest words an item can stand."""
        line: transfer.RevisionLine = each.line
        doc = line.facts
        item.bytes = len(line.text.encode()) + fact_kinds.size_of(doc)
        item.tokens, item.digest = tokens.count(line.text), revising.digest_of(item.namespace, line.text)
        same = Item.objects.filter(subject=self.subject, namespace=item.namespace, digest=item.digest)
        if item.status == ItemStatus.ACTIVE and same.filter(status=ItemStatus.ACTIVE).exists():
            self._conflict(each, "an active item here says the same already: forget one of the two.")
            item.status = ItemStatus.FORGOTTEN
        item.save(force_insert=True)
        units.index_item(item, line.text)

    def _revision(self, line: transfer.RevisionLine, item: Item, number: int) -> ItemRevision:
        if fact_kinds.size_of(line.facts) > FACTS_BYTES_MAX:
            raise _bad(number, f"facts take more than {FACTS_BYTES_MAX:,} bytes")
        place = f"{item.id}:{line.version}"
        stored = None
        if line.facts is not None:
            stored = sealing.seal_json(self.key, "memory_itemrevision", f"{place}:facts", line.facts)
        return ItemRevision(
            item=item,
            subject_id=self.subject.id,
            text=sealing.seal_text(self.key, "memory_itemrevision", f"{place}:text", line.text),
            facts=stored,
            reason=self._sealed(line.reason, "memory_itemrevision", f"{place}:reason"),
            tokens=tokens.count(line.text),
            merged_ids=self._ids(line.merged),
            **self._by(line.by),
            **line.model_dump(
                include={
                    *("version", "change", "status", "pinned", "importance", "valid_from", "valid_to"),
                    *("schema_version", "restored_from", "created_at"),
                }
            ),
        )

    def _take_proposal(self, batch: Sequence[_Numbered]) -> None:
        here, rows = self._here(Proposal, batch), []
        for each in batch:
            line: transfer.ProposalLine = each.line
            new = drafts.from_json(line.body)  # what cannot be an item's content is refused here
            self._counted("proposal", line.id not in here)
            self._link(line.run)
            if line.id in here:
                continue
            item_id = self._id(line.item) if line.item else None
            row = Proposal(
                id=self._id(line.id),
                subject=self.subject,
                item_id=item_id,
                digest=suggesting.digest_of(line.act, item_id, new.text),
                source_message_ids=self._ids(line.sources),
                **line.model_dump(
                    include={
                        *("act", "status", "expected_version", "method", "confidence"),
                        *("decided_by", "created_at", "decided_at"),
                    }
                ),
            )
            row.body = sealing.seal_json(self.key, "memory_proposal", f"{row.id}:body", line.body)
            row.why = self._sealed(line.why, "memory_proposal", f"{row.id}:why")
            rows.append(row)
        Proposal.objects.bulk_create(rows)

    def _take_progress(self, batch: Sequence[_Numbered]) -> None:
        here = self._here(Progress, batch)
        taken = set(Progress.objects.filter(key__in=[each.line.key for each in batch]).values_list("key", flat=True))
        for each in batch:
            line: transfer.ProgressLine = each.line
            if line.id in self.seen:
                raise _bad(each.number, "this document came before")
            self.seen.add(line.id)
            self._counted("progress", line.id not in here)
            if line.id in here:
                self.skipped.add(line.id)
            elif line.key in taken:
                self.skipped.add(line.id)
                self._conflict(each, f"there is a progress document {line.key} here already.")
            else:
                fields = line.model_dump(include={"key", "agent", "version", "created_at", "updated_at"})
                Progress.objects.create(id=self._id(line.id), subject=self.subject, **fields)

    def _take_progress_version(self, batch: Sequence[_Numbered]) -> None:
        rows = []
        for each in batch:
            line: transfer.ProgressVersionLine = each.line
            if line.progress in self.skipped:
                self.report.known["progress_version"] += 1
                continue
            if line.progress not in self.seen:
                raise _bad(each.number, "its document did not come before it")
            if len(line.body.encode()) > PROGRESS_BYTES_MAX:
                raise _bad(each.number, f"a document has at most {PROGRESS_BYTES_MAX:,} bytes")
            progress_id = self._id(line.progress)
            place = f"{progress_id}:{line.version}"
            self._counted("progress_version", True)
            self._link(line.run)
            rows.append(
                ProgressVersion(
                    progress_id=progress_id,
                    version=line.version,
                    body=sealing.seal_text(self.key, "memory_progressversion", f"{place}:body", line.body),
                    reason=self._sealed(line.reason, "memory_progressversion", f"{place}:reason"),
                    tokens=tokens.count(line.body),
                    created_at=line.created_at,
                    **self._by(line.by),
                )
            )
        ProgressVersion.objects.bulk_create(rows)

    def _take_question(self, batch: Sequence[_Numbered]) -> None:
        here, rows = self._here(RecallQuestion, batch), []
        for each in batch:
            line: transfer.QuestionLine = each.line
            self._counted("question", line.id not in here)
            self._link(line.run)
            if line.id not in here:
                row = RecallQuestion(id=self._id(line.id), subject=self.subject, agent=line.agent, at=line.at)
                row.text = sealing.seal_text(self.key, "memory_recallquestion", row.id, line.text)
                rows.append(row)
        RecallQuestion.objects.bulk_create(rows)

    def _take_injection(self, batch: Sequence[_Numbered]) -> None:
        here, rows = self._here(Injection, batch), []
        for each in batch:
            line: transfer.InjectionLine = each.line
            self._counted("injection", line.id not in here)
            self._link(line.run)
            if line.id in here:
                continue
            rows.append(
                Injection(
                    id=self._id(line.id),
                    call_id=self._id(line.call),
                    session_id=self.sessions.get(line.session) if line.session else None,
                    subject=self.subject,
                    source_id=self._id(line.source_id),
                    **line.model_dump(
                        include={
                            *("part", "source", "version", "position", "score", "scores", "tokens", "masked", "at"),
                        }
                    ),
                )
            )
        Injection.objects.bulk_create(rows)

    # What follows from the rows.

    def _finish(self) -> None:
        for item, number in self.items.values():
            if not item.tokens:
                raise _bad(number, f"the words of its version {item.version} are missing")
        if self.report.conflicts:
            return
        self._count_sessions()
        self._count_subject()
        self.report.cap_bytes = cap.of(self.subject)
        self.report.evicted = len(cap.enforce(self.subject, key=self.key, actor=self.actor))
        active_at = self.subject.last_active_at
        revising.save_counts(self.subject)
        Subject.objects.filter(id=self.subject.id).update(last_active_at=active_at)  # an import is no activity of it
        if +self.report.new:
            counts = {name: count for name, count in self.report.new.items() if count}
            trail.record(self.subject, action="subject.imported", actor=self.actor, detail=counts)

    def _count_sessions(self) -> None:
        """Index: memory_message_seq."""
        for session_id in self.sessions.values():
            stands = Q(undone_in=None)
            found = Message.objects.filter(session_id=session_id).aggregate(
                last_seq=Max("seq"),
                message_count=Count("id", filter=stands),
                turns=Count("id", filter=stands & Q(role="user")),
                tokens=Sum("tokens", filter=stands),
            )
            counts = {name: value or 0 for name, value in found.items()}
            # What was worth keeping of these messages comes in as items: it is not read out of them once more.
            Session.objects.filter(id=session_id).update(**counts, extracted_seq=counts["last_seq"])
            Session.objects.filter(id=session_id, summarised_seq__gt=counts["last_seq"]).update(
                summarised_seq=counts["last_seq"]
            )

    def _count_subject(self) -> None:
        subject = self.subject
        active = Item.objects.filter(subject=subject, status=ItemStatus.ACTIVE).aggregate(
            item_bytes=Sum("bytes"), pinned_bytes=Sum("bytes", filter=Q(pinned=True)), item_count=Count("id")
        )
        for name, value in active.items():
            setattr(subject, name, value or 0)
        subject.session_count = Session.objects.filter(subject=subject).count()
        subject.message_count = Message.objects.filter(subject_id=subject.id, undone_in=None).count()
        if not self.report.is_new:
            newest = Session.objects.filter(subject=subject).aggregate(at=Max("last_active_at"))["at"]
            subject.last_active_at = max(subject.last_active_at, newest or subject.last_active_at)
        subject.last_active_at = min(subject.last_active_at, now())
        subject.save(update_fields=["session_count", "message_count", "last_active_at"])

    # Small things.

    def _id(self, old: UUID) -> UUID:
        return _mapped(self.subject.id, old)

    def _ids(self, old: Sequence[UUID]) -> list[UUID]:
        return [self._id(each) for each in old]

    def _here(self, model: Any, batch: Sequence[_Numbered]) -> dict[UUID, UUID]:
        """Which of these rows the subject has, under the id that they get here or, in their own tenant, had there."""
        candidates = {self._id(each.line.id): each.line.id for each in batch}
        if len(candidates) < len(batch):
            raise _bad(batch[0].number, f"one of the {len(batch)} lines from here on comes twice")
        if self.same_tenant:
            candidates |= {each.line.id: each.line.id for each in batch}
        found = model.objects.filter(id__in=list(candidates), subject_id=self.subject.id).values_list("id", flat=True)
        return {candidates[row_id]: row_id for row_id in found}

    def _sealed(self, text: str, table: str, row: UUID | str, *, key: bytes | None = None) -> bytes:
        return sealing.seal_text(key or self.key, table, row, text) if text else b""

    def _by(self, by: transfer.By) -> dict[str, str]:
        """Whoever the file names is not one of ours."""
        return {"actor_kind": "import", "actor_id": "", "actor_name": by.name}

    def _link(self, run: UUID | None) -> None:
        self.report.links_left_out += run is not None

    def _counted(self, what: str, is_new: bool) -> None:
        (self.report.new if is_new else self.report.known)[what] += 1

    def _conflict(self, each: _Numbered, why: str) -> None:
        if len(self.report.conflicts) < 10 * CONFLICTS_NAMED_MAX:
            self.report.conflicts.append(f"Line {each.number}: {why}")


def _mapped(target: UUID, old: UUID) -> UUID:
    """A UUIDv7 of the same moment, another one in every target and tenant."""
    digest = keyring.hmac(current_tenant(), PURPOSE + target.bytes + old.bytes)
    tail = bytearray(old.bytes[:6] + digest[:10])
    tail[6] = 0x70 | (tail[6] & 0x0F)
    tail[8] = 0x80 | (tail[8] & 0x3F)
    return UUID(bytes=bytes(tail))
