"""How far each kind of upkeep has come in a tenant; read by Health, moved by the tasks."""

from __future__ import annotations

from django.db import models

from agentstate.tenants.security import TenantModel


class Upkeep(TenantModel):
    """One kind of upkeep in one tenant: summarise, consolidate, expire, embed, backfill. One row each.

    `cursor` is where a killed round goes on. The row is locked while a batch is done, so two rounds at once are one.
    """

    name = models.CharField(max_length=40)
    cursor = models.CharField(max_length=200, default="", blank=True)
    target = models.CharField(max_length=200, default="", blank=True)  # what it works toward: a model, a schema version
    done = models.BigIntegerField(default=0)  # in this round
    total = models.BigIntegerField(null=True)  # an estimate, when there is one
    state = models.CharField(max_length=8, default="idle")  # idle, running, failed
    error = models.CharField(max_length=400, default="", blank=True)  # class and place, never a customer's text
    started_at = models.DateTimeField(null=True)
    moved_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "name"], name="memory_upkeep_name"),
        ]
