"""What a change would do, told for a page: what leaves recall, what it may contradict, what an agent would get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from memory.selectors import shelf
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemRow
from memory.services.items import Rehearsal

WHY = {
    "attribute": "it names the same attribute",
    "facts": "its facts are about the same",
    "wording": "nearly the same words, with another number or a “not”",
}


@dataclass(frozen=True, slots=True)
class Contradiction:
    item: ItemRow
    why: str


@dataclass(frozen=True, slots=True)
class Effect:
    bytes_after: int
    cap_bytes: int
    tokens_after: int
    evicted: list[ItemRow]
    contradicts: list[Contradiction]

    @property
    def percent(self) -> float:
        return 100 * self.bytes_after / self.cap_bytes


def told(subject_id: UUID, words: Words, rehearsal: Rehearsal[Any]) -> Effect:
    """One read. What was evicted in the rehearsal is there again; its words are opened as they stand."""
    gone = [each.item_id for each in rehearsal.evicted]
    hints = {hint.item_id: WHY[hint.why] for hint in rehearsal.contradicts}
    found = shelf.some(subject_id, [*gone, *hints], words)
    return Effect(
        bytes_after=rehearsal.bytes_after,
        cap_bytes=rehearsal.cap_bytes,
        tokens_after=rehearsal.tokens_after,
        evicted=[found[item_id] for item_id in gone if item_id in found],
        contradicts=[Contradiction(found[item_id], why) for item_id, why in hints.items() if item_id in found],
    )
