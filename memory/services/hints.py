"""Contradictions: items that say something else about the same thing. A hint to people; nothing is replaced by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from memory import facts, likeness, texts
from memory.services.revising import Content, Held

Why = Literal["attribute", "facts", "wording"]


@dataclass(frozen=True, slots=True)
class Hint:
    """`why`: the same attribute, the same key of facts, or nearly the same words with another number or negation."""

    item_id: UUID
    version: int
    why: Why

    @property
    def is_firm(self) -> bool:
        """Both name what they are about: worth a proposal, while wording is a guess."""
        return self.why != "wording"


def contradictions(
    content: Content, *, fact_kind: str, attribute: bytes | None, namespace: str, held: Iterable[Held]
) -> list[Hint]:
    """Which of these items may contradict this content. The item itself must not be among `held`."""
    said, about = likeness.words(content.text), facts.key_of(fact_kind, content.facts)
    plain = texts.normalised(content.text)
    found = []
    for other in held:
        why: Why | None = None
        if attribute is not None and other.item.attribute is not None and bytes(other.item.attribute) == attribute:
            why = "attribute" if texts.normalised(other.content.text) != plain else None
        elif about is not None and facts.key_of(other.item.fact_kind, other.content.facts) == about:
            why = "facts" if other.content.facts != content.facts else None
        elif other.item.namespace == namespace and likeness.differs_in_guard(said, other.words):
            why = "wording"
        if why:
            found.append(Hint(other.item.id, other.item.version, why))
    return found
