"""Start Postgres, Valkey, web, worker, beat and the sandbox; print one URL."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agentstate.dev import bootstrap, plan, up


class Command(BaseCommand):
    help = "Start everything and stay until Ctrl-C (a second one stops at once)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        default = int(os.environ.get("AGENTSTATE_PORT") or plan.PORT)
        parser.add_argument("--port", type=int, default=default, help=f"port of the dashboard (default {default})")

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(up.run(bootstrap.state_folder(), options["port"]))
