"""Draw docs/STATES.md anew."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from agentstate.dev import diagrams


class Command(BaseCommand):
    help = "Write docs/STATES.md from the transitions in runs/states.py."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        diagrams.PATH.write_text(diagrams.document(), encoding="utf-8")
        self.stdout.write(f"wrote {diagrams.PATH.relative_to(diagrams.CHECKOUT)}")
