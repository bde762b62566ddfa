"""manage.py memory_policy TENANT [--agent NAME] [--set FIELD=JSON] [--clear FIELD] [--versions] [--restore N]"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError

from agentstate.core.errors import DomainError
from agentstate.tenants.actors import Actor, system
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.selectors import policies as reads
from memory.selectors.policies import TENANT, Held, Whose
from memory.services import policies


class Command(BaseCommand):
    help = "Show or change what is set for the memory of a tenant, of every agent (--agent '*') or of one. Says JSON."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", metavar="TENANT", help="slug")
        parser.add_argument("--agent", metavar="NAME", help="of this agent; '*': of every agent; without: the tenant's")
        parser.add_argument("--set", metavar="FIELD=JSON", action="append", default=[], help="recall_k=5, idle_s=null")
        parser.add_argument("--clear", metavar="FIELD", action="append", default=[], help="inherit it again")
        parser.add_argument("--restore", metavar="VERSION", type=int, help="the fields of an earlier version")
        parser.add_argument("--versions", action="store_true", help="who changed what, when and why")
        parser.add_argument("--expected-version", type=int, help="refuse when another one stands")
        parser.add_argument("--reason", default="", help="why; kept sealed in the audit, required for a change")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = Tenant.objects.filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']}.")
        whose = Whose(options["agent"]) if options["agent"] is not None else TENANT
        actor = system("memory_policy", tenant_id=tenant.id)
        try:
            with tenant_scope(tenant.id):
                _change(whose, actor, options)
                found = _versions(whose) if options["versions"] else _told(whose)
        except DomainError as error:
            raise CommandError(error.message) from None
        self.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


def _change(whose: Whose, actor: Actor, options: dict[str, Any]) -> None:
    """Raises: CommandError; as the service."""
    fields = dict(_parsed(each) for each in options["set"])
    given = {"expected_version": options["expected_version"], "actor": actor, "reason": options["reason"]}
    if not (fields or options["clear"] or options["restore"] is not None):
        return
    if not options["reason"].strip():
        raise CommandError("Say why with --reason: the next person will ask.")
    if options["restore"] is None:
        policies.change(whose, fields, clear=options["clear"], **given)
    elif fields or options["clear"]:
        raise CommandError("Restore a version, or set and clear fields; not both at once.")
    else:
        policies.restore(whose, version=options["restore"], **given)


def _parsed(text: str) -> tuple[str, Any]:
    """A value that is no JSON is a word: --set strategy=window."""
    field, sign, value = text.partition("=")
    if not sign or not field:
        raise CommandError(f"Write --set FIELD=VALUE, not {text}.")
    try:
        return field, orjson.loads(value)
    except orjson.JSONDecodeError:
        return field, value


def _told(whose: Whose) -> dict[str, Any]:
    held, over = reads.held(whose), reads.held(whose.over) if whose.over is not None else None
    return {
        "of": whose.key,
        "version": held.version,
        "set": dict(held.fields),
        "in_force": {each.name: {"value": each.value, "from": each.origin} for each in reads.in_force(held, over)},
        "unusable": [{"field": each.field, "why": each.why} for each in held.trouble],
        **_others(held),
    }


def _others(held: Held) -> dict[str, Any]:
    """Beside the tenant's policy, which agents have settings."""
    return {"agents": reads.agents()} if held.whose == TENANT else {}


def _versions(whose: Whose) -> list[dict[str, Any]]:
    return [
        {
            "version": each.version,
            "at": each.at,
            "by": each.by,
            "reason": each.reason,
            "was": {one.field: one.was for one in each.differences if one.was_set},
            "now": {one.field: one.now for one in each.differences if one.is_set},
        }
        for each in reads.history(whose)
    ]
