"""The key of each run: made at its admission, wrapped by its tenant's key, re-wrapped, destroyed to erase."""

from __future__ import annotations

from agentstate.tenants.owned_keys import OwnedKeys

KEYS = OwnedKeys("checkpoints_runkey", owner="run_id", prefix="run")

run_key = KEYS.ensured
new = KEYS.new
existing = KEYS.existing
asked = KEYS.asked
opened = KEYS.opened
several = KEYS.several
is_destroyed = KEYS.is_destroyed
destroy = KEYS.destroy
