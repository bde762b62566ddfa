"""The runs tier: the story of every run, from admission to its end."""

from __future__ import annotations

from django.apps import AppConfig


class RunsConfig(AppConfig):
    name = "runs"
    label = "runs"

    def ready(self) -> None:
        from checkpoints import compaction
        from memory import standing
        from runs.engine import keeping
        from runs.selectors import brief

        compaction.provide(keeping.facts)
        standing.provide(brief.standings, brief.open_sessions)
