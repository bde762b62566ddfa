"""Statuses of what spans tiers, and the transitions that are allowed."""

from __future__ import annotations

from django.db import models


class ErasureStatus(models.TextChoices):
    PLANNED = "planned"  # asked for; keys destroyed in the same transaction, so only for a moment
    STOPPING = "stopping"  # waits for runs that hold words of the subject to end
    ERASING = "erasing"  # run keys and rows go, in batches
    VERIFIED = "verified"  # nothing is left, and the receipt says so
    FAILED = "failed"  # something was found where nothing may be; an admin may let it go on


ERASURE_OPEN = frozenset({ErasureStatus.PLANNED, ErasureStatus.STOPPING, ErasureStatus.ERASING})
ERASURE_TRANSITIONS: dict[str, frozenset[str]] = {
    ErasureStatus.PLANNED: frozenset({ErasureStatus.STOPPING}),
    ErasureStatus.STOPPING: frozenset({ErasureStatus.ERASING}),
    ErasureStatus.ERASING: frozenset({ErasureStatus.STOPPING, ErasureStatus.VERIFIED, ErasureStatus.FAILED}),
    ErasureStatus.FAILED: frozenset({ErasureStatus.ERASING}),
    ErasureStatus.VERIFIED: frozenset(),
}
