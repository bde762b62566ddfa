"""What a rule over the rows of a tenant is; `invariants` checks them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """`statement` returns (id of the object, what is wrong); no row is good."""

    name: str
    meaning: str
    statement: str
