"""Giving a tenant a new wrapping key: every key of its runs and subjects is wrapped by it. Resumable at any place."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from agentstate.audit import notes, trail
from agentstate.tenants import keyring
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys as run_keys
from memory import keys as memory_keys

OWNED = (run_keys.KEYS, memory_keys.KEYS)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did: counts of keys."""

    version: int  # of the tenant's newest key
    by_master: int  # tenant's keys that were wrapped by the current master key
    rewrapped: int  # keys of runs and subjects that were wrapped by the tenant's newest key
    left: int  # those that somebody held; another rotation takes them
    reasons: int  # notes of the audit trail that were wrapped anew


def rotate(tenant: Tenant, *, actor: Actor, new_version: bool = True) -> Rotation:
    """Give the tenant a new wrapping key (or finish an earlier rotation) and wrap all keys by it.

    Not one transaction: every batch of keys is its own, the audit entry comes last.
    """
    if new_version:
        keyring.rotate(tenant.id)
    by_master = keyring.rewrap_by_master(tenant.id)
    rewrapped = sum(owned.rewrap(tenant.id) for owned in OWNED)
    left = sum(owned.left_behind(tenant.id) for owned in OWNED)
    with tenant_scope(tenant.id):
        reasons = notes.rewrap()
        done = Rotation(keyring.newest_version(tenant.id), by_master, rewrapped, left, reasons)
        trail.record(tenant, action="keys_rotated", actor=actor, detail=asdict(done))
    return done
