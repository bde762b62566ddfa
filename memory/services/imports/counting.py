"""What follows from the rows that came in: counts, the cap, the audit entry."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Count, Max, Q, Sum

from agentstate.audit import trail
from agentstate.core.clock import now
from memory.models import Item, ItemRevision, Message, ProgressVersion, Session, Subject
from memory.services import cap, revising
from memory.services.imports.desk import Desk
from memory.services.imports.lines import bad
from memory.states import ItemStatus


def finish(desk: Desk) -> None:
    for item, number in desk.items.values():
        if not item.tokens:
            raise bad(number, f"the words of its version {item.version} are missing")
    _check_versions(desk)
    if desk.report.conflicts:
        return
    _count_sessions(desk)
    _count_subject(desk)
    desk.report.cap_bytes = cap.of(desk.subject)
    desk.report.evicted = len(cap.enforce(desk.subject, key=desk.key, actor=desk.actor))
    active_at = desk.subject.last_active_at
    revising.save_counts(desk.subject)
    Subject.objects.filter(id=desk.subject.id).update(last_active_at=active_at)  # an import is no activity of it
    if +desk.report.new:
        counts = {name: count for name, count in desk.report.new.items() if count}
        trail.record(desk.subject, action="subject.imported", actor=desk.actor, detail=counts)


def _check_versions(desk: Desk) -> None:
    """No number came twice and none is above the one in force, so their count tells whether all are there."""
    for old, (item, number) in desk.items.items():
        if desk.versions[old] < item.version:
            revisions = ItemRevision.objects.filter(item_id=item.id).values_list("version", flat=True)
            raise bad(number, f"version {_first_missing(revisions)} of the item {old} is missing")
    for old, (document, number) in desk.documents.items():
        if desk.versions[old] < document.version:
            bodies = ProgressVersion.objects.filter(progress_id=document.id).values_list("version", flat=True)
            raise bad(number, f"version {_first_missing(bodies)} of the document {document.key} is missing")


def _first_missing(numbers: Iterable[int]) -> int:
    came = set(numbers)
    return next(number for number in range(1, len(came) + 2) if number not in came)


def _count_sessions(desk: Desk) -> None:
    """Index: memory_message_seq. What was taken back has its number still, so no export has a hole."""
    for session_id, (key, number) in desk.session_lines.items():
        stands = Q(undone_in=None)
        found = Message.objects.filter(session_id=session_id).aggregate(
            rows=Count("id"),
            last_seq=Max("seq"),
            message_count=Count("id", filter=stands),
            turns=Count("id", filter=stands & Q(role="user")),
            tokens=Sum("tokens", filter=stands),
        )
        counts = {name: value or 0 for name, value in found.items()}
        if counts.pop("rows") < counts["last_seq"]:
            numbers = Message.objects.filter(session_id=session_id).values_list("seq", flat=True)
            raise bad(number, f"message {_first_missing(numbers)} of the session {key} is missing")
        # What was worth keeping of these messages comes in as items: it is not read out of them once more.
        Session.objects.filter(id=session_id).update(**counts, extracted_seq=counts["last_seq"])
        Session.objects.filter(id=session_id, summarised_seq__gt=counts["last_seq"]).update(
            summarised_seq=counts["last_seq"]
        )


def _count_subject(desk: Desk) -> None:
    subject = desk.subject
    active = Item.objects.filter(subject=subject, status=ItemStatus.ACTIVE).aggregate(
        item_bytes=Sum("bytes"), pinned_bytes=Sum("bytes", filter=Q(pinned=True)), item_count=Count("id")
    )
    for name, value in active.items():
        setattr(subject, name, value or 0)
    subject.session_count = Session.objects.filter(subject=subject).count()
    subject.message_count = Message.objects.filter(subject_id=subject.id, undone_in=None).count()
    if not desk.report.is_new:
        newest = Session.objects.filter(subject=subject).aggregate(at=Max("last_active_at"))["at"]
        subject.last_active_at = max(subject.last_active_at, newest or subject.last_active_at)
    subject.last_active_at = min(subject.last_active_at, now())
    subject.save(update_fields=["session_count", "message_count", "last_active_at"])
