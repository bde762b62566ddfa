"""Tick the deployment checklist: one line a box, with its fix; exit code 1 when a box is bad."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from agentstate.affairs import deployment

SIGNS = {"ok": "ok  ", "warn": "warn", "bad": "BAD "}


class Command(BaseCommand):
    help = "Look at this deployment: one line a box, with its fix."
    requires_system_checks: list[str] = []  # it must be able to say what is wrong

    def handle(self, *args: Any, **options: Any) -> None:
        found = deployment.boxes()
        for box in found:
            fix = f"  ->  {box.fix}" if box.level != "ok" else ""
            self.stdout.write(f"{SIGNS[box.level]}  {box.name:<18} {box.found}{fix}")
        if any(box.level == "bad" for box in found):
            sys.exit(1)
