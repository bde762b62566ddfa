"""What only SQL can say about the tables of memory: rows that a search reads by the thousand lie in one place."""

from __future__ import annotations

from typing import Any

from django.db import models

from agentstate.tenants.security import SqlConstraint

ROW_BYTES = 8_160  # the most that a page holds


class Inline(SqlConstraint):
    """Rows stay whole as long as they fit on a page: vectors and ciphertext do not compress, and a row whose vector
    lies elsewhere costs five pages instead of one."""

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"ALTER TABLE {quote(model._meta.db_table)} SET (toast_tuple_target = {ROW_BYTES})"]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"ALTER TABLE {quote(model._meta.db_table)} RESET (toast_tuple_target)"]
