"""Sessions, their messages word for word, and the running summaries over them."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from agentstate.tenants.models import Audited
from agentstate.tenants.security import NeverUpdated, RowSecurity, SweeperReads, TenantFK, TenantModel, TenantOwned
from memory.states import SessionStatus

ROLES = ("user", "assistant", "system", "tool")
IMPORTANCE = ("decision", "commitment", "fact", "routine")
ORIGINS = ("said", "memory", "prompt")  # memory and prompt: our own text come back; never extracted again
LEVELS = ("turn", "segment", "session", "subject")


class Author(TenantOwned):
    """Who speaks in a subject's sessions. Messages hold the number, so that a name is sealed once and only once."""

    pk = models.CompositePrimaryKey("subject_id", "no")
    subject = models.ForeignKey("memory.Subject", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    no = models.SmallIntegerField()
    digest = models.BinaryField(max_length=32)
    name = models.BinaryField()  # sealed

    class Meta:
        constraints = [
            RowSecurity(name="memory_author_rls", grants="SELECT, INSERT, DELETE"),
            NeverUpdated(name="memory_author_frozen"),
            models.UniqueConstraint(fields=["subject", "digest"], name="memory_author_digest"),
            TenantFK(name="memory_author_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
        ]


class Session(Audited, TenantModel):
    """One conversation with a subject. `key` is the session_key of its runs.

    Appending holds this row: message numbers have no holes. Deleted with its subject, or by retention some time after
    it ended: whole, with its messages.
    """

    subject = models.ForeignKey("memory.Subject", on_delete=models.CASCADE, db_constraint=False, related_name="+")
    key = models.CharField(max_length=200)
    agent = models.CharField(max_length=200, default="", blank=True)
    title = models.BinaryField(default=bytes)  # sealed
    status = models.CharField(max_length=8, choices=SessionStatus.choices, default=SessionStatus.OPEN)
    version = models.IntegerField(default=1)  # grows with every undo
    last_seq = models.IntegerField(default=0)
    turns = models.IntegerField(default=0)  # messages of role user that stand
    message_count = models.IntegerField(default=0)  # that stand
    tokens = models.BigIntegerField(default=0)  # of those
    summarised_seq = models.IntegerField(default=0)  # the running summary covers messages up to here
    extracted_seq = models.IntegerField(default=0)  # messages up to here were read for what is worth keeping
    created_at = models.DateTimeField()
    last_active_at = models.DateTimeField()
    idle_s = models.IntegerField(null=True)  # expires so long after last_active_at
    expires_at = models.DateTimeField(null=True)  # and at this moment at the latest
    due_at = models.DateTimeField(null=True)  # the earlier of the two; null: never
    ended_at = models.DateTimeField(null=True)

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "key"], name="memory_session_key"),
            models.CheckConstraint(condition=Q(status__in=SessionStatus.values), name="memory_session_status"),
            TenantFK(name="memory_session_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
            SweeperReads(
                name="memory_session_sweeper",
                columns=["id", "tenant_id", "status", "last_active_at", "idle_s", "expires_at", "due_at"],
            ),
        ]
        indexes = [
            models.Index(fields=["subject", "-last_active_at"], name="memory_session_of_subject"),  # subject's page
            models.Index(fields=["tenant_id", "-last_active_at", "-id"], name="memory_session_recent"),  # the list
            # The upkeep that expires.
            models.Index(fields=["tenant_id", "due_at"], condition=Q(status="open"), name="memory_session_due"),
            # The upkeep that removes.
            models.Index(
                fields=["tenant_id", "ended_at", "id"],
                condition=Q(ended_at__isnull=False),
                name="memory_session_ended",
            ),
            # The upkeep that summarises.
            models.Index(
                fields=["tenant_id", "id"], condition=Q(last_seq__gt=F("summarised_seq")), name="memory_session_untold"
            ),
            # The upkeep that extracts.
            models.Index(
                fields=["tenant_id", "id"], condition=Q(last_seq__gt=F("extracted_seq")), name="memory_session_unread"
            ),
        ]


class Message(TenantModel):
    """One entry of a session, word for word. Written once; an undo marks it, retention or an erasure deletes it."""

    # No index of its own: that of its number begins with it, and each index costs every append.
    session = models.ForeignKey(
        "memory.Session", on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    subject_id = models.UUIDField()
    seq = models.IntegerField()  # 1, 2, 3, ... of the session
    role = models.CharField(max_length=10)
    author_no = models.SmallIntegerField()
    text = models.BinaryField()  # sealed with the subject's key
    tokens = models.IntegerField()
    bytes = models.IntegerField()  # of the text
    importance = models.CharField(max_length=10, default="routine")
    origin = models.CharField(max_length=6, default="said")
    outcome = models.CharField(max_length=40, default="", blank=True)  # what became of it: answered, refunded, ...
    client_id = models.CharField(max_length=200, null=True)  # the sender's own id: sent twice, kept once
    run_id = models.UUIDField(null=True)
    step_seq = models.IntegerField(null=True)
    sent_at = models.DateTimeField()
    recorded_at = models.DateTimeField()
    undone_in = models.IntegerField(null=True)  # the session's version that took it back

    class Meta(TenantModel.Meta):
        constraints = [
            RowSecurity(
                name="memory_message_rls", grants="SELECT, INSERT, DELETE, UPDATE (undone_in, outcome, importance)"
            ),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="memory_message_tenant_id"),
            NeverUpdated(
                name="memory_message_words", columns=["text", "seq", "role", "author_no", "origin", "sent_at"]
            ),
            models.UniqueConstraint(fields=["session", "seq"], name="memory_message_seq"),  # tail and ranges
            models.UniqueConstraint(
                fields=["session", "client_id"], condition=Q(client_id__isnull=False), name="memory_message_client_id"
            ),
            models.CheckConstraint(condition=Q(role__in=ROLES), name="memory_message_role"),
            models.CheckConstraint(condition=Q(importance__in=IMPORTANCE), name="memory_message_importance"),
            models.CheckConstraint(condition=Q(origin__in=ORIGINS), name="memory_message_origin"),
            TenantFK(name="memory_message_session", field="session", to="memory_session", on_delete="CASCADE"),
        ]
        indexes = [
            models.Index(fields=["subject_id", "sent_at"], name="memory_message_time"),  # by time range; erasure
            models.Index(fields=["run_id"], condition=Q(run_id__isnull=False), name="memory_message_run"),
        ]


class Summary(TenantModel):
    """A shorter telling of messages or of other summaries; immutable, the newest of its level and range counts."""

    subject = models.ForeignKey(
        "memory.Subject", on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    session = models.ForeignKey(
        "memory.Session", null=True, on_delete=models.CASCADE, db_constraint=False, related_name="+"
    )
    level = models.CharField(max_length=8)
    from_seq = models.IntegerField(default=0)
    to_seq = models.IntegerField(default=0)
    session_version = models.IntegerField(default=1)  # an undo makes summaries over the undone part stale
    text = models.BinaryField()  # sealed
    tokens = models.IntegerField()
    source_ids = ArrayField(models.UUIDField(), default=list)  # messages or summaries it was made of
    method = models.CharField(max_length=120)  # extractive, or the model's name
    stale = models.BooleanField(default=False)  # replaced, or its sources were undone
    run_id = models.UUIDField(null=True)
    created_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        constraints = [
            RowSecurity(name="memory_summary_rls", grants="SELECT, INSERT, DELETE, UPDATE (stale)"),
            models.UniqueConstraint(fields=["tenant_id", "id"], name="memory_summary_tenant_id"),
            models.CheckConstraint(condition=Q(level__in=LEVELS), name="memory_summary_level"),
            TenantFK(name="memory_summary_session", field="session", to="memory_session", on_delete="CASCADE"),
            # One over several sessions has none: whoever writes it while its subject is erased must fail.
            TenantFK(name="memory_summary_of_subject", field="subject", to="memory_subject", on_delete="CASCADE"),
        ]
        indexes = [
            # The running summary of a session, and its segments.
            models.Index(fields=["session", "level", "-to_seq"], condition=Q(stale=False), name="memory_summary_new"),
            # What was told of a session up to a place, replaced ones included.
            models.Index(fields=["session", "level", "to_seq"], name="memory_summary_so_far"),
            models.Index(fields=["subject", "level", "-created_at"], name="memory_summary_subject"),
        ]
