"""What can run and who runs it: agent versions, tools, workers, emergency stops."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from agentstate.core.ids import new_id
from agentstate.tenants.security import GlobalTable, RowSecurity, TenantModel


class AgentVersion(TenantModel):
    """Code of an agent as a worker registered it. Immutable; the newest by `seen_at` is the current one."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.CharField(max_length=200)
    version = models.CharField(max_length=64)
    mode = models.CharField(max_length=10)
    digest = models.CharField(max_length=64)  # over the fingerprint and the spec
    fingerprint = models.JSONField()  # part of the code -> digest of its syntax tree
    input_schema = models.JSONField()
    description = models.TextField(default="")
    on_code_change = models.CharField(max_length=8, default="pause")
    context_budget_tokens = models.IntegerField(null=True)
    created_at = models.DateTimeField()
    seen_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        db_table = "runs_agentversion"
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "agent", "digest"], name="runs_agentversion_digest"),
        ]


class Tool(TenantModel):
    """A tool as its author declared it last, per agent."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    effect = models.CharField(max_length=12)
    schema = models.JSONField()
    approve = models.CharField(max_length=8)
    window_s = models.FloatField(null=True)
    settles_within_s = models.FloatField(null=True)
    timeout_s = models.FloatField()
    retries = models.IntegerField(default=0)
    has_probe = models.BooleanField(default=False)
    lookup_url = models.CharField(max_length=500, default="")
    note = models.TextField(default="")
    risk = models.CharField(max_length=4, default="low")
    seen_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        db_table = "runs_tool"
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "agent", "name"], name="runs_tool_name"),
        ]


class Worker(models.Model):
    """A process that drives runs. Global: it holds machine facts only; `for_tenant` is set for workers over HTTP.

    `no` is the number of its advisory lock (class 77), held by a direct connection for as long as it lives.
    A policy shows a tenant its own and the hosted ones only.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    no = models.IntegerField(unique=True)
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=8)  # hosted | http
    for_tenant = models.UUIDField(null=True)
    host = models.CharField(max_length=200, default="")
    pid = models.IntegerField(default=0)
    boot_id = models.CharField(max_length=64, default="")
    pid_start = models.BigIntegerField(default=0)
    agents = ArrayField(models.CharField(max_length=200), default=list)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    dead_at = models.DateTimeField(null=True)
    dead_proof = models.CharField(max_length=200, default="")

    class Meta:
        db_table = "runs_worker"
        constraints = [GlobalTable(name="runs_worker_grants", grants="SELECT, INSERT, UPDATE, DELETE")]
        indexes = [
            # The watcher looks at the living only.
            models.Index(fields=["kind"], condition=Q(dead_at__isnull=True), name="runs_worker_living"),
            # Finding one's own row again: a process registers once.
            models.Index(fields=["host", "pid"], name="runs_worker_process"),
        ]


class Stop(TenantModel):
    """An emergency stop of one agent, or of all (agent empty): no claim and no new step while it is active."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.CharField(max_length=200, default="", blank=True)
    status = models.CharField(max_length=8, default="active")  # active | lifted
    created_at = models.DateTimeField()
    audit_head = models.BinaryField(default=bytes)
    audit_seq = models.IntegerField(default=0)

    class Meta(TenantModel.Meta):
        db_table = "runs_stop"
        constraints = [
            RowSecurity(name="runs_stop_rls", hot=True),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="runs_stop_tenant_id"),
            # Asked in every turn: one look into a tiny index.
            models.UniqueConstraint(
                fields=["tenant_id", "agent"], condition=Q(status="active"), name="runs_stop_active"
            ),
        ]
