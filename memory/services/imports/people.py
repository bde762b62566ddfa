"""Whom a file is about, and who speaks in it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from agentstate.audit import trail
from agentstate.core.errors import Conflict
from agentstate.tenants.scope import current_tenant
from memory import keys, transfer
from memory.models import Alias, Author, Subject
from memory.services import recording, subjects
from memory.services.imports.desk import Desk, mapped
from memory.services.imports.lines import Numbered, bad
from memory.services.subjects import AliasIn

TRIES = 100  # ids of a subject that was erased and imported so often


def take_header(desk: Desk, batch: Sequence[Numbered]) -> None:
    desk.same_tenant = batch[0].line.tenant == current_tenant()


def take_subject(desk: Desk, batch: Sequence[Numbered]) -> None:
    line: transfer.SubjectLine = batch[0].line
    found = subjects.get(desk.into) if desk.into is not None else _target(desk, line)
    if found is None:
        desk.subject = _made(desk, line)
        desk.report.is_new = True
        desk.report.new["subject"] += 1
    else:
        desk.subject = subjects.locked(found.id)
        desk.report.known["subject"] += 1
    desk.key = keys.in_use(desk.subject.id)
    desk.report.subject_id = desk.subject.id


def take_alias(desk: Desk, batch: Sequence[Numbered]) -> None:
    known = set(Alias.objects.filter(subject=desk.subject).values_list("id", flat=True))
    for each in batch:
        wanted = AliasIn(each.line.kind, each.line.value)
        try:
            with transaction.atomic():
                alias = subjects.add_alias(desk.subject.id, wanted, actor=desk.actor)
        except Conflict as error:
            desk.conflict(each, error.message)
            continue
        desk.counted("alias", alias.id not in known)
        if alias.id not in known:
            Alias.objects.filter(id=alias.id).update(created_at=each.line.created_at)


def take_author(desk: Desk, batch: Sequence[Numbered]) -> None:
    names = {each.line.name for each in batch}
    known = Author.objects.filter(subject=desk.subject).count()
    numbers = recording.author_numbers(desk.subject.id, names, desk.key)
    fresh = Author.objects.filter(subject=desk.subject).count() - known
    desk.report.new["author"] += fresh
    desk.report.known["author"] += len(batch) - fresh
    for each in batch:
        if each.line.no in desk.authors:
            raise bad(each.number, f"there is an author {each.line.no} already")
        desk.authors[each.line.no] = (numbers[each.line.name], each.line.name)


def _target(desk: Desk, line: transfer.SubjectLine) -> Subject | None:
    if line.external_id is not None:
        return subjects.find(external_id=line.external_id)
    known = [line.id] if desk.same_tenant else []
    return Subject.objects.filter(id__in=[*known, _subject_id(line)]).order_by("id").first()


def _subject_id(line: transfer.SubjectLine) -> UUID:
    """The id here; the next one where that was erased."""
    for again in range(TRIES):
        found = mapped(UUID(int=again), line.id)
        if not keys.is_destroyed(found):
            return found
    raise Conflict("This subject was imported and erased too often.")


def _made(desk: Desk, line: transfer.SubjectLine) -> Subject:
    subject = Subject(
        id=_subject_id(line),
        external_id=line.external_id,
        cap_bytes=line.cap_bytes,
        created_at=line.created_at,
        last_active_at=line.last_active_at,
    )
    key = keys.owner_key(subject.id)
    subject.name = desk.sealed(line.name, "memory_subject", subject.id, key=key)
    subject.save(force_insert=True)
    return trail.record(subject, action="subject.created", actor=desk.actor)
