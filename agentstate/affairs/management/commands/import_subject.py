"""manage.py import_subject TENANT FILE [--into SUBJECT] [--dry-run]"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentstate.affairs.commands import named_subject, named_tenant
from agentstate.core.errors import DomainError
from agentstate.tenants.actors import system
from memory.services import importing


class Command(BaseCommand):
    help = "Bring an export of a subject into a tenant: all of it, or nothing. Twice brings nothing new."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", metavar="TENANT", help="slug")
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument("--into", metavar="SUBJECT", default="", help="external id or public id")
        parser.add_argument("--dry-run", action="store_true", help="only say what would happen")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = named_tenant(options["tenant"])
        try:
            into = named_subject(tenant, options["into"]) if options["into"] else None
            with options["file"].open("rb") as file:
                actor = system("import_subject", tenant_id=tenant.id)
                report = importing.bring_in(file, into=into, actor=actor, dry_run=options["dry_run"])
        except (DomainError, OSError) as error:
            raise CommandError(getattr(error, "message", str(error))) from None
        for what in sorted({*report.new, *report.known}):
            self.stdout.write(f"{what}: {report.new[what]:,} new, {report.known[what]:,} known")
        for conflict in report.conflicts:
            self.stdout.write(f"conflict: {conflict}")
        self.stdout.write(
            f"{'Imported into' if report.done else 'Would go into'} {report.public_id}; "
            f"{report.evicted} items left recall because of the cap of {report.cap_bytes:,} bytes; "
            f"{report.links_left_out} links to runs left out."
        )
