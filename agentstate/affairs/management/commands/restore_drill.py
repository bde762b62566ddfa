"""manage.py restore_drill [--tenant SLUG] [--run run_...] [--runs N]"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentstate.affairs import restoring
from agentstate.core.ids import parse_id
from agentstate.tenants.models import Tenant
from runs.engine.rehearsal import Rehearsal


class Command(BaseCommand):
    help = "Restore runs from what is stored: verify, hydrate, replay to the next step. Calls and writes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", metavar="SLUG", help="only this tenant")
        parser.add_argument("--run", metavar="run_…", help="only this run")
        parser.add_argument("--runs", type=int, default=20, help="how many of each tenant (20)")

    def handle(self, *args: Any, **options: Any) -> None:
        tenants = Tenant.objects.order_by("slug")
        if options["tenant"]:
            tenants = tenants.filter(slug=options["tenant"])
        if not tenants:
            raise CommandError(f"There is no tenant {options['tenant']}.")
        run_id = parse_id("run", options["run"]) if options["run"] else None
        problems = 0
        for tenant in tenants:
            for found in restoring.drill(tenant.id, runs_max=options["runs"], run_id=run_id):
                self.stdout.write(f"{tenant.slug}  {_said(found)}")
                problems += len(found.problems)
        if problems:
            raise CommandError(f"{problems} problems: what is stored cannot be restored as it stands.")
        self.stdout.write("Everything that was looked at can be restored.")


def _said(found: Rehearsal) -> str:
    going_on = f"ends {found.ended}" if found.ended else f"next: {', '.join(found.next_steps) or 'nothing new'}"
    hydrated = "hydrated" if found.hydrated else "its agent is not hosted here"
    said = (
        f"{found.run_id} {found.status}: {found.frames} frames verify, {found.replayed} steps, {hydrated}, {going_on}"
    )
    return said + "".join(f"\n    PROBLEM {problem}" for problem in found.problems)
