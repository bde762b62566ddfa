"""Every status of the tier and the transitions that are allowed. docs/STATES.md is generated from this."""

from __future__ import annotations

from django.db import models


class SubjectStatus(models.TextChoices):
    ACTIVE = "active"
    ERASING = "erasing"  # nothing is written or recalled any more; the rows go


class SessionStatus(models.TextChoices):
    OPEN = "open"
    CLOSED = "closed"  # by its agent or a person
    EXPIRED = "expired"  # idle too long, or too old


class ItemStatus(models.TextChoices):
    ACTIVE = "active"  # may be recalled
    OVER_CAP = "over_cap"  # left recall when the subject's cap was reached; consolidation merges or drops it
    EXPIRED = "expired"
    SUPERSEDED = "superseded"  # by another item, after a person or a policy accepted the proposal
    FORGOTTEN = "forgotten"  # by a person or the agent; its revisions stay until retention or an erasure


class ProposalStatus(models.TextChoices):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"  # what it was about has changed or gone


SUBJECT_TRANSITIONS: dict[str, frozenset[str]] = {
    SubjectStatus.ACTIVE: frozenset({SubjectStatus.ERASING}),
    SubjectStatus.ERASING: frozenset(),
}
SESSION_TRANSITIONS: dict[str, frozenset[str]] = {
    SessionStatus.OPEN: frozenset({SessionStatus.CLOSED, SessionStatus.EXPIRED}),
    SessionStatus.CLOSED: frozenset({SessionStatus.OPEN}),
    SessionStatus.EXPIRED: frozenset({SessionStatus.OPEN}),
}
ITEM_TRANSITIONS: dict[str, frozenset[str]] = {
    ItemStatus.ACTIVE: frozenset(
        {ItemStatus.OVER_CAP, ItemStatus.EXPIRED, ItemStatus.SUPERSEDED, ItemStatus.FORGOTTEN}
    ),
    ItemStatus.OVER_CAP: frozenset(
        {ItemStatus.ACTIVE, ItemStatus.EXPIRED, ItemStatus.SUPERSEDED, ItemStatus.FORGOTTEN}
    ),
    ItemStatus.EXPIRED: frozenset({ItemStatus.ACTIVE, ItemStatus.FORGOTTEN}),
    ItemStatus.SUPERSEDED: frozenset({ItemStatus.ACTIVE, ItemStatus.FORGOTTEN}),
    ItemStatus.FORGOTTEN: frozenset({ItemStatus.ACTIVE}),
}
PROPOSAL_TRANSITIONS: dict[str, frozenset[str]] = {
    ProposalStatus.PENDING: frozenset({ProposalStatus.ACCEPTED, ProposalStatus.REJECTED, ProposalStatus.WITHDRAWN}),
    ProposalStatus.ACCEPTED: frozenset(),
    ProposalStatus.REJECTED: frozenset(),
    ProposalStatus.WITHDRAWN: frozenset(),
}
