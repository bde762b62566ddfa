"""manage.py memory_retention [--tenant SLUG] [--dry-run]"""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.services import retention, upkeep
from memory.services.retention import Plan


class Command(BaseCommand):
    help = "Remove ended sessions and lines of the ledger that are kept no longer. Says what would go, then what went."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", metavar="SLUG", help="only this tenant")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    def handle(self, *args: Any, **options: Any) -> None:
        tenants = Tenant.objects.order_by("slug")
        if options["tenant"]:
            tenants = tenants.filter(slug=options["tenant"])
            if not tenants:
                raise CommandError(f"There is no tenant {options['tenant']}.")
        failed = 0
        for tenant in tenants:
            with tenant_scope(tenant.id):
                plan = retention.plan()
            for line in _said(plan):
                self.stdout.write(f"{tenant.slug}: {line}")
            if not options["dry_run"]:
                failed += self._remove(tenant)
        if failed:
            raise CommandError(f"{failed} rounds did not come to their end; the next one goes on where they stopped.")

    def _remove(self, tenant: Tenant) -> int:
        failed = 0
        for name, work, target in retention.rounds(tenant.id):
            done = upkeep.drive(tenant.id, name, work, target=target)
            if done is None:
                self.stdout.write(f"{tenant.slug}: {name}: another round is at it")
                continue
            what = "sessions" if name == retention.SESSIONS else "lines of the ledger"
            self.stdout.write(f"{tenant.slug}: removed {done.done:,} {what}")
            if done.failed:
                self.stderr.write(f"{tenant.slug}: {name}: {done.failed}")
            failed += not done.is_over
        return failed


def _said(plan: Plan) -> list[str]:
    sessions = f"{plan.sessions:,} sessions with {plan.messages:,} messages, {_since(plan.sessions_before)}"
    lines = f"{plan.lines:,} lines of the ledger, {_since(plan.ledger_before)}"
    return [f"would remove {sessions}{_kept(plan.kept_sessions)}", f"would remove {lines}{_kept(plan.kept_lines)}"]


def _since(before: datetime | None) -> str:
    return f"from before {before:%Y-%m-%d}" if before is not None else "all are kept"


def _kept(count: int) -> str:
    return f"; {count:,} stay, because a run is open" if count else ""
