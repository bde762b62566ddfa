"""What was true then, as it was known then: the items of a subject on both axes of time.

Each revision of an item holds its status and its valid times, so the newest one at a moment is what was known at it;
edits, supersedes, expiry and restores since then change nothing of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agentstate.core.clock import now
from agentstate.core.ids import public_id
from memory import facts, keys
from memory.models import Item, ItemRevision
from memory.selectors.opening import Words
from memory.states import ItemStatus

TABLE = "memory_itemrevision"
KNOWN = (ItemStatus.ACTIVE, ItemStatus.SUPERSEDED)  # a superseded one goes on telling what held until it ended


@dataclass(frozen=True, slots=True)
class Known:
    """One item as it stood. `since`: when we came to know it in these words."""

    item_id: UUID
    version: int
    kind: str
    namespace: str
    text: str
    facts: Any
    pinned: bool
    importance: float
    valid_from: datetime
    valid_to: datetime | None
    since: datetime

    @property
    def public_id(self) -> str:
        return public_id("item", self.item_id)


def items_as_of(subject_id: UUID, *, true_at: datetime | None = None, known_at: datetime | None = None) -> list[Known]:
    """What held at `true_at`, by what was known at `known_at`; either None: now.

    In the order in which the items were made. Three statements. Index: memory_itemrevision_subject.
    """
    true_at, known_at = true_at or now(), known_at or now()
    newest = (
        ItemRevision.objects.filter(subject_id=subject_id, created_at__lte=known_at)
        .order_by("item_id", "-version")
        .distinct("item_id")
    )
    standing = [row for row in newest if row.status in KNOWN and _holds(row, true_at)]
    items = Item.objects.in_bulk([row.item_id for row in standing])
    words = Words(keys.several([subject_id]).get(subject_id))
    return [_known(row, items[row.item_id], words) for row in standing]


def _holds(revision: ItemRevision, at: datetime) -> bool:
    return revision.valid_from <= at and (revision.valid_to is None or at < revision.valid_to)


def _known(revision: ItemRevision, item: Item, words: Words) -> Known:
    place = f"{item.id}:{revision.version}"
    stored = words.json(TABLE, f"{place}:facts", revision.facts)
    return Known(
        item_id=item.id,
        version=revision.version,
        kind=item.kind,
        namespace=item.namespace,
        text=words.text(TABLE, f"{place}:text", revision.text),
        facts=facts.read(item.fact_kind, revision.schema_version, stored).facts,
        pinned=revision.pinned,
        importance=revision.importance,
        valid_from=revision.valid_from,
        valid_to=revision.valid_to,
        since=revision.created_at,
    )
