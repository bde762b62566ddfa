"""Proof that a worker process is gone, which is more than a lost connection or a late heartbeat."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from runs.models import Worker


def dead_at(worker_id: UUID | None) -> datetime | None:
    """When the worker was proven dead; None while nobody can prove it."""
    if worker_id is None:
        return None
    return Worker.objects.filter(id=worker_id).exclude(dead_proof="").values_list("dead_at", flat=True).first()
