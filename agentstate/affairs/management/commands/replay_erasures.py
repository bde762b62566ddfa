"""manage.py replay_erasures FILE | --save FILE"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentstate.affairs import replaying
from agentstate.core.errors import Invalid


class Command(BaseCommand):
    help = "After a restore: erase again what was erased since the backup. --save writes the receipts for that."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", type=Path, help="receipts, one document a line")
        parser.add_argument("--save", action="store_true", help="write all receipts of this database into FILE")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if options["save"]:
            lines = list(replaying.saved())
            path.write_bytes(b"".join(lines))
            self.stdout.write(f"{len(lines)} receipts in {path}.")
            return
        left = 0
        try:
            with path.open("rb") as lines_of:
                for each in replaying.replay(lines_of):
                    left += each.outcome not in ("erased", "nothing to do")
                    self.stdout.write(f"{each.subject}: {each.outcome}")
        except (Invalid, OSError) as error:
            raise CommandError(f"{path}: {getattr(error, 'message', error)}") from None
        if left:
            raise CommandError(f"{left} go on by themselves; look at Health, or run this again.")
