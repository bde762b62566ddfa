"""Items of the memory store, and what a new statement is beside them: compared by the words the service compares by."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentstate.core import canonical, contradicting, likeness
from agentstate.core.contradicting import Statement, Why
from agentstate.sdk import memory_acts as acts


@dataclass(slots=True)
class Subject:
    id: str
    external_id: str = ""
    name: str = ""
    aliases: set[tuple[str, str]] = field(default_factory=set)

    @property
    def names(self) -> frozenset[str]:
        """Words that name it: "Ada prefers" and "you prefer" are the same."""
        return frozenset(f"{self.name} {self.external_id}".casefold().split())


@dataclass(slots=True)
class Item:
    id: str
    subject: Subject
    text: str
    namespace: str
    kind: str
    attribute: str
    fact_kind: str
    facts: Any
    importance: float
    pinned: bool
    at: datetime
    version: int = 1
    status: str = "active"

    @property
    def bytes(self) -> int:
        return len(self.text.encode()) + (len(canonical.dumps(self.facts)) if self.facts is not None else 0)

    @property
    def words(self) -> likeness.Words:
        return likeness.words(self.text)


def same(items: Iterable[Item], wanted: acts.Remember) -> Item | None:
    """The item of the same words."""
    return next(
        (item for item in items if item.namespace == wanted.namespace and normal(item.text) == normal(wanted.text)),
        None,
    )


def brings_facts(item: Item, wanted: acts.Remember) -> bool:
    """The same words, now with facts, or with other ones of the same kind."""
    return wanted.facts is not None and wanted.facts != item.facts and item.fact_kind in ("", wanted.fact_kind)


def near(items: Iterable[Item], wanted: acts.Remember) -> Item | None:
    """The item that nearly says it, the longest first. With another attribute or facts it is another statement."""
    said = likeness.words(wanted.text)
    found = [item for item in items if _is_one(item, wanted) and likeness.is_near(said, item.words)]
    return max(found, key=lambda item: (len(item.words.terms), item.id), default=None)


def merge(item: Item, wanted: acts.Remember) -> None:
    """A revision: the longer words, the newer facts, the greater importance."""
    item.text = max((item.text, wanted.text), key=lambda text: len(likeness.words(text).terms))
    if wanted.facts is not None:
        item.fact_kind, item.facts = wanted.fact_kind, wanted.facts
    item.importance = max(item.importance, wanted.importance)
    item.version += 1


def statement(item: Item) -> Statement:
    """As contradictions are looked for."""
    attribute = (item.namespace, normal(item.attribute)) if item.attribute else None
    key = contradicting.key_of(item.fact_kind, item.facts, contradicting.ABOUT.get(item.fact_kind, {}))
    return Statement(normal(item.text), item.namespace, attribute, key, item.facts)


def contradictions(item: Item, others: Iterable[Item]) -> list[tuple[Item, Why]]:
    """Which of the others may say otherwise, and how both name what they are about."""
    mine = statement(item)
    found = [(other, contradicting.why(mine, statement(other))) for other in others if other is not item]
    return [(other, why) for other, why in found if why]


def says_it(items: Iterable[Item], wanted: acts.Propose) -> Item | None:
    """The item to which a proposal adds nothing."""
    said = likeness.words(wanted.text)
    return next((item for item in items if item.namespace == wanted.namespace and _covers(item, said, wanted)), None)


def _covers(item: Item, said: likeness.Words, wanted: acts.Propose) -> bool:
    if wanted.facts is not None and wanted.facts != item.facts:
        return False
    return likeness.is_near(said, item.words) and len(said.terms) <= len(item.words.terms)


def _is_one(item: Item, wanted: acts.Remember) -> bool:
    if (item.namespace, item.kind) != (wanted.namespace, wanted.kind):
        return False
    if item.attribute and wanted.attribute and normal(item.attribute) != normal(wanted.attribute):
        return False
    has_facts = item.facts is not None and wanted.facts is not None
    return not has_facts or (item.fact_kind, item.facts) == (wanted.fact_kind, wanted.facts)


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
