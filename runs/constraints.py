"""Rules of rows that are checked in every turn, said so that Postgres reads them quickly.

A check is parsed anew by each statement that may break it. `IN (..)` of Django stands there as a list of casts, a
literal array as one constant: several times shorter to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models

from agentstate.tenants.security import SqlConstraint


class OneOf(SqlConstraint):
    """The column holds one of these words, or one of `given` while the column `with_` is not null."""

    def __init__(
        self, *, name: str, column: str, words: Sequence[str], given: Sequence[str] = (), with_: str = ""
    ) -> None:
        super().__init__(name=name)
        self.column, self.words, self.given, self.with_ = column, list(words), list(given), with_

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        rule = self._among(self.words, quote)
        if self.given:
            rule += f" OR {self._among(self.given, quote)} AND {quote(self.with_)} IS NOT NULL"
        return [f"ALTER TABLE {quote(model._meta.db_table)} ADD CONSTRAINT {quote(self.name)} CHECK ({rule})"]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"ALTER TABLE {quote(model._meta.db_table)} DROP CONSTRAINT {quote(self.name)}"]

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        rule = {"column": self.column, "words": self.words, "given": self.given, "with_": self.with_}
        return path, args, {**kwargs, **rule}

    def _among(self, words: Sequence[str], quote: Any) -> str:
        assert all(word.replace("_", "").isalpha() for word in words), "words of our own"
        return f"{quote(self.column)} = ANY ('{{{','.join(words)}}}'::text[])"
