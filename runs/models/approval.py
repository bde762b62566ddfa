"""Questions to people and their answers."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from agentstate.core.ids import new_id
from agentstate.tenants.security import AppendOnly, RowSecurity, SweeperReads, TenantFK, TenantModel
from runs.states import ApprovalStatus

KINDS = ("tool", "ask", "budget", "settle")


class Approval(TenantModel):
    """One question: a tool call to approve, a free question, a budget to raise, or an effect in doubt to settle.

    Written by the turn that asks, decided once by `approvals.decide` against version and proposal hash.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey("runs.Run", on_delete=models.CASCADE, db_constraint=False, related_name="approvals")
    step_seq = models.IntegerField(null=True)
    kind = models.CharField(max_length=8)
    tool = models.CharField(max_length=200, default="")
    agent = models.CharField(max_length=200)
    risk = models.CharField(max_length=4, default="low")
    status = models.CharField(max_length=10, choices=ApprovalStatus.choices, default=ApprovalStatus.PENDING)
    version = models.IntegerField(default=1)
    proposal = models.BinaryField()  # sealed {title, args, schema, reason, evidence, locked, note}
    proposal_hash = models.BinaryField()  # HMAC of the canonical proposal; a decision names it
    decision = models.BinaryField(null=True)  # sealed {args, message, evidence}
    decided_by_kind = models.CharField(max_length=10, default="")
    decided_by_id = models.CharField(max_length=64, default="")
    decided_by_name = models.CharField(max_length=200, default="")
    requested_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    use_within_s = models.FloatField(null=True)
    use_by = models.DateTimeField(null=True)  # an approval not used by then asks again
    used_at = models.DateTimeField(null=True)  # one approval, one send
    audit_head = models.BinaryField(default=bytes)
    audit_seq = models.IntegerField(default=0)

    class Meta(TenantModel.Meta):
        db_table = "runs_approval"
        constraints = [
            *TenantModel.Meta.constraints,
            models.CheckConstraint(condition=Q(status__in=ApprovalStatus.values), name="runs_approval_status"),
            models.CheckConstraint(condition=Q(kind__in=KINDS), name="runs_approval_kind"),
            TenantFK(name="runs_approval_run", field="run", to="runs_run"),
            SweeperReads(name="runs_approval_sweeper", columns=["id", "tenant_id", "run_id", "status", "expires_at"]),
        ]
        indexes = [
            # The inbox and the number in the navigation.
            models.Index(fields=["tenant_id", "-id"], condition=Q(status="pending"), name="runs_approval_inbox"),
            # Approvals of one run or step.
            models.Index(fields=["run", "step_seq"], name="runs_approval_step"),
            # Decided ones, newest first; alike cases of a tool.
            models.Index(fields=["tenant_id", "tool", "-id"], name="runs_approval_tool"),
        ]


class ApprovalVote(TenantModel):
    """One person's decision, naming the exact proposal seen. Append-only; the same click sent twice is one row."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    approval = models.ForeignKey(Approval, on_delete=models.CASCADE, db_constraint=False, related_name="votes")
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    decision = models.CharField(max_length=10)
    version = models.IntegerField()
    proposal_hash = models.BinaryField()
    client_token = models.CharField(max_length=64)
    at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        db_table = "runs_approvalvote"
        constraints = [
            *TenantModel.Meta.constraints[1:],
            RowSecurity(name="runs_approvalvote_rls", grants="SELECT, INSERT"),
            AppendOnly(name="runs_approvalvote_frozen"),
            models.UniqueConstraint(fields=["approval", "actor_id", "client_token"], name="runs_approvalvote_token"),
            TenantFK(name="runs_approvalvote_approval", field="approval", to="runs_approval"),
        ]
