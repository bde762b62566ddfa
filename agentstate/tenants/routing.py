"""Only the owner role changes the schema; everything at run time goes through the application role."""

from __future__ import annotations

from typing import Any


class OwnerMigrates:
    """Database router: migrations run on the alias `owner`, nowhere else."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "owner"

    def allow_relation(self, first: object, second: object, **hints: Any) -> bool:
        return True  # both aliases are the same database
