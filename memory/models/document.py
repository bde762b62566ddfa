"""Documents with versions: what a task has come to (progress), and how an agent is told to work (prompts)."""

from __future__ import annotations

from django.db import models

from agentstate.tenants.models import Audited
from agentstate.tenants.security import AppendOnly, NeverUpdated, RowSecurity, TenantFK, TenantModel, TenantOwned


class Progress(Audited, TenantModel):
    """The progress document of one session or task; read first by the next run of it."""

    key = models.CharField(max_length=200)  # the session's key, or a task's name
    agent = models.CharField(max_length=200, default="", blank=True)
    subject = models.ForeignKey(
        "memory.Subject", null=True, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )  # whose it is; erased with them
    version = models.IntegerField(default=0)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "key"], name="memory_progress_key"),
            TenantFK(name="memory_progress_of_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
        ]
        indexes = [
            models.Index(fields=["subject"], name="memory_progress_subject"),  # erasure
            models.Index(fields=["tenant_id", "-updated_at"], name="memory_progress_recent"),  # the list
        ]


class ProgressVersion(TenantOwned):
    """One version of a progress document. Append-only; goes with it."""

    pk = models.CompositePrimaryKey("progress_id", "version")
    progress = models.ForeignKey("memory.Progress", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    version = models.IntegerField()
    body = models.BinaryField()  # sealed Markdown, with the fixed headings
    reason = models.BinaryField(default=bytes)  # sealed
    tokens = models.IntegerField()
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    run_id = models.UUIDField(null=True)
    step_seq = models.IntegerField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            RowSecurity(name="memory_progressversion_rls", grants="SELECT, INSERT, DELETE"),
            NeverUpdated(name="memory_progressversion_frozen"),
            TenantFK(name="memory_progressversion_of", field="progress", to="memory_progress", on_delete="CASCADE"),
        ]


class Prompt(Audited, TenantModel):
    """The procedural prompt of an agent, by name: how it should work, as admins and agents have written it."""

    agent = models.CharField(max_length=200)
    name = models.CharField(max_length=100, default="main")
    version = models.IntegerField(default=0)  # in force
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "agent", "name"], name="memory_prompt_name"),
        ]


class PromptVersion(TenantOwned):
    """One version of a prompt. Append-only."""

    pk = models.CompositePrimaryKey("prompt_id", "version")
    prompt = models.ForeignKey("memory.Prompt", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    version = models.IntegerField()
    body = models.BinaryField()  # sealed
    reason = models.BinaryField(default=bytes)  # sealed
    digest = models.BinaryField(max_length=32)  # of its sentences' words: the feedback fence knows them again
    tokens = models.IntegerField()
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            RowSecurity(name="memory_promptversion_rls", grants="SELECT, INSERT"),
            AppendOnly(name="memory_promptversion_frozen"),
            TenantFK(name="memory_promptversion_prompt", field="prompt", to="memory_prompt"),
        ]
