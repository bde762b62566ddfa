"""manage.py verify_audit: recompute every chain and seal; exit code 1 when something does not verify."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentstate.audit import sealing, verification
from agentstate.audit.models import AuditEntry, AuditSeal
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope


class Command(BaseCommand):
    help = "Recompute the audit chains and seals of one tenant or of all, and name what was changed or removed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", default="", help="slug; all tenants unless given")
        parser.add_argument("--seal", action="store_true", help="seal what is over first")
        parser.add_argument(
            "--anchor",
            action="append",
            default=[],
            metavar="SEQ:ROOT",
            help="a root noted earlier (this command and the log print them); with --tenant",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        tenants = Tenant.objects.order_by("slug")
        if options["tenant"]:
            tenants = tenants.filter(slug=options["tenant"])
        if not tenants:
            raise CommandError(f"There is no tenant {options['tenant'] or 'yet'}.")
        anchors = _anchors(options["anchor"], alone=bool(options["tenant"]))
        found = sum(self._verify(tenant, anchors, first_seal=options["seal"]) for tenant in tenants)
        if found:
            raise CommandError(f"{found} places do not verify: keep the database as it is, and compare with a backup.")

    def _verify(self, tenant: Tenant, anchors: dict[int, str], *, first_seal: bool) -> int:
        if first_seal:
            sealing.seal(tenant.id)
        findings = verification.verify(tenant.id, anchors=anchors)
        with tenant_scope(tenant.id):
            entries = AuditEntry.objects.count()
            last = AuditSeal.objects.order_by("-seq").first()
        sealed = f"newest seal {last.seq}:{bytes(last.root).hex()}" if last else "no seal yet"
        verdict = f"{len(findings)} places do not verify" if findings else "all verify"
        self.stdout.write(f"{tenant.slug}: {entries} entries, {verdict}; {sealed}")
        for finding in findings:
            self.stdout.write(f"  {finding}")
        return len(findings)


def _anchors(given: list[str], *, alone: bool) -> dict[int, str]:
    if given and not alone:
        raise CommandError("An anchor is of one tenant: name it by --tenant.")
    pairs = [text.partition(":") for text in given]
    if not all(seq.isdigit() and len(root) == 64 for seq, _, root in pairs):
        raise CommandError("An anchor is SEQ:ROOT, as this command prints it.")
    return {int(seq): root for seq, _, root in pairs}
