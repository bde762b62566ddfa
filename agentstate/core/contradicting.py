"""Whether two statements may contradict each other. A hint to people: nothing is replaced by it.

Both stores of memory judge by this: the service over its rows, the memory store over its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentstate.core import likeness

Why = Literal["attribute", "facts", "wording"]
FIRM: frozenset[Why] = frozenset({"attribute", "facts"})  # both name what they are about; wording is a guess
SUPERSEDES = 0.6  # confidence of the proposal that follows from a firm one: it only says that both are about the same
# What facts of a kind are about: the fields that say so, and what a field holds when it is left out.
ABOUT: dict[str, dict[str, str]] = {
    "contact": {"channel": ""},
    "preference": {"about": ""},
    "order": {"number": ""},
    "commitment": {"what": "", "by": "us"},
}


@dataclass(frozen=True, slots=True)
class Statement:
    """`text`: in the form in which texts are compared. `attribute` and `key`: what it names itself to be about."""

    text: str
    namespace: str
    attribute: object | None
    key: tuple[str, ...] | None
    facts: Mapping[str, Any] | None


def key_of(kind: str, facts: Mapping[str, Any] | None, about: Mapping[str, str]) -> tuple[str, ...] | None:
    """What these facts are about, in a form that can be compared; None when they cannot contradict others."""
    if facts is None or not about:
        return None
    values = [facts.get(name, default) for name, default in about.items()]
    return (kind, *(str(value).strip().casefold() for value in values)) if all(values) else None


def why(mine: Statement, theirs: Statement) -> Why | None:
    """Two that both name what they are about, and name different things, do not contradict whatever their words."""
    if mine.attribute is not None and theirs.attribute is not None:
        return "attribute" if mine.attribute == theirs.attribute and mine.text != theirs.text else None
    if mine.key is not None and theirs.key is not None:
        return "facts" if mine.key == theirs.key and mine.facts != theirs.facts else None
    if mine.namespace != theirs.namespace:
        return None
    return "wording" if likeness.differs_in_guard(likeness.words(mine.text), likeness.words(theirs.text)) else None
