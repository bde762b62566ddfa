"""The runs tier: the story of every run, from admission to its end."""

from __future__ import annotations

from django.apps import AppConfig


class RunsConfig(AppConfig):
    name = "runs"
    label = "runs"

    def ready(self) -> None:
        from checkpoints import compaction
        from runs.engine import keeping

        compaction.provide(keeping.facts)
