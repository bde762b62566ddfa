"""manage.py rotate_keys [--tenant SLUG] [--rewrap-only]"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentstate.affairs import rotation
from agentstate.tenants.actors import system
from agentstate.tenants.models import Tenant


class Command(BaseCommand):
    help = (
        "Give each tenant a new wrapping key, wrap all keys of runs and subjects by it, "
        "and tenants' keys by the current master key. "
        "Killed in the middle: go on with --rewrap-only."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", metavar="SLUG", help="only this tenant")
        parser.add_argument("--rewrap-only", action="store_true", help="no new tenant key; finish an earlier rotation")

    def handle(self, *args: Any, **options: Any) -> None:
        tenants = Tenant.objects.order_by("slug")
        if options["tenant"]:
            tenants = tenants.filter(slug=options["tenant"])
            if not tenants:
                raise CommandError(f"There is no tenant {options['tenant']}.")
        left = sum(self._rotate(tenant, new_version=not options["rewrap_only"]) for tenant in tenants)
        if left:
            raise CommandError(f"{left} keys were busy and keep their old wrapping: run again with --rewrap-only.")

    def _rotate(self, tenant: Tenant, *, new_version: bool) -> int:
        done = rotation.rotate(tenant, actor=system("rotate_keys", tenant_id=tenant.id), new_version=new_version)
        self.stdout.write(
            f"{tenant.slug}: version {done.version}; {done.rewrapped} keys wrapped by it, {done.left} left; "
            f"{done.reasons} reasons of the audit trail; {done.by_master} tenant keys wrapped by the current master key"
        )
        return done.left
