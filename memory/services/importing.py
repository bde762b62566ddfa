"""An export of a subject brought in: into the subject that it names, another one, or a new one. All of it, or nothing.

Every row gets an id of its own that follows from the target and the id in the file, so the same file twice brings
nothing new, and no file can name a row of somebody else. A dry run is the import itself, taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO
from uuid import UUID

from django.db import IntegrityError, transaction

from agentstate.core.errors import Conflict, DomainError, NotFound, Unavailable
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.services.imports import counting, documents, lines, people, statements, talk, uses
from memory.services.imports.desk import CONFLICTS_NAMED_MAX, Desk, Report
from memory.services.imports.lines import Numbered, bad

BATCH_LINES = 200
PASSED_ON = (Conflict, NotFound, Unavailable)  # about the target, not about the file
TAKE: dict[str, Callable[[Desk, Sequence[Numbered]], None]] = {
    "header": people.take_header,
    "subject": people.take_subject,
    "alias": people.take_alias,
    "author": people.take_author,
    "session": talk.take_session,
    "message": talk.take_message,
    "summary": talk.take_summary,
    "item": statements.take_item,
    "revision": statements.take_revision,
    "proposal": statements.take_proposal,
    "progress": documents.take_progress,
    "progress_version": documents.take_progress_version,
    "question": uses.take_question,
    "injection": uses.take_injection,
}


def bring_in(file: BinaryIO, *, into: UUID | None = None, actor: Actor, dry_run: bool = False) -> Report:
    """Import a file; with `into` into that subject, whatever the file calls it. Opens its own transaction.

    Raises: Forbidden; Invalid and TooLarge naming the line; Conflict with all conflicts (a dry run reports them);
    NotFound for `into`. Locks: the subject. Idempotent.
    """
    actors.require(actor, "memory.erase")
    with tenant_scope(actors.tenant_of(actor), durable=True):
        with transaction.atomic():
            report = _brought_in(Desk(into, actor), lines.read(file))
            if dry_run or report.conflicts:
                transaction.set_rollback(True)
        report.done = not dry_run and not report.conflicts
    if report.conflicts and not dry_run:
        raise Conflict(
            f"{len(report.conflicts)} lines do not fit what is here: {report.conflicts[0]} Nothing was imported.",
            conflicts=report.conflicts[:CONFLICTS_NAMED_MAX],
        )
    return report


def _brought_in(desk: Desk, numbered: Iterator[Numbered]) -> Report:
    """Neighbouring lines of one type are taken together."""
    batch: list[Numbered] = []
    for each in numbered:
        if batch and (batch[0].line.type != each.line.type or len(batch) >= BATCH_LINES):
            _take(desk, batch)
            batch = []
        batch.append(each)
    _take(desk, batch)
    counting.finish(desk)
    return desk.report


def _take(desk: Desk, batch: Sequence[Numbered]) -> None:
    try:
        with transaction.atomic():
            TAKE[batch[0].line.type](desk, batch)
    except (IntegrityError, DomainError) as error:
        if isinstance(error, DomainError) and (error.data.get("line") or isinstance(error, PASSED_ON)):
            raise
        why = error.message if isinstance(error, DomainError) else "what it says is not possible here"
        raise bad(batch[0].number, f"(or one of the {len(batch)} from here on) {why}") from error
