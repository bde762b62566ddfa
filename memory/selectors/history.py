"""Every content an item has had: who made it, why, and with which words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id, public_id
from memory.models import ItemRevision
from memory.selectors import shelf
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemRow

SHOWN_MAX = 100  # newest revisions on a page


@dataclass(frozen=True, slots=True)
class Revision:
    version: int
    change: str
    text: str
    facts: Any
    reason: str
    status: str
    pinned: bool
    importance: float
    valid_from: datetime
    valid_to: datetime | None
    tokens: int
    restored_from: int | None
    actor_kind: str
    actor_name: str
    run_id: UUID | None
    created_at: datetime

    @property
    def run(self) -> str:
        return public_id("run", self.run_id) if self.run_id else ""

    @property
    def by_agent(self) -> bool:
        return self.actor_kind in ("worker", "key", "system")


def item(subject_id: UUID, public: str, words: Words) -> ItemRow:
    """One read. Raises: NotFound, also for an item of another subject."""
    item_id = parse_id("item", public)
    found = shelf.some(subject_id, [item_id], words)
    if item_id not in found:
        raise NotFound("There is no such memory.")
    return found[item_id]


def of(item: ItemRow, words: Words) -> list[Revision]:
    """Newest first, at most SHOWN_MAX. One read, by primary key."""
    found = ItemRevision.objects.filter(item_id=item.id, subject_id=item.subject_id).order_by("-version")
    return [_revision(row, words) for row in found[:SHOWN_MAX]]


def at(item: ItemRow, version: int, words: Words) -> Revision:
    """Raises: NotFound."""
    row = ItemRevision.objects.filter(item_id=item.id, subject_id=item.subject_id, version=version).first()
    if row is None:
        raise NotFound(f"This memory has no version {version}.")
    return _revision(row, words)


def _revision(row: ItemRevision, words: Words) -> Revision:
    place = f"{row.item_id}:{row.version}"
    return Revision(
        text=words.text("memory_itemrevision", f"{place}:text", row.text),
        facts=words.json("memory_itemrevision", f"{place}:facts", row.facts),
        reason=words.text("memory_itemrevision", f"{place}:reason", row.reason),
        **{name: getattr(row, name) for name in _PLAIN},
    )


_PLAIN = [name for name in Revision.__dataclass_fields__ if name not in ("text", "facts", "reason")]
