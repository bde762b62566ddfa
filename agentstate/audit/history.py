"""Reading the trail: the acts on one object, or the newest of the tenant. Reasons: notes.read()."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from agentstate.audit.models import AuditEntry


def of(object_type: str, object_id: UUID) -> QuerySet[AuditEntry]:
    """Acts on one object in their order. Index: audit_entry_object."""
    return AuditEntry.objects.filter(object_type=object_type, object_id=object_id).order_by("object_seq")


def newest() -> QuerySet[AuditEntry]:
    """The tenant's acts, newest first; page it by `-id`. Index: audit_entry_tenant_id."""
    return AuditEntry.objects.order_by("-id")
