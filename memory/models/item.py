"""Items: single remembered statements, every former content of each, and proposals to change them."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from agentstate.tenants.models import Audited
from agentstate.tenants.security import NeverUpdated, RowSecurity, SweeperReads, TenantFK, TenantModel, TenantOwned
from memory.models.session import ORIGINS
from memory.states import ItemStatus, ProposalStatus

KINDS = ("semantic", "episodic", "procedural")
CONTENT_CHANGES = ("created", "edited", "merged", "consolidated", "restored", "upgraded", "imported")
STANDING_CHANGES = ("pinned", "unpinned", "over_cap", "expired", "superseded", "forgotten")
CHANGES = (*CONTENT_CHANGES, *STANDING_CHANGES)
ACTS = ("add", "update", "supersede", "merge", "forget")


class Item(Audited, TenantModel):
    """One statement about a subject; its words stand in the revision of its version. Written by services only.

    Locks: the subject before the item, because every change moves the subject's bytes.
    """

    subject = models.ForeignKey("memory.Subject", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    kind = models.CharField(max_length=10)
    namespace = models.CharField(max_length=200, default="", blank=True)  # "preferences/contact"
    fact_kind = models.CharField(max_length=60, default="", blank=True)  # the shape of its facts, if it has any
    attribute = models.BinaryField(null=True)  # HMAC of namespace and attribute: two of one subject contradict
    schema_version = models.IntegerField(default=1)  # of the facts
    status = models.CharField(max_length=10, choices=ItemStatus.choices, default=ItemStatus.ACTIVE)
    pinned = models.BooleanField(default=False)
    importance = models.FloatField(default=0.5)  # 0 to 1
    version = models.IntegerField(default=1)  # of the newest revision
    bytes = models.IntegerField()  # of its text and facts: what it takes of the cap
    tokens = models.IntegerField()
    digest = models.BinaryField(max_length=32)  # HMAC of the normalised text: the same said again
    origin = models.CharField(max_length=6, default="said")
    valid_from = models.DateTimeField()  # true in the world since
    valid_to = models.DateTimeField(null=True)
    known_from = models.DateTimeField()  # known to us since
    known_to = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)  # null while pinned
    superseded_by = models.UUIDField(null=True)
    source_run_id = models.UUIDField(null=True)  # plain: deleting a run never deletes what was learned
    source_step_seq = models.IntegerField(null=True)
    source_message_ids = ArrayField(models.UUIDField(), default=list)
    locked_by = models.CharField(max_length=64, default="", blank=True)  # a person who is editing it
    locked_name = models.CharField(max_length=200, default="", blank=True)
    locked_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.CheckConstraint(condition=Q(kind__in=KINDS), name="memory_item_kind"),
            models.CheckConstraint(condition=Q(origin__in=ORIGINS), name="memory_item_origin"),
            models.CheckConstraint(condition=Q(status__in=ItemStatus.values), name="memory_item_status"),
            models.CheckConstraint(condition=Q(importance__gte=0, importance__lte=1), name="memory_item_importance"),
            models.CheckConstraint(condition=Q(pinned=False) | Q(expires_at=None), name="memory_item_pinned_stays"),
            models.CheckConstraint(
                condition=Q(valid_to=None) | Q(valid_to__gte=F("valid_from")), name="memory_item_valid"
            ),
            # The same words said twice about one subject are one item.
            models.UniqueConstraint(
                fields=["subject", "namespace", "digest"], condition=Q(status="active"), name="memory_item_said_once"
            ),
            TenantFK(name="memory_item_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
            SweeperReads(name="memory_item_sweeper", columns=["id", "tenant_id", "status", "expires_at", "subject_id"]),
        ]
        indexes = [
            models.Index(fields=["subject", "status", "-updated_at"], name="memory_item_of_subject"),  # its page, cap
            models.Index(fields=["tenant_id", "-id"], name="memory_item_list"),  # the list over all subjects
            # The upkeep that expires.
            models.Index(fields=["expires_at"], condition=Q(status="active", pinned=False), name="memory_item_expiry"),
            models.Index(fields=["tenant_id", "fact_kind", "schema_version"], name="memory_item_schema"),  # back-fill
        ]


class ItemRevision(TenantOwned):
    """One content of an item, with who made it and why. Append-only; a restore is a new one. Goes with its item.

    A change of standing is a revision too: which one was the newest at a moment tells what was known then, and since
    when that was true in the world.
    """

    pk = models.CompositePrimaryKey("item_id", "version")
    item = models.ForeignKey("memory.Item", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    version = models.IntegerField()
    subject_id = models.UUIDField()
    change = models.CharField(max_length=12)
    text = models.BinaryField()  # sealed
    facts = models.BinaryField(null=True)  # sealed canonical JSON
    reason = models.BinaryField(default=bytes)  # sealed
    status = models.CharField(max_length=10, choices=ItemStatus.choices, default=ItemStatus.ACTIVE)
    pinned = models.BooleanField(default=False)
    importance = models.FloatField(default=0.5)
    valid_from = models.DateTimeField()
    valid_to = models.DateTimeField(null=True)
    schema_version = models.IntegerField(default=1)
    tokens = models.IntegerField()
    restored_from = models.IntegerField(null=True)
    merged_ids = ArrayField(models.UUIDField(), default=list)  # items or messages whose words went into it
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    run_id = models.UUIDField(null=True)
    key = models.CharField(max_length=64, null=True)  # idempotency key of the step that wrote it: written once
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            RowSecurity(name="memory_itemrevision_rls", grants="SELECT, INSERT, DELETE"),
            NeverUpdated(name="memory_itemrevision_frozen"),
            models.UniqueConstraint(
                fields=["tenant_id", "key"], condition=Q(key__isnull=False), name="memory_itemrevision_key"
            ),
            models.CheckConstraint(condition=Q(change__in=CHANGES), name="memory_itemrevision_change"),
            models.CheckConstraint(condition=Q(status__in=ItemStatus.values), name="memory_itemrevision_status"),
            TenantFK(name="memory_itemrevision_item", field="item", to="memory_item", on_delete="CASCADE"),
        ]
        indexes = [models.Index(fields=["subject_id"], name="memory_itemrevision_subject")]  # erasure


class Proposal(Audited, TenantModel):
    """A change of memory that somebody suggested: a rule, a model, an agent. A policy or a person decides it once."""

    subject = models.ForeignKey("memory.Subject", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    act = models.CharField(max_length=10)
    status = models.CharField(max_length=10, choices=ProposalStatus.choices, default=ProposalStatus.PENDING)
    item_id = models.UUIDField(null=True)  # what it changes; the result of an accepted "add"
    expected_version = models.IntegerField(null=True)
    body = models.BinaryField()  # sealed canonical JSON: the new content, in the form of drafts.NewItem
    why = models.BinaryField(default=bytes)  # sealed: the proposer's words
    digest = models.BinaryField(max_length=32)  # of act, item and normalised text: proposed once while pending
    method = models.CharField(max_length=120)  # rules, or the model's name
    confidence = models.FloatField(default=0.5)
    source_run_id = models.UUIDField(null=True)
    source_step_seq = models.IntegerField(null=True)
    source_message_ids = ArrayField(models.UUIDField(), default=list)
    decided_by = models.CharField(max_length=200, default="", blank=True)
    created_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.CheckConstraint(condition=Q(act__in=ACTS), name="memory_proposal_act"),
            models.CheckConstraint(condition=Q(status__in=ProposalStatus.values), name="memory_proposal_status"),
            models.UniqueConstraint(
                fields=["subject", "digest"], condition=Q(status="pending"), name="memory_proposal_once"
            ),
            TenantFK(name="memory_proposal_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
        ]
        indexes = [
            # The review list; few rows.
            models.Index(fields=["tenant_id", "-id"], condition=Q(status="pending"), name="memory_proposal_pending"),
            models.Index(fields=["item_id"], name="memory_proposal_item"),  # the item's page
        ]
