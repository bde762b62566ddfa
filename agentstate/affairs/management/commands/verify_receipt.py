"""manage.py verify_receipt FILE..."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentstate.affairs import receipts
from agentstate.core.errors import Invalid


class Command(BaseCommand):
    help = "Check the signatures of receipts of erasures."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", metavar="FILE", nargs="+", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        bad = 0
        for path in options["files"]:
            try:
                found = receipts.check(path.read_bytes())
                rows = sum(found["rows_deleted"].values())
                self.stdout.write(
                    f"{path}: good. {found['subject']} of {found['tenant']}, {found['finished_at']}, "
                    f"{rows:,} rows, {found['keys_destroyed']:,} keys"
                )
            except (Invalid, OSError) as error:
                bad += 1
                self.stderr.write(f"{path}: {getattr(error, 'message', error)}")
        if bad:
            raise CommandError(f"{bad} of {len(options['files'])} do not verify.")
