"""Stop the `up` of this checkout."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from agentstate.dev import bootstrap, up


class Command(BaseCommand):
    help = "Stop what `up` started here, from another terminal."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(up.stop(bootstrap.state_folder()))
