"""What retention has removed, as far as an erasure still needs it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from agentstate.tenants.security import RowSecurity, TenantFK, TenantModel


class Removed(TenantModel):
    """A run that wrote or read something of a subject, or the key of one of its sessions, of which no row says so now.

    Written by retention in the transaction that removes those rows. An erasure of the subject reaches its runs by it,
    and deletes it.
    """

    subject = models.ForeignKey(
        "memory.Subject", on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    run_id = models.UUIDField(null=True)
    session_key = models.CharField(max_length=200, null=True)
    at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            RowSecurity(name="memory_removed_rls", grants="SELECT, INSERT, DELETE"),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="memory_removed_tenant_id"),
            models.CheckConstraint(
                condition=Q(run_id=None, session_key__isnull=False) | Q(run_id__isnull=False, session_key=None),
                name="memory_removed_one",
            ),
            models.UniqueConstraint(fields=["subject", "run_id"], name="memory_removed_run"),
            models.UniqueConstraint(fields=["subject", "session_key"], name="memory_removed_session"),
            TenantFK(name="memory_removed_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
        ]
        indexes = [models.Index(fields=["run_id"], name="memory_removed_of_run")]  # whose runs are shared
