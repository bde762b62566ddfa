"""What spans the tiers: deployment, drills, invariants."""

from __future__ import annotations

from django.apps import AppConfig


class AffairsConfig(AppConfig):
    name = "agentstate.affairs"
    label = "affairs"

    def ready(self) -> None:
        import agentstate.celery  # noqa: F401 (so that every process sends messages to our broker)
