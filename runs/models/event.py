"""The trace: append-only facts about a run, numbered per run under its row lock, so that order is commit order."""

from __future__ import annotations

from django.db import models

from agentstate.tenants.security import AppendOnly, RowSecurity, TenantOwned


class Event(TenantOwned):
    """One fact. Partitioned by the month of its RUN, so that a run's events stand in one partition.

    kind: `turn` (detail: seq ended and begun), `status` (from, to, reason), `entry` (a scratchpad entry, sealed body),
    `takeover`, `compacted`. Unique constraints must hold the partition column; nothing can point at this table.
    """

    pk = models.CompositePrimaryKey("month", "run_id", "seq")
    month = models.DateField()  # first day of the month in which the run was created
    run_id = models.UUIDField()
    seq = models.IntegerField()
    kind = models.CharField(max_length=12)
    detail = models.JSONField(null=True)
    body = models.BinaryField(null=True)
    tokens = models.IntegerField(default=0)
    at = models.DateTimeField()

    class Meta:
        db_table = "runs_event"
        constraints = [
            RowSecurity(name="runs_event_rls", grants="SELECT, INSERT", hot=True),
            AppendOnly(name="runs_event_frozen"),
        ]
