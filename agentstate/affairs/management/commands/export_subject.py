"""manage.py export_subject TENANT SUBJECT [FILE]"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentstate.affairs.commands import named_subject, named_tenant
from agentstate.core.errors import DomainError
from agentstate.tenants.actors import system
from memory.services import exporting


class Command(BaseCommand):
    help = "Write everything that is remembered of a subject into FILE (or to the standard output), a line an object."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", metavar="TENANT", help="slug")
        parser.add_argument("subject", metavar="SUBJECT", help="external id or public id")
        parser.add_argument("file", metavar="FILE", nargs="?", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = named_tenant(options["tenant"])
        path: Path | None = options["file"]
        try:
            subject_id = named_subject(tenant, options["subject"])
            pieces = exporting.export(tenant.id, subject_id, actor=system("export_subject", tenant_id=tenant.id))
            if path is None:
                sys.stdout.buffer.writelines(pieces)
                return
            with path.open("xb") as file:
                file.writelines(pieces)
        except (DomainError, OSError) as error:
            raise CommandError(getattr(error, "message", str(error))) from None
        self.stdout.write(f"{path}: {path.stat().st_size:,} bytes. It holds words in the clear; keep it as such.")
