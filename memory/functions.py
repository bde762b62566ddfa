"""What the migration of this tier makes besides tables: SQL functions. Those that cross tenants are listed here."""

from __future__ import annotations

from django.db.migrations.operations.base import Operation


def operations() -> list[Operation]:
    return []
