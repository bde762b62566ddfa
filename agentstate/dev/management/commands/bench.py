"""How fast: on durable throw-away servers, against a floor and against dbos, with what was promised beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agentstate.dev import bootstrap
from agentstate.dev.bench import options, world
from agentstate.dev.children import dying_with_parent
from agentstate.dev.servers import CannotStart


class Command(BaseCommand):
    help = "Measure what docs/BENCHMARKS.md promises. Exit code 0 even when a target is missed: it says so."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        options.add(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        try:
            with world.servers(bootstrap.state_folder()) as environment:
                sys.exit(_measure(options.arguments(given), environment))
        except CannotStart as refusal:
            sys.exit(f"The bench did not start. {refusal}")


def _measure(arguments: list[str], environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "agentstate.dev.bench", *arguments]
    child = subprocess.Popen(
        command,
        cwd=bootstrap.CHECKOUT,
        env={**os.environ, **environment},
        preexec_fn=dying_with_parent(signal.SIGKILL),
    )
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.kill()
        return 130
