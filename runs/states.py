"""Statuses of runs, steps and approvals and the transitions that are allowed; the diagrams in docs/ come from here."""

from __future__ import annotations

from django.db.models import TextChoices


class RunStatus(TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    IN_DOUBT = "in_doubt"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepStatus(TextChoices):
    WAITING = "waiting"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    REJECTED = "rejected"
    SKIPPED = "skipped"


class ApprovalStatus(TextChoices):
    PENDING = "pending"
    APPROVED = "approved"
    EDITED = "edited"
    REJECTED = "rejected"
    RESPONDED = "responded"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


# Terminal for counting and retention: a failed run can be resumed by a person, so it is not one of them.
RUN_OVER = frozenset({RunStatus.SUCCEEDED, RunStatus.CANCELLED})
RUN_LIVE = frozenset({RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PAUSED, RunStatus.IN_DOUBT})

RUN_TRANSITIONS: dict[str, frozenset[str]] = {
    RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.CANCELLED, RunStatus.FAILED}),
    RunStatus.RUNNING: frozenset(
        {
            RunStatus.RUNNING,  # taken over: same status, next fence
            RunStatus.QUEUED,  # lease lapsed, slice ended, shutdown
            RunStatus.WAITING,
            RunStatus.PAUSED,
            RunStatus.IN_DOUBT,
            RunStatus.FAILED,
            RunStatus.SUCCEEDED,
            RunStatus.CANCELLED,
        }
    ),
    RunStatus.WAITING: frozenset({RunStatus.QUEUED, RunStatus.PAUSED, RunStatus.CANCELLED, RunStatus.FAILED}),
    RunStatus.PAUSED: frozenset({RunStatus.QUEUED, RunStatus.CANCELLED}),
    RunStatus.IN_DOUBT: frozenset({RunStatus.QUEUED, RunStatus.CANCELLED, RunStatus.FAILED}),
    RunStatus.FAILED: frozenset({RunStatus.QUEUED}),
    RunStatus.SUCCEEDED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}

STEP_TRANSITIONS: dict[str, frozenset[str]] = {
    StepStatus.WAITING: frozenset({StepStatus.STARTED, StepStatus.DONE, StepStatus.REJECTED, StepStatus.SKIPPED}),
    StepStatus.STARTED: frozenset(
        {StepStatus.STARTED, StepStatus.DONE, StepStatus.FAILED, StepStatus.IN_DOUBT}  # started again: next attempt
    ),
    StepStatus.FAILED: frozenset({StepStatus.STARTED, StepStatus.WAITING}),  # waiting: asked anew
    StepStatus.IN_DOUBT: frozenset({StepStatus.DONE, StepStatus.STARTED, StepStatus.FAILED}),
    StepStatus.DONE: frozenset(),
    StepStatus.REJECTED: frozenset(),
    StepStatus.SKIPPED: frozenset(),
}

APPROVAL_TRANSITIONS: dict[str, frozenset[str]] = {
    ApprovalStatus.PENDING: frozenset(
        {
            ApprovalStatus.APPROVED,
            ApprovalStatus.EDITED,
            ApprovalStatus.REJECTED,
            ApprovalStatus.RESPONDED,
            ApprovalStatus.EXPIRED,
            ApprovalStatus.WITHDRAWN,
        }
    )
}
