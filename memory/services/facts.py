"""Facts in the database: stored ones are brought to their kind's current version, in batches. Reading does it anyway.

What no upgrade can read stays as it is and is shown so: memory.facts says why.
"""

from __future__ import annotations

from uuid import UUID

from django.db.models import Q

from agentstate.core.errors import Conflict, Corrupt, NotFound
from agentstate.tenants import actors
from memory.facts import current_version, forget, key_of, kinds, read, register, schema, upcaster, validated
from memory.models import Item
from memory.services import cap, revising, subjects
from memory.services.upkeep import Progressed
from memory.states import ItemStatus

__all__ = [
    "backfill",
    "current_version",
    "forget",
    "key_of",
    "kinds",
    "read",
    "register",
    "schema",
    "target",
    "upcaster",
    "validated",
]

BATCH_ITEMS = 100


def target() -> str:
    """What the back-fill works toward, for its upkeep row: "contact:1 order:2"."""
    return " ".join(f"{kind}:{version}" for kind, version in kinds().items())[:200]


def backfill(cursor: str) -> Progressed:
    """One batch of active items with facts of an older version, each rewritten as a revision "upgraded".

    `cursor`: the id of the last item seen. Index: memory_item_schema. Locks: one subject after the other.
    """
    older = Q(pk__in=[])
    for kind, version in kinds().items():
        older |= Q(fact_kind=kind, schema_version__lt=version)
    after = UUID(cursor) if cursor else UUID(int=0)
    found = Item.objects.filter(older, status=ItemStatus.ACTIVE, id__gt=after).order_by("id")
    batch = list(found.values_list("id", "subject_id")[:BATCH_ITEMS])
    done = sum(_upgrade(item_id, subject_id) for item_id, subject_id in sorted(batch, key=lambda pair: pair[1]))
    return Progressed(str(batch[-1][0]) if batch else "", done, is_over=len(batch) < BATCH_ITEMS)


def _upgrade(item_id: UUID, subject_id: UUID) -> bool:
    """Whether it was rewritten. One that cannot be read, or would no longer fit, stays as it is."""
    try:
        subject = subjects.locked(subject_id)
        key = subjects.key_of(subject)
    except (NotFound, Conflict, Corrupt):  # it is being erased, or was
        return False
    item = Item.objects.filter(id=item_id, status=ItemStatus.ACTIVE).first()
    if item is None or item.schema_version >= current_version(item.fact_kind):
        return False
    content = revising.content_of(item, key)
    if content.schema_version < current_version(item.fact_kind):
        return False
    free = cap.of(subject) - (subject.pinned_bytes if item.pinned else subject.item_bytes)
    if content.bytes - item.bytes > free:
        return False  # read upgrades it each time; nothing leaves recall for our sake
    revising.revise(subject, item, content, key=key, actor=actors.system("upgrade"), change="upgraded")
    revising.save_counts(subject)
    return True
