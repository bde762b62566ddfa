"""What retention has removed, told where somebody looks for it: a line whose words are gone, a step without lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from agentstate.audit.models import AuditEntry
from memory import keys
from memory.models import Injection, Upkeep

LEDGER = "retain_ledger"  # the upkeep that removes lines
BEFORE = "before "  # how its target begins: a day follows
BY_RETENTION = ("message", "summary")  # of the sources of a line: they go with their session


def why_gone(rows: Sequence[Injection]) -> dict[UUID, str]:
    """Why the words of each of these lines cannot be shown, by the line's id. Two reads; none for no lines."""
    if not rows:
        return {}
    readable = keys.several({row.subject_id for row in rows if row.subject_id})
    removed = _when_removed({row.session_id for row in rows if row.session_id and row.source in BY_RETENTION})
    return {
        row.id: _by_retention(row, removed)
        if row.source in BY_RETENTION and row.subject_id in readable
        else f"This {row.source} has been erased; its words are gone."
        for row in rows
    }


def lines_before() -> datetime | None:
    """Lines of the ledger from before this moment may have been removed by retention. One read."""
    row = Upkeep.objects.filter(name=LEDGER, target__startswith=BEFORE).first()
    return datetime.strptime(row.target.removeprefix(BEFORE), "%Y-%m-%d").replace(tzinfo=UTC) if row else None


def session_told(session_id: UUID) -> str:
    """What to say to whoever asks for a session that is not there. One read."""
    at = _when_removed({session_id}).get(session_id)
    return f"This session was removed by retention on {at:%Y-%m-%d}." if at is not None else "There is no such session."


def _by_retention(row: Injection, removed: dict[UUID, datetime]) -> str:
    at = removed.get(row.session_id) if row.session_id else None
    when = f" on {at:%Y-%m-%d}" if at is not None else ""
    return f"This {row.source} was removed by retention{when}, with its session."


def _when_removed(session_ids: set[UUID]) -> dict[UUID, datetime]:
    """Index: audit_entry_object."""
    found = AuditEntry.objects.filter(object_type="session", object_id__in=session_ids, action="removed")
    return dict(found.values_list("object_id", "at")) if session_ids else {}
