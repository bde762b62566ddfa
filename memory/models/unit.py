"""Units of recall: what of a message or an item can be searched. Everything here can be made again from the text."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from pgvector.django import VectorField

from agentstate.tenants.security import RowSecurity, SweeperReads, TenantFK, TenantOwned
from memory.constraints import Inline

UNIT_KINDS = ("message", "item")


class Unit(TenantOwned):
    """A message or an item as recall sees it; its id is theirs. Written with them in one transaction, vectors later.

    A row without a vector is found by its words. Deleted with its message or item, never kept longer.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    kind = models.CharField(max_length=7)
    subject = models.ForeignKey("memory.Subject", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    session_id = models.UUIDField(null=True)
    namespace = models.CharField(max_length=200, default="", blank=True)  # of an item
    seq = models.IntegerField(default=0)  # place in the session; neighbours share scores
    author_no = models.SmallIntegerField(default=0)
    sent_at = models.DateTimeField()
    in_recall = models.BooleanField(default=True)  # false: undone, over the cap, superseded, forgotten, expired
    expires_at = models.DateTimeField(null=True)
    valid_from = models.DateTimeField(null=True)
    valid_to = models.DateTimeField(null=True)
    # Digests of lexemes, or of HMACed ones, nine bytes each: words.PACKED; null when the tenant's setting says so.
    words = models.BinaryField(null=True)
    model = models.CharField(max_length=120, default="", blank=True)  # that made the vector; empty: none yet
    vector = VectorField(null=True)

    class Meta:
        constraints = [
            RowSecurity(name="memory_unit_rls"),
            Inline(name="memory_unit_inline"),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="memory_unit_tenant_id"),
            models.CheckConstraint(condition=Q(kind__in=UNIT_KINDS), name="memory_unit_kind"),
            models.CheckConstraint(
                condition=Q(vector__isnull=True, model="") | (Q(vector__isnull=False) & ~Q(model="")),
                name="memory_unit_model",
            ),
            TenantFK(name="memory_unit_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
            SweeperReads(
                name="memory_unit_sweeper",
                columns=["id", "tenant_id", "subject_id", "in_recall", "expires_at", "model"],
            ),
        ]
        indexes = [
            # Recall reads all units of one subject, exactly. No approximate index here: it drops rows silently.
            models.Index(fields=["tenant_id", "subject"], name="memory_unit_of_subject"),
            models.Index(fields=["tenant_id", "model", "id"], name="memory_unit_by_model"),  # what lacks vectors
        ]


class UnitTokens(TenantOwned):
    """Token ids and sign bits of one unit. They give the words back, so they are sealed and go with their unit."""

    unit = models.OneToOneField(
        "memory.Unit", primary_key=True, on_delete=models.CASCADE, db_constraint=False, related_name="+"
    )
    subject_id = models.UUIDField()
    model = models.CharField(max_length=120)
    count = models.SmallIntegerField()
    body = models.BinaryField()  # sealed: uint16 ids, then the bits, 48 bytes a token for 384 dimensions

    class Meta:
        constraints = [
            RowSecurity(name="memory_unittokens_rls"),
            Inline(name="memory_unittokens_inline"),
            TenantFK(name="memory_unittokens_unit", field="unit", to="memory_unit", on_delete="CASCADE"),
        ]
        indexes = [models.Index(fields=["subject_id"], name="memory_unittokens_subject")]  # erasure


class UnitStaged(TenantOwned):
    """The vector and tokens of one unit by the model that its tenant moves to. Gone when they have taken effect.

    Kept apart until every unit has one and the new model has passed its check: a move that fails changes nothing.
    """

    unit = models.OneToOneField(
        "memory.Unit", primary_key=True, on_delete=models.CASCADE, db_constraint=False, related_name="+"
    )
    subject_id = models.UUIDField()
    model = models.CharField(max_length=120)
    vector = VectorField()
    count = models.SmallIntegerField(default=0)  # tokens; 0: the model gives none
    body = models.BinaryField(default=bytes)  # sealed as in UnitTokens

    class Meta:
        constraints = [
            RowSecurity(name="memory_unitstaged_rls"),
            TenantFK(name="memory_unitstaged_unit", field="unit", to="memory_unit", on_delete="CASCADE"),
        ]
        indexes = [models.Index(fields=["subject_id"], name="memory_unitstaged_subject")]  # erasure
