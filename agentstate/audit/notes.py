"""Reasons people gave: sealed, each under a key of its own, so that one can be erased and the chain still verifies."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from uuid import UUID

from agentstate.audit.models import AuditEntry, AuditNote
from agentstate.core.errors import NotFound
from agentstate.core.ids import new_id
from agentstate.crypto import keys, sealing
from agentstate.db import sql
from agentstate.tenants import keyring
from agentstate.tenants.scope import current_tenant

REASON_CHARS_MAX = 4000
TABLE = "audit_note"


def write(reason: str, *, tenant_id: UUID) -> UUID:
    """Seal a reason and store it; its id goes into the entry of the same transaction. One round trip."""
    note_id, key = new_id(), keys.new_key()
    aad = sealing.aad(tenant_id, TABLE, note_id)
    body = sealing.seal(key, reason[:REASON_CHARS_MAX].encode(), aad=aad)
    wrapped = keyring.wrap_key(tenant_id, key, aad=aad)
    AuditNote.objects.bulk_create([AuditNote(id=note_id, body=body, wrapped=wrapped)])
    return note_id


def read(entries: Iterable[AuditEntry]) -> dict[UUID, str]:
    """The reasons of these entries by note id; an erased one is missing. One query. Raises: Corrupt."""
    wanted = [entry.note_id for entry in entries if entry.note_id]
    found = AuditNote.objects.filter(id__in=wanted, wrapped__isnull=False)
    return {note.id: _unseal(note) for note in found}


def erase(note_id: UUID) -> None:
    """Destroy the key of a reason. Asserts nothing else of the trail changes: the ciphertext stays. Idempotent."""
    if not AuditNote.objects.filter(id=note_id).update(wrapped=None):
        raise NotFound("There is no such reason.")


def erase_about(object_type: str, object_ids: Collection[UUID]) -> int:
    """Destroy the keys of all reasons given for acts on these objects; how many. Idempotent."""
    # Index: audit_entry_object.
    return sql.execute(
        "UPDATE audit_note SET wrapped = NULL WHERE wrapped IS NOT NULL AND id IN (SELECT note_id FROM audit_entry"
        " WHERE tenant_id = %s AND object_type = %s AND object_id = ANY(%s) AND note_id IS NOT NULL)",
        [current_tenant(), object_type, list(object_ids)],
    )


def rewrap() -> int:
    """Wrap the keys of this tenant's reasons by the newest version of its key; how many."""
    count = 0
    for note in AuditNote.objects.filter(wrapped__isnull=False).iterator(chunk_size=500):
        aad = sealing.aad(note.tenant_id, TABLE, note.id)
        key = keyring.unwrap_key(note.tenant_id, bytes(note.wrapped or b""), aad=aad)
        count += sql.execute(
            "UPDATE audit_note SET wrapped = %s WHERE id = %s AND wrapped IS NOT NULL",
            [keyring.wrap_key(note.tenant_id, key, aad=aad), note.id],
        )
    return count


def _unseal(note: AuditNote) -> str:
    aad = sealing.aad(note.tenant_id, TABLE, note.id)
    key = keyring.unwrap_key(note.tenant_id, bytes(note.wrapped or b""), aad=aad)
    return sealing.unseal(key, bytes(note.body), aad=aad).decode()
