"""Tables of checkpoints, keyed by (tenant_id, run_id). Read and written by the modules beside this one only."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from agentstate.tenants.rules import RowRule
from agentstate.tenants.security import RowSecurity, TenantOwned
from checkpoints.constraints import ExternalBody, WrittenOnce


class RunKey(TenantOwned):
    """The key of one run, wrapped by its tenant's. Made at admission; destroyed (emptied, kept) to erase the run."""

    run_id = models.UUIDField(primary_key=True, editable=False)
    wrapped = models.BinaryField()
    key_version = models.IntegerField()  # of the tenant's key that wraps this one
    created = models.DateTimeField(db_default=Now())
    destroyed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            RowSecurity(
                name="checkpoints_runkey_rls",
                grants="SELECT, INSERT, UPDATE (wrapped, key_version, destroyed_at)",
            ),
            # Rotation and compaction go through a tenant's runs in this order.
            models.UniqueConstraint(fields=["tenant_id", "run_id"], name="checkpoints_runkey_tenant_run"),
            models.CheckConstraint(
                name="checkpoints_runkey_destroyed",
                condition=Q(destroyed_at=None) | Q(wrapped=b""),
            ),
        ]


class Frame(TenantOwned):
    """One checkpoint of a run. Written by the turn, once; compaction may turn it into a keyframe or delete it."""

    pk = models.CompositePrimaryKey("run_id", "n")
    run_id = models.UUIDField()
    n = models.IntegerField()  # 1, 2, 3, … without holes until compaction
    generation = models.IntegerField()
    step_seq = models.IntegerField(null=True)  # the step it stands before, if any
    kind = models.CharField(max_length=16)
    base_n = models.IntegerField(null=True)  # the frame this one is a change to; null: a keyframe
    schema_version = models.IntegerField()
    sha = models.BinaryField()  # HMAC-SHA-256 of the plaintext under a key of the run
    chain = models.BinaryField()  # SHA-256 of the chain before, the digest of the turn's steps, and sha
    plain_bytes = models.IntegerField()  # bounds what the body may unpack to
    body = models.BinaryField()
    fence = models.BigIntegerField()
    created = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            RowSecurity(name="checkpoints_frame_rls", grants="SELECT, INSERT, DELETE, UPDATE (body, base_n)", hot=True),
            WrittenOnce(name="checkpoints_frame_written_once"),
            ExternalBody(name="checkpoints_frame_body"),
            RowRule(name="checkpoints_frame_base", columns=["base_n", "n"], rule="new.base_n < new.n"),
        ]


class Blob(TenantOwned):
    """A text over 64 KiB that frames of this run refer to. Deleted by compaction when no kept frame does."""

    pk = models.CompositePrimaryKey("run_id", "sha")
    run_id = models.UUIDField()
    sha = models.BinaryField()  # HMAC-SHA-256 of the text under a key of the run
    bytes = models.IntegerField()  # of the text
    body = models.BinaryField()
    created = models.DateTimeField(db_default=Now())  # or last put again

    class Meta:
        constraints = [
            RowSecurity(name="checkpoints_blob_rls", grants="SELECT, INSERT, DELETE, UPDATE (created)"),
            WrittenOnce(name="checkpoints_blob_written_once"),
            ExternalBody(name="checkpoints_blob_body"),
        ]


class Pin(TenantOwned):
    """Keeps one frame from compaction as long as its holder (a fork) wants it. Written and deleted by pins."""

    pk = models.CompositePrimaryKey("run_id", "n", "holder")
    run_id = models.UUIDField()
    n = models.IntegerField()
    holder = models.UUIDField()

    class Meta:
        constraints = [RowSecurity(name="checkpoints_pin_rls", grants="SELECT, INSERT, DELETE")]
        indexes = [models.Index(fields=["holder"], name="checkpoints_pin_holder")]  # pins.release
