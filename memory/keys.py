"""The key of each subject, prompt and progress document: all text of the tier is sealed with its owner's.

Erasing a subject destroys its key: whatever a backup or a forgotten copy still holds does not open any more.
"""

from __future__ import annotations

from agentstate.tenants.owned_keys import OwnedKeys

KEYS = OwnedKeys("memory_ownerkey", owner="owner_id", prefix="subject")

owner_key = KEYS.ensured
existing = KEYS.existing
several = KEYS.several
is_destroyed = KEYS.is_destroyed
destroy = KEYS.destroy
