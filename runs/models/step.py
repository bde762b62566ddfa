"""Steps, their earlier attempts, and replies that came too late."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from agentstate.core.ids import new_id
from agentstate.tenants.security import AppendOnly, RowSecurity, TenantFK, TenantModel, TenantOwned
from runs.constraints import one_of, words
from runs.states import StepStatus

EFFECTS = ("pure", "replayable", "keyed", "probed", "destructive")  # the last three have a key
_SURE = [status for status in StepStatus.values if status != StepStatus.IN_DOUBT]


class Step(TenantOwned):
    """One recorded unit inside a run; an effect (keyed, probed, destructive) is a step with a key.

    Written by the turn and, for what is not plain, by the engine's and people's acts. Identity, key, payload hash
    and a terminal status are frozen by a trigger. Deleted with its run.

    fillfactor 80 and no index over a column that a plain turn changes: the end of a step stays a HOT update.
    """

    pk = models.CompositePrimaryKey("run_id", "seq")
    run_id = models.UUIDField()
    seq = models.IntegerField()  # order of starting
    generation = models.IntegerField()
    identity = models.CharField(max_length=1000, db_collation="C")
    parent_seq = models.IntegerField(null=True)
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=8)
    effect = models.CharField(max_length=12)
    status = models.CharField(max_length=10, choices=StepStatus.choices)
    outcome = models.CharField(max_length=10, default="")  # of the last attempt: done not_sent refused failed unknown

    attempt = models.IntegerField(default=1)
    retry = models.IntegerField(default=0)  # grows only after `failed`; part of the key
    edit_version = models.IntegerField(default=0)
    authorised = models.IntegerField(default=0)  # further calls a person allowed after "it did not happen"
    sent = models.IntegerField(default=0)  # attempts whose call may have left this process
    key = models.CharField(max_length=64, null=True)
    payload_hash = models.BinaryField()  # HMAC by the tenant's key
    input = models.BinaryField()  # sealed canonical payload
    output = models.BinaryField(null=True)  # sealed
    output_hash = models.BinaryField(null=True)  # HMAC
    error = models.BinaryField(null=True)  # sealed {type, message, retryable}
    error_type = models.CharField(max_length=200, default="")

    fence = models.BigIntegerField()
    worker_id = models.UUIDField(null=True)
    started_at = models.DateTimeField()
    first_called_at = models.DateTimeField(null=True)  # the window of a keyed effect counts from here
    call_by = models.DateTimeField(null=True)  # the call has left before this moment or not at all
    timeout_s = models.FloatField(null=True)
    window_s = models.FloatField(null=True)
    settles_within_s = models.FloatField(null=True)
    has_probe = models.BooleanField(default=False)
    probes_unknown = models.SmallIntegerField(default=0)
    due_at = models.DateTimeField(null=True)  # timers
    doubted_at = models.DateTimeField(null=True)  # when its outcome was last found to be in doubt
    ended_at = models.DateTimeField(null=True)
    end_frame = models.IntegerField(null=True)  # the frame whose chain covers this end
    source = models.CharField(max_length=8, default="worker")  # worker probe operator late
    model = models.CharField(max_length=120, default="")
    tokens_in = models.IntegerField(default=0)
    tokens_out = models.IntegerField(default=0)
    cost = models.FloatField(default=0.0)

    class Meta:
        db_table = "runs_step"
        constraints = [
            RowSecurity(name="runs_step_rls", hot=True),
            words(
                "runs_step_words",
                ["status", "doubted_at", "effect", "key"],
                one_of("status", _SURE, given=["in_doubt"], with_="doubted_at"),
                one_of("effect", EFFECTS[:2], given=EFFECTS[2:], with_="key"),
                usual=f"{one_of('status', ['started', 'done'])} AND {one_of('effect', EFFECTS[:1])}",
            ),
            models.UniqueConstraint(fields=["run_id", "generation", "identity"], name="runs_step_identity"),
            models.UniqueConstraint(fields=["tenant_id", "key"], condition=Q(key__isnull=False), name="runs_step_key"),
            TenantFK(name="runs_step_run", field="run_id", to="runs_run"),
        ]
        indexes = [
            # Now and the settle page: steps that are or were in doubt, few rows. Not by their status: an index that
            # looks at a column which every turn changes makes each of these updates write all indexes anew.
            models.Index(
                fields=["tenant_id", "run_id"], condition=Q(doubted_at__isnull=False), name="runs_step_in_doubt"
            ),
        ]


class StepAttempt(TenantModel):
    """An attempt that was followed by another; append-only, so that the record of a failure survives the resume."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run_id = models.UUIDField()
    seq = models.IntegerField()
    attempt = models.IntegerField()
    status = models.CharField(max_length=10)
    outcome = models.CharField(max_length=10)
    key = models.CharField(max_length=64, null=True)
    error = models.BinaryField(null=True)  # sealed under the step's own AAD
    error_type = models.CharField(max_length=200, default="")
    fence = models.BigIntegerField()
    worker_id = models.UUIDField(null=True)
    source = models.CharField(max_length=8)
    authorised = models.IntegerField(default=0)
    sent = models.IntegerField(default=0)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    end_frame = models.IntegerField(null=True)

    class Meta(TenantModel.Meta):
        db_table = "runs_stepattempt"
        constraints = [
            RowSecurity(name="runs_stepattempt_rls", grants="SELECT, INSERT"),
            AppendOnly(name="runs_stepattempt_frozen"),
            models.UniqueConstraint(fields=["run_id", "seq", "attempt"], name="runs_stepattempt_attempt"),
            TenantFK(name="runs_stepattempt_run", field="run_id", to="runs_run"),
        ]


class LateReply(TenantModel):
    """What a worker reported after it had lost the lease: evidence for whoever settles the step. Append-only."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run_id = models.UUIDField()
    seq = models.IntegerField()
    fence = models.BigIntegerField()
    outcome = models.CharField(max_length=10)
    body = models.BinaryField()  # sealed
    after_settled = models.BooleanField(default=False)  # came after "it did not happen": may have happened twice
    received_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        db_table = "runs_latereply"
        constraints = [
            RowSecurity(name="runs_latereply_rls", grants="SELECT, INSERT"),
            AppendOnly(name="runs_latereply_frozen"),
            TenantFK(name="runs_latereply_run", field="run_id", to="runs_run"),
        ]
        indexes = [
            # The step page and the settle page.
            models.Index(fields=["run_id", "seq"], name="runs_latereply_step"),
        ]
