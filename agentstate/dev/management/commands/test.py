"""Every check and every test on throw-away servers, with one exit code. Wins over Django's own command."""

from __future__ import annotations

import sys

from django.core.management.base import BaseCommand

from agentstate.dev import checking


class Command(BaseCommand):
    help = "All checks and tests. Arguments go to pytest and leave the checks out: quick while working."
    requires_system_checks: list[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Not argparse: `-k name -n2 -x` are pytest's."""
        sys.exit(checking.run(argv[2:]))
