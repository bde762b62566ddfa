"""Django's migrate, as the owner: the application role cannot change the schema."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import DatabaseError, connections

from agentstate.tenants.security import SWEEPER

_MEMBER = "SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = %s"


class Command(migrate.Command):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database="owner")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["database"] not in connections:
            raise CommandError("DATABASE_OWNER_URL is not set: migrations run as the role that owns the tables.")
        _require_sweeper(options["database"])
        super().handle(*args, **options)


def _require_sweeper(alias: str) -> None:
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(_MEMBER, [SWEEPER])
            found = cursor.fetchone()
    except DatabaseError as error:
        raise CommandError(f"The owner cannot connect: {error}") from error
    if not found or not found[0]:
        owner = connections[alias].settings_dict["USER"]
        raise CommandError(
            f"As a superuser, run once: CREATE ROLE {SWEEPER} NOLOGIN; GRANT {SWEEPER} TO {owner}; then migrate again."
        )
