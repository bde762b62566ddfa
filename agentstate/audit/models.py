"""Audit entries chained per object, sealed reasons, and one seal per tenant and minute over what is over."""

from __future__ import annotations

from django.db import models

from agentstate.core.ids import new_id
from agentstate.tenants.security import AppendOnly, GlobalTable, RowSecurity, TenantFK, TenantModel


class AuditEntry(TenantModel):
    """One act on one object. Written by agentstate_audit() in the transaction of the act; never changed or deleted.

    `detail` holds ids, counts and HMACs only; text of customers or people lies sealed in an AuditNote.
    `xid` and `epoch` name the transaction, so that a seal can tell what is over.
    """

    id = models.BigAutoField(primary_key=True)  # type: ignore[assignment]
    object_type = models.CharField(max_length=40)
    object_id = models.UUIDField()
    object_seq = models.IntegerField()
    action = models.CharField(max_length=60)
    from_status = models.CharField(max_length=20, default="")
    to_status = models.CharField(max_length=20, default="")
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200, default="")
    at = models.DateTimeField()
    detail = models.JSONField(default=dict)
    note_id = models.UUIDField(null=True)
    note_sha = models.BinaryField(null=True)  # of the note's sealed bytes: it verifies after the note was erased
    sha = models.BinaryField()
    epoch = models.IntegerField()
    xid = models.BigIntegerField()

    class Meta(TenantModel.Meta):
        db_table = "audit_entry"
        constraints = [
            RowSecurity(name="audit_entry_rls", grants="SELECT, INSERT"),
            AppendOnly(name="audit_entry_append_only"),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="audit_entry_tenant_id"),
            # The history of one object, and the order in which its chain is recomputed.
            models.UniqueConstraint(
                fields=["tenant_id", "object_type", "object_id", "object_seq"], name="audit_entry_object"
            ),
            models.CheckConstraint(condition=models.Q(object_seq__gt=0), name="audit_entry_object_seq"),
            TenantFK(name="audit_entry_note", field="note_id", to="audit_note"),
        ]
        indexes = [
            # The window of a seal.
            models.Index(fields=["tenant_id", "epoch", "xid"], name="audit_entry_window"),
        ]

    def __str__(self) -> str:
        return f"{self.object_type} {self.object_id} #{self.object_seq}: {self.action}"


class AuditNote(TenantModel):
    """The reason a person gave, sealed under a key of its own that the tenant's key wraps.

    Written with its entry. Erasing takes the key away: the ciphertext stays, so the chain verifies as before.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    body = models.BinaryField()
    wrapped = models.BinaryField(null=True)  # None: erased

    class Meta(TenantModel.Meta):
        db_table = "audit_note"
        constraints = [
            RowSecurity(name="audit_note_rls", grants="SELECT, INSERT, UPDATE (wrapped)"),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="audit_note_tenant_id"),
        ]

    def __str__(self) -> str:
        return f"reason {self.id}"


class AuditSeal(TenantModel):
    """A digest of all entries of the transactions in [from_xid, to_xid), chained to the tenant's previous seal.

    It catches what chains per object cannot: an object removed with all its entries, or a chain cut and its head
    put back. `mac` needs the tenant's key, which is not in the database. Written by the sealer; never deleted.
    """

    id = models.BigAutoField(primary_key=True)  # type: ignore[assignment]
    seq = models.IntegerField()  # counts up from 1 per tenant
    epoch = models.IntegerField()
    from_xid = models.BigIntegerField()
    to_xid = models.BigIntegerField()
    after_id = models.BigIntegerField(null=True)  # closing seal of an epoch: also takes every entry with a greater id
    last_id = models.BigIntegerField()  # greatest entry id up to here
    n = models.IntegerField()
    previous = models.BinaryField()
    root = models.BinaryField()
    mac = models.BinaryField()
    at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        db_table = "audit_seal"
        constraints = [
            RowSecurity(name="audit_seal_rls", grants="SELECT, INSERT"),
            AppendOnly(name="audit_seal_append_only"),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="audit_seal_tenant_id"),
            models.UniqueConstraint(fields=["tenant_id", "seq"], name="audit_seal_seq"),
        ]

    def __str__(self) -> str:
        return f"seal {self.seq}: {self.n} entries"


class Cluster(models.Model):
    """The Postgres cluster whose transaction numbers we see: one row, for all tenants.

    A restore into another cluster starts its numbers lower; the epoch then rises, else nothing new would be sealed.
    Written by the sealer; never deleted.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    epoch = models.IntegerField(default=1)
    system_id = models.BigIntegerField()
    since = models.DateTimeField()

    class Meta:
        db_table = "audit_cluster"
        constraints = [
            GlobalTable(name="audit_cluster_grants", grants="SELECT, INSERT, UPDATE"),
            models.CheckConstraint(condition=models.Q(id=1), name="audit_cluster_one_row"),
        ]

    def __str__(self) -> str:
        return f"epoch {self.epoch}"
