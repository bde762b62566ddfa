"""Rules of rows that are written in every turn, said so that Postgres does not pay for them in each."""

from __future__ import annotations

from collections.abc import Sequence

from agentstate.tenants.rules import RowRule


def one_of(column: str, words: Sequence[str], *, given: Sequence[str] = (), with_: str = "") -> str:
    """The rule that the column holds one of these words, or one of `given` while the column `with_` is not null."""
    rule = _among(column, words)
    return f"{rule} OR {_among(column, given)} AND new.{with_} IS NOT NULL" if given else rule


def words(name: str, columns: Sequence[str], *rules: str, usual: str = "") -> RowRule:
    """All these rules as one trigger; from `usual` all of them follow."""
    return RowRule(name=name, columns=columns, rule=" AND ".join(f"({rule})" for rule in rules), usual=usual)


def _among(column: str, words: Sequence[str]) -> str:
    assert all(word.replace("_", "").isalpha() for word in words), "words of our own"
    return f"new.{column} = ANY ('{{{','.join(words)}}}'::text[])"
