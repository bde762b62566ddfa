"""manage.py erase_subject TENANT SUBJECT --reason TEXT [--plan]"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError

from agentstate.affairs import erasing
from agentstate.affairs.commands import named_subject, named_tenant
from agentstate.affairs.states import ErasureStatus
from agentstate.core.errors import DomainError
from agentstate.core.ids import public_id
from agentstate.tenants.actors import system
from agentstate.tenants.scope import tenant_scope


class Command(BaseCommand):
    help = "Erase a subject for good and print the signed receipt. SUBJECT is its external id or its public id."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", metavar="TENANT", help="slug")
        parser.add_argument("subject", metavar="SUBJECT")
        parser.add_argument("--reason", default="", help="why; kept sealed in the audit")
        parser.add_argument("--plan", action="store_true", help="only say what it would reach")
        parser.add_argument("--wait-s", type=float, default=60.0, help="how long to wait for runs that are stopped")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = named_tenant(options["tenant"])
        try:
            subject_id = named_subject(tenant, options["subject"])
            if options["plan"]:
                with tenant_scope(tenant.id):
                    self._say(erasing.plan(subject_id))
                return
            erasure = erasing.erase(
                subject_id,
                actor=system("erase_subject", tenant_id=tenant.id),
                reason=options["reason"],
                confirm=public_id("subject", subject_id),
                wait_s=options["wait_s"],
            )
        except DomainError as error:
            raise CommandError(error.message) from None
        if erasure.status != ErasureStatus.VERIFIED:
            raise CommandError(f"It is {erasure.status} and goes on by itself. {erasure.problem}".strip())
        self.stdout.write(orjson.dumps(erasing.document(erasure), option=orjson.OPT_INDENT_2).decode())

    def _say(self, plan: erasing.ErasePlan) -> None:
        for table, count in plan.counts.items():
            self.stdout.write(f"{count:>9,}  {table}")
        for run in plan.runs:
            notes = [
                "would be cancelled" if run.is_live else "",
                "holds another subject's words" * (run.run_id in plan.shared_ids),
            ]
            self.stdout.write(f"{run.public_id}  {run.agent}  {run.status}  {', '.join(filter(None, notes))}".rstrip())
        for what, why in plan.stays.items():
            self.stdout.write(f"stays: {what}: {why}")
