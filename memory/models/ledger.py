"""The injection ledger: which words of memory went into which call; and the questions that were really asked."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from agentstate.tenants.security import NeverUpdated, RowSecurity, TenantFK, TenantModel

SOURCES = ("message", "item", "summary", "prompt", "progress")


class Injection(TenantModel):
    """One text that one call was given. Its words are those of the source's version, which never change.

    Written in the transaction of the call that built the context; append-only, deleted by retention or with the
    subject. Retention goes through them by their ids, which are in the order of their making.
    """

    run_id = models.UUIDField(null=True)
    step_seq = models.IntegerField(null=True)
    call_id = models.UUIDField()  # one context.build or recall; the rows of a call share it
    session_id = models.UUIDField(null=True)
    subject = models.ForeignKey(
        "memory.Subject", null=True, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )  # null: a prompt belongs to nobody
    part = models.CharField(max_length=10)  # of the context: pinned, summary, recalled, tail, prompt, progress
    source = models.CharField(max_length=8)
    source_id = models.UUIDField()
    version = models.IntegerField(default=1)
    position = models.SmallIntegerField()  # in the context, from 1
    score = models.FloatField(null=True)  # of recall
    scores = models.JSONField(default=dict)  # its parts: bm25, late, neighbours, session, author, month
    tokens = models.IntegerField()
    masked = models.BooleanField(default=False)  # only its first line went in
    at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            RowSecurity(name="memory_injection_rls", grants="SELECT, INSERT, DELETE"),
            NeverUpdated(name="memory_injection_frozen"),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="memory_injection_tenant_id"),
            models.CheckConstraint(condition=Q(source__in=SOURCES), name="memory_injection_source"),
            # A call that began before its subject was erased must not record afterwards.
            TenantFK(name="memory_injection_of_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
        ]
        indexes = [
            models.Index(fields=["run_id", "step_seq"], name="memory_injection_step"),  # what a step was given
            models.Index(fields=["source_id", "-id"], name="memory_injection_source"),  # where an item was used
            models.Index(fields=["subject"], name="memory_injection_subject"),  # erasure
            models.Index(fields=["session_id", "-id"], name="memory_injection_session"),  # the session's page
        ]


class RecallQuestion(TenantModel):
    """A question that a call asked of a subject's memory; the newest few of a subject are kept for previews."""

    subject = models.ForeignKey("memory.Subject", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    agent = models.CharField(max_length=200, default="", blank=True)
    text = models.BinaryField()  # sealed
    run_id = models.UUIDField(null=True)
    step_seq = models.IntegerField(null=True)
    at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            TenantFK(name="memory_question_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
        ]
        indexes = [models.Index(fields=["subject", "-id"], name="memory_question_newest")]
