"""Runs and what is looked up beside them: tags, admission keys, counts."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from agentstate.core.ids import new_id
from agentstate.tenants.security import RowSecurity, SweeperReads, TenantFK, TenantModel, TenantOwned
from runs.constraints import one_of, words
from runs.states import RUN_LIVE, RunStatus


class Run(TenantModel):
    """One execution of an agent. Written by admission, the engine under its fence, and people's acts.

    fillfactor 70 and no index over a column that a turn changes: every turn stays a HOT update.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.CharField(max_length=200)
    version = models.ForeignKey(
        "runs.AgentVersion",
        null=True,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,  # nobody asks for the runs of a version
        related_name="+",
    )
    mode = models.CharField(max_length=10, default="replay")
    status = models.CharField(max_length=12, choices=RunStatus.choices, default=RunStatus.QUEUED)
    waiting_for = models.CharField(max_length=12, default="", blank=True)
    wake_reason = models.CharField(max_length=20, default="start", blank=True)
    control = models.CharField(max_length=8, default="", blank=True)  # requested: pause, cancel
    held = models.BooleanField(default=False)  # queued behind another run of its session

    external_id = models.CharField(max_length=200, null=True)
    session_key = models.CharField(max_length=200, default="", blank=True)
    tags = ArrayField(models.CharField(max_length=64), default=list)
    trace_id = models.CharField(max_length=32)
    started_by_kind = models.CharField(max_length=10)
    started_by_id = models.CharField(max_length=64)
    started_by_name = models.CharField(max_length=200)

    input = models.BinaryField()  # sealed
    output = models.BinaryField(null=True)  # sealed
    error = models.BinaryField(null=True)  # sealed {type, message}
    error_type = models.CharField(max_length=200, default="", blank=True)  # class name, for grouping
    error_step = models.IntegerField(null=True)  # the innermost step it failed by
    error_steps = ArrayField(models.IntegerField(), default=list)  # all of them: a resume lets these be tried again

    fence = models.BigIntegerField(default=0)
    # No constraint: workers are forgotten a week after their death, runs are not.
    worker = models.ForeignKey(
        "runs.Worker",
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,  # asked of running ones only: runs_run_running
        related_name="+",
    )
    lease_until = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)  # timer or back-off; not indexed with status changes in turns
    claims = models.IntegerField(default=0)  # since the last turn that landed: counts poison
    attempt = models.IntegerField(default=0)

    generation = models.IntegerField(default=0)
    generation_frame = models.IntegerField(default=0)  # frame that opened the generation
    generation_seq = models.IntegerField(default=0)  # its steps have a greater seq
    step_seq = models.IntegerField(default=0)
    event_seq = models.IntegerField(default=0)
    entry_seq = models.IntegerField(default=0)
    frame_n = models.IntegerField(default=0)
    chain = models.BinaryField(default=bytes)

    tokens_in = models.BigIntegerField(default=0)
    tokens_out = models.BigIntegerField(default=0)
    cost = models.FloatField(default=0.0)
    budget_steps = models.IntegerField(null=True)
    budget_tokens = models.BigIntegerField(null=True)
    budget_cost = models.FloatField(null=True)
    budget_wall_s = models.FloatField(null=True)

    context_budget_tokens = models.IntegerField(null=True)  # of its scratchpad, in place of the agent's

    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    audit_head = models.BinaryField(default=bytes)
    audit_seq = models.IntegerField(default=0)

    class Meta(TenantModel.Meta):
        db_table = "runs_run"
        constraints = [
            RowSecurity(name="runs_run_rls", hot=True),
            # Read backwards it is the run list, newest first, and its keyset pages: UUIDv7 is the order of creation.
            models.UniqueConstraint(fields=["tenant_id", "id"], name="runs_run_tenant_id"),
            words("runs_run_words", ["status"], one_of("status", RunStatus.values)),
            models.UniqueConstraint(fields=["tenant_id", "external_id"], name="runs_run_external_id"),
            # One live run per session; a held one waits its turn.
            models.UniqueConstraint(
                fields=["tenant_id", "session_key"],
                condition=Q(status__in=sorted(RUN_LIVE)) & ~Q(session_key="") & Q(held=False),
                name="runs_run_session_live",
            ),
            TenantFK(name="runs_run_version", field="version", to="runs_agentversion"),
            SweeperReads(
                name="runs_run_sweeper",
                columns=["id", "tenant_id", "agent", "status", "held", "due_at", "lease_until", "worker_id", "fence"],
            ),
        ]
        indexes = [
            # The run list of one agent.
            models.Index(fields=["tenant_id", "agent", "-id"], name="runs_run_agent"),
            # Live counts, Now, the sweep: few rows whatever the age of the tenant.
            models.Index(
                fields=["tenant_id", "status", "-id"],
                condition=~Q(status__in=[RunStatus.SUCCEEDED, RunStatus.CANCELLED]),
                name="runs_run_live",
            ),
            # The list of one status, over as well.
            models.Index(fields=["tenant_id", "status", "-id"], name="runs_run_status_list"),
            # The sweep: what is due, over all tenants. due_at changes with a status, never in a turn.
            models.Index(fields=["due_at"], condition=Q(status__in=["queued", "waiting"]), name="runs_run_due"),
            # The sweep: leases that have ended. As many rows as workers are busy; lease_until itself is not indexed.
            models.Index(fields=["id"], condition=Q(status="running"), name="runs_run_running"),
        ]

    def is_over(self) -> bool:
        return self.status in (RunStatus.SUCCEEDED, RunStatus.CANCELLED, RunStatus.FAILED)


class RunTag(TenantOwned):
    """One tag of one run; written at admission, never changed. Its index serves the list filtered by tag."""

    pk = models.CompositePrimaryKey("tenant_id", "tag", "run_id")
    tag = models.CharField(max_length=64)
    run_id = models.UUIDField()

    class Meta:
        db_table = "runs_tag"
        constraints = [
            RowSecurity(name="runs_tag_rls", grants="SELECT, INSERT, DELETE"),
            TenantFK(name="runs_tag_run", field="run_id", to="runs_run"),
        ]


class AdmissionKey(TenantOwned):
    """An Idempotency-Key seen at admission with the hash of its body; the sweep drops it after a day."""

    key = models.CharField(max_length=200)
    body_hash = models.BinaryField()
    run_id = models.UUIDField()
    created_at = models.DateTimeField()

    class Meta(TenantOwned.Meta):
        db_table = "runs_admissionkey"
        constraints = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "key"], name="runs_admissionkey_key"),
            TenantFK(name="runs_admissionkey_run", field="run_id", to="runs_run"),
        ]


class StatusDelta(TenantOwned):
    """+1 / -1 of a status that is not counted live; folded into StatusCount by the sweep."""

    status = models.CharField(max_length=12)
    delta = models.SmallIntegerField()

    class Meta(TenantOwned.Meta):
        db_table = "runs_statusdelta"


class StatusCount(TenantOwned):
    """Folded number of runs in a terminal status. The truth is count plus the sum of the deltas."""

    status = models.CharField(max_length=12)
    count = models.BigIntegerField(default=0)

    class Meta(TenantOwned.Meta):
        db_table = "runs_statuscount"
        constraints = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "status"], name="runs_statuscount_status"),
        ]
