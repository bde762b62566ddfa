"""Rules of rows that are written very often, said so that Postgres does not pay for them at each write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models

from agentstate.tenants.security import SqlConstraint


class RowRule(SqlConstraint):
    """A check as a trigger: refuses a row for which the rule over `new` is false, with the error of a check.

    A CHECK of a table is read from its text again by every INSERT and UPDATE, also one that cannot break it: a fifth
    of what a turn cost the server. A trigger's plan is kept, and updates that set none of `columns` do not fire it.
    `usual`: a short condition from which the rule follows, asked first; a long one is dear to set up, not to compare.
    """

    def __init__(self, *, name: str, columns: Sequence[str], rule: str, usual: str = "") -> None:
        super().__init__(name=name)
        self.columns, self.rule, self.usual = list(columns), rule, usual

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        table = model._meta.db_table
        usual = f"IF {self.usual} THEN RETURN NEW; END IF; " if self.usual else ""
        return [
            f"CREATE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {usual}"
            f"IF ({self.rule}) IS FALSE THEN "
            f'RAISE EXCEPTION \'new row for relation "{table}" violates check constraint "{self.name}"\' '
            f"USING ERRCODE = 'check_violation', TABLE = '{table}', CONSTRAINT = '{self.name}'; "
            "END IF; RETURN NEW; END $$",
            f"CREATE TRIGGER {quote(self.name)} BEFORE INSERT OR UPDATE OF {', '.join(map(quote, self.columns))} "
            f"ON {quote(table)} FOR EACH ROW EXECUTE FUNCTION {self.name}()",
        ]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [
            f"DROP TRIGGER {quote(self.name)} ON {quote(model._meta.db_table)}",
            f"DROP FUNCTION {self.name}()",
        ]

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        usual = {"usual": self.usual} if self.usual else {}
        return path, args, {**kwargs, "columns": self.columns, "rule": self.rule, **usual}
