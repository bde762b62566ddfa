"""Contradictions: items that say something else about the same thing. A hint to people; nothing is replaced by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from agentstate.core import likeness
from memory import facts, texts
from memory.models import Item
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
    found = []
    mine = _About(attribute, facts.key_of(fact_kind, content.facts), namespace)
    for other in held:
        theirs = _About(
            None if other.item.attribute is None else bytes(other.item.attribute),
            facts.key_of(other.item.fact_kind, other.content.facts),
            other.item.namespace,
        )
        why = _why(mine, content, theirs, other.content)
        if why:
            found.append(Hint(other.item.id, other.item.version, why))
    return found


def against(item: Item, content: Content, held: Sequence[Held]) -> list[Hint]:
    """Which of these active items may say otherwise than this one. A hint to people; nothing follows from it."""
    return contradictions(
        content,
        fact_kind=item.fact_kind,
        attribute=None if item.attribute is None else bytes(item.attribute),
        namespace=item.namespace,
        held=[each for each in held if each.item.id != item.id],
    )


@dataclass(frozen=True, slots=True)
class _About:
    """What an item names itself to be about."""

    attribute: bytes | None
    key: tuple[str, ...] | None
    namespace: str


def _why(mine: _About, content: Content, theirs: _About, other: Content) -> Why | None:
    """Two that both name what they are about, and name different things, do not contradict whatever their words."""
    if mine.attribute is not None and theirs.attribute is not None:
        is_other = texts.normalised(other.text) != texts.normalised(content.text)
        return "attribute" if mine.attribute == theirs.attribute and is_other else None
    if mine.key is not None and theirs.key is not None:
        return "facts" if mine.key == theirs.key and other.facts != content.facts else None
    if mine.namespace != theirs.namespace:
        return None
    differs = likeness.differs_in_guard(likeness.words(content.text), likeness.words(other.text))
    return "wording" if differs else None
