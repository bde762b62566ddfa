"""What the migration of this package makes besides tables: the function that crosses tenants."""

from __future__ import annotations

from django.db.migrations.operations.base import Operation

from agentstate.tenants.functions import crossing

# Erasures that somebody has to go on with. Ids only; the one that rested longest comes first.
_OPEN = """
SELECT e.tenant_id, e.id FROM affairs_erasure e WHERE e.status IN ('planned', 'stopping', 'erasing')
ORDER BY e.moved_at LIMIT p_limit"""


def operations() -> list[Operation]:
    return [
        crossing(
            "affairs_erasures_open(integer)",
            arguments="p_limit integer",
            returns="TABLE (tenant_id uuid, id uuid)",
            body=_OPEN,
        )
    ]
