"""The key of each subject, prompt and progress document: all text of the tier is sealed with its owner's.

Erasing a subject destroys its key: whatever a backup or a forgotten copy still holds does not open any more.
"""

from __future__ import annotations

from uuid import UUID

from agentstate.core.errors import Conflict, Corrupt
from agentstate.core.ids import public_id
from agentstate.tenants.owned_keys import OwnedKeys

KEYS = OwnedKeys("memory_ownerkey", owner="owner_id", prefix="subject")

owner_key = KEYS.ensured
existing = KEYS.existing
several = KEYS.several
is_destroyed = KEYS.is_destroyed
destroy = KEYS.destroy


def in_use(subject_id: UUID) -> bytes:
    """As existing(), for whoever is about to write or to recall. Raises: Conflict when the subject is being erased."""
    try:
        return existing(subject_id)
    except Corrupt as error:
        if error.data.get("failed") != "key destroyed":
            raise
        name = public_id("subject", subject_id)
        raise Conflict(
            f"{name} is being erased: nothing is written or recalled about it any more.", status="erasing", subject=name
        ) from None
