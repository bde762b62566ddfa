"""Contradictions: items that say something else about the same thing. A hint to people; nothing is replaced by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from agentstate.core import contradicting
from agentstate.core.contradicting import Why
from memory import facts, texts
from memory.models import Item
from memory.services.revising import Content, Held


@dataclass(frozen=True, slots=True)
class Hint:
    """`why`: the same attribute, the same key of facts, or nearly the same words with another number or negation."""

    item_id: UUID
    version: int
    why: Why

    @property
    def is_firm(self) -> bool:
        """Both name what they are about: worth a proposal, while wording is a guess."""
        return self.why in contradicting.FIRM


def contradictions(
    content: Content, *, fact_kind: str, attribute: bytes | None, namespace: str, held: Iterable[Held]
) -> list[Hint]:
    """Which of these items may contradict this content. The item itself must not be among `held`."""
    mine = _statement(content, fact_kind, attribute, namespace)
    found = []
    for other in held:
        theirs = _statement(other.content, other.item.fact_kind, other.item.attribute, other.item.namespace)
        why = contradicting.why(mine, theirs)
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


def _statement(
    content: Content, fact_kind: str, attribute: bytes | memoryview | None, namespace: str
) -> contradicting.Statement:
    return contradicting.Statement(
        texts.normalised(content.text),
        namespace,
        None if attribute is None else bytes(attribute),
        facts.key_of(fact_kind, content.facts),
        content.facts,
    )
