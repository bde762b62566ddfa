"""Erasing a subject from this tier: its keys first, then its rows in batches, the subject itself last.

What was sealed for it does not open any more from the first commit on, wherever a copy lies. Deleting goes on where it
was killed: each batch deletes what it finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from agentstate.audit import notes, trail
from agentstate.core.errors import NotFound
from agentstate.db import locks, sql
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant
from memory import keys, sealing
from memory.models import Item, Progress, Proposal, Session, Subject
from memory.selectors.erasure import DOCUMENTS, ROWS, named
from memory.services import buffering
from memory.states import SubjectStatus

# Their rows carry a chain of the audit; it ends with a farewell.
AUDITED: dict[str, type[Item] | type[Progress] | type[Proposal] | type[Session] | type[Subject]] = {
    "memory_item": Item,
    "memory_progress": Progress,
    "memory_proposal": Proposal,
    "memory_session": Session,
    "memory_subject": Subject,
}
AUDITED_ROWS = 100  # of one batch; each costs three statements


@dataclass(frozen=True, slots=True)
class Begun:
    """`external_id_hmac`: finds out later whether a given id was the one that was erased."""

    keys_destroyed: int
    external_id_hmac: str


def begin(subject_id: UUID, *, actor: Actor, detail: dict[str, Any]) -> Begun:
    """From this commit on nothing is written or recalled about it, and nothing it has can be opened. Idempotent.

    Raises: NotFound, LockTimeout. Locks: the subject.
    """
    try:
        (subject,) = locks.lock_in_order(Subject(id=subject_id))
    except Subject.DoesNotExist:
        raise NotFound("There is no such subject.") from None
    if subject.status == SubjectStatus.ACTIVE:
        trail.transition(subject, to=SubjectStatus.ERASING, actor=actor, action="subject.erasing", detail=detail)
    digest = sealing.digest("erased", subject.external_id).hex() if subject.external_id else ""
    return Begun(_destroy_keys(subject_id), digest)


def delete_some(subject_id: UUID, *, actor: Actor, rows_max: int) -> tuple[str, int] | None:
    """Delete a batch of the first table that has rows of the subject; None when only sessions and the subject are left.

    Asserts a transaction. Bounded by rows_max. Locks: what it deletes.
    """
    for table in ROWS:
        if table in ("memory_session", "memory_subject"):
            continue
        found = _delete_from(table, subject_id, actor=actor, rows_max=rows_max)
        if found:
            return table, found
    return None


def delete_sessions(subject_id: UUID, *, actor: Actor, rows_max: int) -> int:
    """A batch of its sessions, with what waits in their buffers; how many. Asserts a transaction."""
    return _delete_from("memory_session", subject_id, actor=actor, rows_max=rows_max)


def delete_subject(subject_id: UUID, *, actor: Actor) -> str:
    """The row itself; the head of its audit chain, which ends here. Raises: NotFound. Locks: the subject."""
    try:
        (subject,) = locks.lock_in_order(Subject(id=subject_id))
    except Subject.DoesNotExist:
        raise NotFound("There is no such subject.") from None
    _part_with("memory_subject", [subject], actor=actor)
    # Fails, and all of it rolls back, when a writer that began before still holds on to the subject.
    sql.execute("DELETE FROM memory_subject WHERE id = %s", [subject_id])
    connection.check_constraints()
    return bytes(subject.audit_head).hex()


def session_ids(subject_id: UUID) -> list[UUID]:
    return list(Session.objects.filter(subject_id=subject_id).values_list("id", flat=True))


def _destroy_keys(subject_id: UUID) -> int:
    documents = sql.rows(DOCUMENTS[1:-1], named(subject_id))
    owners = [subject_id, *(document_id for (document_id,) in documents)]
    held = keys.several(owners)
    for owner_id in held:
        keys.destroy(owner_id)
    return len(held)


def _delete_from(table: str, subject_id: UUID, *, actor: Actor, rows_max: int) -> int:
    assert connection.in_atomic_block, "a batch and what is noted about it are one transaction"
    where = ROWS[table]
    if table in AUDITED:
        return _delete_audited(table, subject_id, where, actor=actor, rows_max=min(rows_max, AUDITED_ROWS))
    return sql.execute(
        f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {where} LIMIT %(rows)s))",
        {**named(subject_id), "rows": rows_max},
    )


def _delete_audited(table: str, subject_id: UUID, where: str, *, actor: Actor, rows_max: int) -> int:
    found = sql.rows(
        f"SELECT id FROM {table} WHERE {where} ORDER BY id LIMIT %(rows)s",
        {**named(subject_id), "rows": rows_max},
    )
    ids = [row_id for (row_id,) in found]
    if not ids:
        return 0
    if table == "memory_progress":
        for progress_id in keys.several(ids):
            keys.destroy(progress_id)
    if table == "memory_session":
        for session_id in ids:
            buffering.drop(current_tenant(), session_id)
    _part_with(table, list(AUDITED[table]._default_manager.filter(id__in=ids).order_by("id")), actor=actor)
    return sql.execute(f"DELETE FROM {table} WHERE id = ANY(%s)", [ids])


def _part_with(table: str, rows: Sequence[Any], *, actor: Actor) -> None:
    """The last entry of each chain; the reasons that people gave on the way cannot be opened any more."""
    ids = [row.pk for row in rows]
    for row in rows:
        trail.record(row, action="erased", actor=actor)
    notes.erase_about(trail.object_type(AUDITED[table]), ids)
