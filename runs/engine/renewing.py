"""The heartbeat of a lease, over Django's connection; hosted workers send theirs over their own (presence)."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from agentstate.core.errors import Fenced
from agentstate.core.ids import public_id
from agentstate.db import sql
from agentstate.sdk.store import Control, Renewal


def renew(tenant_id: UUID, run_id: UUID, *, fence: int, lease_s: float) -> Renewal:
    """Raises: Fenced."""
    found = sql.row(
        "SELECT runs_renew(%s::uuid, %s::uuid, %s::bigint, %s::float8)", [tenant_id, run_id, fence, lease_s]
    )
    if found is None or found[0] is None:
        raise Fenced(f"The lease of {public_id('run', run_id)} under fence {fence} has ended.")
    return Renewal(lease_s=lease_s, control=cast(Control | None, found[0] or None))
