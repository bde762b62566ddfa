"""The cap: what a subject's active items take together never exceeds it, whoever writes and however many at once.

Over it the least of what is not pinned leaves recall in the same transaction, and the writer is told which. What an
item is worth is its importance, halved every HALF_LIFE: the oldest go first, the unimportant before the important.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from agentstate.core.clock import now
from agentstate.core.errors import Invalid
from agentstate.core.ids import public_id
from agentstate.core.limits import SUBJECT_ITEMS_MAX
from agentstate.tenants.actors import Actor
from memory import policies
from memory.models import Item, Subject
from memory.services import revising
from memory.states import ItemStatus

HALF_LIFE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Evicted:
    """An item that left recall. Its words are kept: it can be restored, and consolidation may tell it shorter."""

    item_id: UUID
    bytes: int


def of(subject: Subject) -> int:
    """The cap in bytes: its own, or the tenant's setting."""
    return policies.for_tenant().cap_bytes if subject.cap_bytes is None else subject.cap_bytes


def enforce(subject: Subject, *, key: bytes, actor: Actor, keep: Item | None = None) -> list[Evicted]:
    """Bring the subject under its cap; which items left recall. `keep`: what was just written stays.

    The subject's row is locked and its counts hold what was written; they are not saved here.
    Raises: Invalid when what is pinned, with `keep`, is larger than the cap.
    """
    cap_bytes = of(subject)
    _check_room(subject, cap_bytes, keep)
    if not _is_over(subject, cap_bytes):
        return []
    evicted = []
    for item in _least_first(subject, keep=() if keep is None else (keep.id,)):
        if not _is_over(subject, cap_bytes):
            break
        evicted.append(Evicted(item.id, item.bytes))
        is_due = item.expires_at is not None and item.expires_at <= now()
        to = ItemStatus.EXPIRED if is_due else ItemStatus.OVER_CAP
        revising.move(subject, item, to=to, key=key, actor=actor, valid_to=item.valid_to, expires_at=item.expires_at)
    assert not _is_over(subject, cap_bytes), "what is pinned was checked, and all else may go"
    return evicted


def worth(importance: float, updated_at: datetime, *, at: datetime) -> float:
    return importance * float(0.5 ** (max(at - updated_at, timedelta(0)) / HALF_LIFE))


def _check_room(subject: Subject, cap_bytes: int, keep: Item | None) -> None:
    needed = 0 if keep is None or keep.pinned else keep.bytes
    if subject.pinned_bytes + needed <= cap_bytes:
        return
    pinned = subject.pinned_bytes - (keep.bytes if keep is not None and keep.pinned else 0)
    asked = f"What was to be written takes {keep.bytes:,} bytes, and " if keep is not None else ""
    raise Invalid(
        f"{asked}{pinned:,} bytes are pinned about {public_id('subject', subject.id)}, whose cap is {cap_bytes:,}"
        " bytes: that does not fit. Unpin or shorten an item, or raise the cap.",
        field="cap_bytes",
        pinned_bytes=pinned,
        cap_bytes=cap_bytes,
        bytes=0 if keep is None else keep.bytes,
    )


def _is_over(subject: Subject, cap_bytes: int) -> bool:
    return subject.item_bytes > cap_bytes or subject.item_count > SUBJECT_ITEMS_MAX


def _least_first(subject: Subject, *, keep: Collection[UUID]) -> list[Item]:
    """What may go, in the order in which it goes: what is due to expire, then by worth."""
    at = now()
    found = Item.objects.filter(subject_id=subject.id, status=ItemStatus.ACTIVE, pinned=False).exclude(id__in=keep)

    def order(item: Item) -> tuple[bool, float, datetime, UUID]:
        is_due = item.expires_at is not None and item.expires_at <= at
        return not is_due, worth(item.importance, item.updated_at, at=at), item.updated_at, item.id

    return sorted(found, key=order)
