"""Keyed writes that were done, with what they answered."""

from __future__ import annotations

from django.db import models

from agentstate.core.ids import new_id
from agentstate.tenants.security import RowSecurity, TenantModel, TenantOwned


class Receipt(TenantOwned):
    """One write that carried an idempotency key; the same key again gets the same answer. Dropped after RECEIPT_DAYS.

    Inserted by the transaction of its write before anything else, so that of two at once the second one waits.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    key = models.CharField(max_length=64)  # digest of who asks and their key
    body_hash = models.BinaryField(max_length=32)  # HMAC of what was asked
    reply = models.JSONField(null=True)  # ids, versions and counts; never text
    at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            RowSecurity(name="memory_receipt_rls", grants="SELECT, INSERT, DELETE, UPDATE (reply)"),
            models.UniqueConstraint(fields=["tenant_id", "key"], name="memory_receipt_key"),
        ]
        indexes = [models.Index(fields=["tenant_id", "at"], name="memory_receipt_old")]  # dropping old ones
