"""What we hold about one subject, and why: the page that can be printed and handed over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import OuterRef, Subquery

from agentstate.core.ids import public_id
from agentstate.db import sql
from memory.models import ItemRevision, Session, Summary
from memory.selectors import shelf
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemRow

ITEMS_MAX = 500
SESSIONS_MAX = 200
SUMMARIES_MAX = 100

# Each by its index of the subject.
COUNTS = """
select (select count(*) from memory_proposal where subject_id = %s and status = 'pending'),
  (select count(*) from memory_recallquestion where subject_id = %s),
  (select count(*) from memory_progress where subject_id = %s),
  (select count(*) from memory_unit where subject_id = %s),
  (select count(distinct run_id) from memory_injection where subject_id = %s),
  (select count(distinct call_id) from memory_injection where subject_id = %s),
  (select count(*) from memory_item where subject_id = %s)
"""


@dataclass(frozen=True, slots=True)
class Held:
    """One item with how it came to be known."""

    item: ItemRow
    change: str
    by: str
    by_kind: str
    reason: str

    @property
    def run(self) -> str:
        return public_id("run", self.item.source_run_id) if self.item.source_run_id else ""


@dataclass(frozen=True, slots=True)
class HeldSession:
    id: UUID
    title: str
    agent: str
    status: str
    messages: int
    created_at: datetime
    last_active_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("session", self.id)


@dataclass(frozen=True, slots=True)
class HeldSummary:
    level: str
    text: str
    method: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Counts:
    proposals: int
    questions: int
    documents: int
    units: int
    runs: int
    calls: int
    items: int


def items(subject_id: UUID, words: Words) -> list[Held]:
    """In use first, then the rest, newest first; at most ITEMS_MAX. One read."""
    first = ItemRevision.objects.filter(item_id=OuterRef("id")).order_by("version")
    found = shelf.with_words().annotate(
        first_version=Subquery(first.values("version")[:1]),
        change=Subquery(first.values("change")[:1]),
        by=Subquery(first.values("actor_name")[:1]),
        by_kind=Subquery(first.values("actor_kind")[:1]),
        reason=Subquery(first.values("reason")[:1]),
    )
    rows = found.filter(subject_id=subject_id).order_by("status", "-pinned", "-updated_at")[:ITEMS_MAX]
    return [
        Held(
            shelf.row_of(row, words),
            row.change,
            row.by,
            row.by_kind,
            words.text("memory_itemrevision", f"{row.id}:{row.first_version}:reason", row.reason),
        )
        for row in rows
    ]


def sessions(subject_id: UUID, words: Words) -> list[HeldSession]:
    """Index: memory_session_of_subject."""
    found = Session.objects.filter(subject_id=subject_id).order_by("-last_active_at")[:SESSIONS_MAX]
    return [
        HeldSession(
            row.id,
            words.text("memory_session", row.id, row.title) or row.key,
            row.agent,
            row.status,
            row.message_count,
            row.created_at,
            row.last_active_at,
        )
        for row in found
    ]


def summaries(subject_id: UUID, words: Words) -> list[HeldSummary]:
    """Those in force. Index: memory_summary_subject."""
    found = Summary.objects.filter(subject_id=subject_id, stale=False).order_by("level", "-created_at")
    return [
        HeldSummary(row.level, words.text("memory_summary", row.id, row.text), row.method, row.created_at)
        for row in found[:SUMMARIES_MAX]
    ]


def counts(subject_id: UUID) -> Counts:
    found = sql.row(COUNTS, [subject_id] * 7)
    assert found is not None
    return Counts(*found)
