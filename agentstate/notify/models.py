"""The outbox: a notice is a row in the transaction that caused it, and leaves the house afterwards."""

from __future__ import annotations

from django.db import models

from agentstate.tenants.models import Audited
from agentstate.tenants.security import SweeperReads, TenantModel


class Outbox(Audited, TenantModel):
    """One notice to one address, or one that fans out into such. Written by outbox.put() in the causing transaction.

    `due_at` is when it may be tried next. Sent ones are pruned after a week, given-up ones after ninety days.
    """

    topic = models.CharField(max_length=40)
    key = models.CharField(max_length=200)  # what it is about: the same topic and key are one notice
    body = models.BinaryField()  # sealed JSON
    wrapped = models.BinaryField()  # its key, wrapped by the tenant's
    due_at = models.DateTimeField()
    attempts = models.IntegerField(default=0)
    error = models.CharField(max_length=200, default="", blank=True)  # class of the last failure, never its text
    sent_at = models.DateTimeField(null=True)
    given_up_at = models.DateTimeField(null=True)

    class Meta(TenantModel.Meta):
        db_table = "notify_outbox"
        verbose_name = "notice"
        constraints = [
            *TenantModel.Meta.constraints,
            SweeperReads(name="notify_outbox_sweeper", columns=["tenant_id", "id", "due_at", "sent_at", "given_up_at"]),
            models.UniqueConstraint(fields=["tenant_id", "topic", "key"], name="notify_outbox_once"),
            models.CheckConstraint(
                condition=models.Q(sent_at__isnull=True) | models.Q(given_up_at__isnull=True), name="notify_outbox_end"
            ),
        ]
        indexes = [
            # agentstate_outbox_due: what is to be sent, of all tenants.
            models.Index(
                fields=["due_at"],
                condition=models.Q(sent_at__isnull=True, given_up_at__isnull=True),
                name="notify_outbox_due",
            ),
            # agentstate_outbox_old: what is to be pruned.
            models.Index(models.F("sent_at"), condition=models.Q(sent_at__isnull=False), name="notify_outbox_sent"),
            models.Index(
                models.F("given_up_at"), condition=models.Q(given_up_at__isnull=False), name="notify_outbox_given_up"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.topic} {self.key}"
