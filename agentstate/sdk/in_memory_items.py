"""Items of the memory store, and what a new statement is beside them: compared by the words the service compares by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentstate.core import canonical, likeness
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
        (item for item in items if item.namespace == wanted.namespace and _normal(item.text) == _normal(wanted.text)),
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


def _is_one(item: Item, wanted: acts.Remember) -> bool:
    if (item.namespace, item.kind) != (wanted.namespace, wanted.kind):
        return False
    if item.attribute and wanted.attribute and _normal(item.attribute) != _normal(wanted.attribute):
        return False
    has_facts = item.facts is not None and wanted.facts is not None
    return not has_facts or (item.fact_kind, item.facts) == (wanted.fact_kind, wanted.facts)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
