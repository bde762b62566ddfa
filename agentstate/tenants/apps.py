"""The app of tenants: start-up refusals, and grants on tables that are not ours."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate


class TenantsConfig(AppConfig):
    name = "agentstate.tenants"
    label = "tenants"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from agentstate.tenants import checks

        checks.register_all()
        post_migrate.connect(grant_foreign_tables, sender=self)
        connection_created.connect(checks.refuse_unsafe_connection)


def grant_foreign_tables(using: str, **signal: Any) -> None:
    """Grants for tables of Django; skips the missing ones, because `migrate app zero` sends the signal too."""
    from agentstate.tenants.security import FOREIGN_TABLES

    connection = connections[using]
    role = connection.ops.quote_name(settings.APP_ROLE)
    with connection.cursor() as cursor:
        present = set(connection.introspection.table_names(cursor))
        for table, grants in FOREIGN_TABLES.items():
            if table in present:
                cursor.execute(f"GRANT {grants} ON {connection.ops.quote_name(table)} TO {role}")
