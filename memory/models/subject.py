"""Whom memory is about: subjects, their other names, and the keys that seal what is known of them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from agentstate.tenants.models import Audited
from agentstate.tenants.security import RowSecurity, SweeperReads, TenantFK, TenantModel, TenantOwned
from memory.states import SubjectStatus


class OwnerKey(TenantOwned):
    """The key of one subject, prompt or progress document. Destroyed (emptied, kept) when its owner is erased."""

    owner_id = models.UUIDField(primary_key=True, editable=False)
    wrapped = models.BinaryField()
    key_version = models.IntegerField()  # of the tenant's key that wraps this one
    created = models.DateTimeField(db_default=Now())
    destroyed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            RowSecurity(
                name="memory_ownerkey_rls", grants="SELECT, INSERT, UPDATE (wrapped, key_version, destroyed_at)"
            ),
            # Rotation goes through a tenant's keys in this order.
            models.UniqueConstraint(fields=["tenant_id", "owner_id"], name="memory_ownerkey_tenant_owner"),
            models.CheckConstraint(name="memory_ownerkey_destroyed", condition=Q(destroyed_at=None) | Q(wrapped=b"")),
        ]


class Subject(Audited, TenantModel):
    """A person or thing that is remembered. Made by its first mention; deleted by an erasure and by nothing else.

    Its row is the lock of the cap: whoever changes item_bytes or pinned_bytes holds it.
    """

    external_id = models.CharField(max_length=200, null=True)  # the caller's own id; plain, as a run's is
    name = models.BinaryField(default=bytes)  # sealed display name; empty: show the external id
    status = models.CharField(max_length=8, choices=SubjectStatus.choices, default=SubjectStatus.ACTIVE)
    cap_bytes = models.IntegerField(null=True)  # null: the tenant's setting
    item_bytes = models.IntegerField(default=0)  # of active items, pinned ones included
    pinned_bytes = models.IntegerField(default=0)
    item_count = models.IntegerField(default=0)  # active
    session_count = models.IntegerField(default=0)
    message_count = models.IntegerField(default=0)
    created_at = models.DateTimeField()
    last_active_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "external_id"], name="memory_subject_external_id"),
            models.CheckConstraint(condition=Q(status__in=SubjectStatus.values), name="memory_subject_status"),
            models.CheckConstraint(
                condition=Q(item_bytes__gte=0, pinned_bytes__gte=0, item_count__gte=0), name="memory_subject_counts"
            ),
            SweeperReads(name="memory_subject_sweeper", columns=["id", "tenant_id", "status"]),
        ]
        indexes = [
            models.Index(fields=["tenant_id", "-last_active_at", "-id"], name="memory_subject_recent"),  # the list
        ]


class Alias(TenantModel):
    """Another name of a subject: an address, a number, a handle. Found by its digest, shown by opening it."""

    subject = models.ForeignKey("memory.Subject", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    kind = models.CharField(max_length=40)  # email, phone, handle, ...
    digest = models.BinaryField(max_length=32)  # HMAC of kind and the normalised value
    value = models.BinaryField()  # sealed
    created_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "digest"], name="memory_alias_digest"),  # resolve
            TenantFK(name="memory_alias_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
        ]
        indexes = [models.Index(fields=["subject"], name="memory_alias_subject_list")]  # the subject's page
