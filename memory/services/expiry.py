"""Expiry: items whose time is over leave recall, in batches that can be killed and done twice."""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID

from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Corrupt, NotFound
from agentstate.tenants import actors
from memory.models import Item
from memory.services import revising, subjects
from memory.services.upkeep import Progressed
from memory.states import ItemStatus

BATCH_ITEMS = 200


def expire_due(cursor: str) -> Progressed:
    """One batch, the longest overdue first; what has expired is due no more, so there is no cursor.

    Index: memory_item_expiry. Locks: the subjects of the batch, in the order of their ids.
    """
    due = Item.objects.filter(status=ItemStatus.ACTIVE, pinned=False, expires_at__lte=now())
    of_subject: dict[UUID, list[UUID]] = defaultdict(list)
    batch = list(due.order_by("expires_at").values_list("subject_id", "id")[:BATCH_ITEMS])
    for subject_id, item_id in batch:
        of_subject[subject_id].append(item_id)
    done = sum(_expire(subject_id, of_subject[subject_id]) for subject_id in sorted(of_subject))
    # A batch that could do nothing (all its subjects are being erased) would come back for ever.
    return Progressed("", done, is_over=len(batch) < BATCH_ITEMS or not done)


def _expire(subject_id: UUID, item_ids: list[UUID]) -> int:
    try:
        subject = subjects.locked(subject_id)
        key = subjects.key_of(subject)
    except (NotFound, Conflict, Corrupt):  # it is being erased, or was
        return 0
    still_due = Item.objects.filter(
        id__in=item_ids, status=ItemStatus.ACTIVE, pinned=False, expires_at__lte=now()
    ).order_by("id")
    done = 0
    for item in still_due:
        revising.move(
            subject,
            item,
            to=ItemStatus.EXPIRED,
            key=key,
            actor=actors.system("expiry"),
            valid_to=item.valid_to,
            expires_at=item.expires_at,
        )
        done += 1
    if done:
        revising.save_counts(subject)
    return done
