"""Erasures of subjects. Written by affairs.erasing only; what was erased is not in here, only that and how it was."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from agentstate.affairs.states import ErasureStatus
from agentstate.tenants.models import Audited
from agentstate.tenants.security import RowSecurity, SweeperReads, TenantModel


class Erasure(Audited, TenantModel):
    """One erasure of one subject, with its receipt. Kept for ever: it proves, and it is replayed after a restore.

    Whoever works on it holds its row; `cursor` says where a killed one goes on. The reason lies sealed in its audit.
    """

    subject_id = models.UUIDField()  # of a row that is gone; an id, no name
    external_id_hmac = models.CharField(max_length=64, default="", blank=True)
    status = models.CharField(max_length=8, choices=ErasureStatus.choices, default=ErasureStatus.PLANNED)
    requested_by_kind = models.CharField(max_length=10)
    requested_by_id = models.CharField(max_length=64)
    requested_by_name = models.CharField(max_length=200)
    cursor = models.CharField(max_length=40, default="", blank=True)  # runs:<number>, rows, sessions, subject
    run_ids = ArrayField(models.UUIDField(), default=list)  # that held its words
    stopped_ids = ArrayField(models.UUIDField(), default=list)  # of those, ended for it
    waits = models.JSONField(default=dict)  # public id of a run that was asked to end -> until when it is waited for
    shared_ids = ArrayField(models.UUIDField(), default=list)  # of those, given words of others, too
    keys_destroyed = models.IntegerField(default=0)  # of the subject, its documents and its runs
    counts = models.JSONField(default=dict)  # rows deleted, by table
    problem = models.CharField(max_length=400, default="", blank=True)  # tables and counts, never a text
    receipt = models.JSONField(null=True)
    signature = models.BinaryField(null=True)  # Ed25519 over the receipt's canonical JSON
    started_at = models.DateTimeField()
    moved_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta(TenantModel.Meta):
        constraints = [
            RowSecurity(name="affairs_erasure_rls", grants="SELECT, INSERT, UPDATE"),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="affairs_erasure_tenant_id"),
            # A subject's id is never given again, so it is erased once. Also finds the receipt of a subject.
            models.UniqueConstraint(fields=["tenant_id", "subject_id"], name="affairs_erasure_subject"),
            models.CheckConstraint(condition=Q(status__in=ErasureStatus.values), name="affairs_erasure_status"),
            models.CheckConstraint(
                condition=Q(receipt__isnull=False, signature__isnull=False, status="verified")
                | Q(receipt__isnull=True, signature__isnull=True) & ~Q(status="verified"),
                name="affairs_erasure_receipt",
            ),
            SweeperReads(name="affairs_erasure_sweeper", columns=["id", "tenant_id", "status", "moved_at"]),
        ]
        indexes = [
            # affairs_erasures_open; few rows.
            models.Index(
                fields=["moved_at"],
                condition=Q(status__in=["planned", "stopping", "erasing"]),
                name="affairs_erasure_open",
            ),
            models.Index(fields=["tenant_id", "-id"], name="affairs_erasure_recent"),  # the list
        ]

    def __str__(self) -> str:
        return f"erasure {self.id}: {self.status}"
