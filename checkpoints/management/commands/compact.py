"""manage.py compact [--tenant SLUG] [--plan] [--retention-days N]"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentstate.tenants.models import Tenant
from checkpoints import compaction
from checkpoints.compaction import Outcome


class Command(BaseCommand):
    help = "Drop frames that nobody comes back to. Says what it would free, then what it freed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", metavar="SLUG", help="only this tenant")
        parser.add_argument("--plan", action="store_true", help="only say what would be freed")
        parser.add_argument("--retention-days", type=int, help="instead of the tenant's setting")

    def handle(self, *args: Any, **options: Any) -> None:
        tenants = Tenant.objects.order_by("slug")
        if options["tenant"]:
            tenants = tenants.filter(slug=options["tenant"])
            if not tenants:
                raise CommandError(f"There is no tenant {options['tenant']}.")
        problems = 0
        for tenant in tenants:
            how = {"retention_days": options["retention_days"]}
            self.stdout.write(f"{tenant.slug}: would free {_said(compaction.plan(tenant.id, **how))}")
            if not options["plan"]:
                outcome = compaction.run(tenant.id, **how)
                self.stdout.write(f"{tenant.slug}: freed {_said(outcome)}")
                problems += self._complain(outcome)
        if problems:
            raise CommandError(f"{problems} frames do not verify; what they stand in was left as it is.")

    def _complain(self, outcome: Outcome) -> int:
        for problem in outcome.problems:
            self.stderr.write(problem)
        return len(outcome.problems)


def _said(outcome: Outcome) -> str:
    said = f"{outcome.frames} frames and {outcome.blobs} blobs of {outcome.runs} runs, {outcome.freed_bytes:,} bytes"
    said += f"; {outcome.rekeyed} frames re-keyed"
    return said + (f"; {outcome.busy} runs busy, left for the next time" if outcome.busy else "")
