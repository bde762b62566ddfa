"""Summaries, opened: the running one of a session, its segments and turns, that of a subject."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Case, Exists, OuterRef, Value, When

from agentstate.core.ids import public_id
from memory import keys
from memory.models import Message, Summary
from memory.selectors.opening import Words


@dataclass(frozen=True, slots=True)
class OpenedSummary:
    id: UUID
    subject_id: UUID
    session_id: UUID | None
    level: str
    from_seq: int
    to_seq: int
    session_version: int
    text: str
    tokens: int
    source_ids: list[UUID]
    method: str
    stale: bool
    created_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("summary", self.id)


def running(session_id: UUID, *, words: Words | None = None) -> OpenedSummary | None:
    """The session so far, as far as it is summarised. `words`: of its subject. Index: memory_summary_new."""
    found = Summary.objects.filter(session_id=session_id, level="session", stale=False)
    return _first(found.order_by("-to_seq", "-id")[:1], words)


def parts(session_id: UUID, level: str, *, above_seq: int = 0, rows_max: int = 200) -> list[OpenedSummary]:
    """Segments or turns that begin above this number, the newest `rows_max`, the oldest first."""
    found = Summary.objects.filter(session_id=session_id, level=level, stale=False, from_seq__gt=above_seq)
    # Index: memory_summary_new.
    return opened(found.order_by("-to_seq")[:rows_max])[::-1]


def so_far(
    session_id: UUID, version: int, *, from_seq: int, words: Words, rows_max: int = 8
) -> list[tuple[OpenedSummary, bool]]:
    """What was told of the session up to here or a little further, the shortest first, and whether it still holds.

    A running summary that was replaced by a later one still tells its part; one over messages that were taken back
    does not. `version`: the session's. Index: memory_summary_so_far.
    """
    undone = Message.objects.filter(
        session_id=OuterRef("session_id"), seq__lte=OuterRef("to_seq"), undone_in__gt=OuterRef("session_version")
    )
    found = Summary.objects.filter(session_id=session_id, level="session", to_seq__gte=from_seq)
    # Without an undo since it was made there is nothing to look for.
    found = found.annotate(holds=Case(When(session_version=version, then=Value(True)), default=~Exists(undone)))
    rows = list(found.order_by("to_seq", "id")[:rows_max])
    return [(summary, bool(row.holds)) for summary, row in zip(opened(rows, words), rows, strict=True)]


def near_and_far(session_id: UUID, *, words: Words, rows_max: int = 200) -> list[OpenedSummary]:
    """The newest turns and the newest segments, `rows_max` of each, in one read. Index: memory_summary_new."""
    mine = Summary.objects.filter(session_id=session_id, stale=False)
    turns, segments = (mine.filter(level=level).order_by("-to_seq")[:rows_max] for level in ("turn", "segment"))
    return opened(turns.union(segments, all=True), words)


def of_subject(subject_id: UUID) -> OpenedSummary | None:
    """What its sessions have come to. Index: memory_summary_subject."""
    found = Summary.objects.filter(subject_id=subject_id, level="subject", stale=False)
    return _first(found.order_by("-created_at", "-id")[:1])


def of_session(session_id: UUID, *, with_stale: bool = False, rows_max: int = 200) -> list[OpenedSummary]:
    """All levels, the newest first: the session's page."""
    found = Summary.objects.filter(session_id=session_id)
    found = found if with_stale else found.filter(stale=False)
    return opened(found.order_by("-id")[:rows_max])


def some(summary_ids: Iterable[UUID]) -> dict[UUID, OpenedSummary]:
    """Stale ones too: a context that was given one can still show it."""
    return {summary.id: summary for summary in opened(Summary.objects.filter(id__in=list(summary_ids)))}


def opened(found: Iterable[Summary], words: Words | None = None) -> list[OpenedSummary]:
    """One read of keys, none when `words` of their subject are given."""
    rows = list(found)
    opened_keys = keys.several(row.subject_id for row in rows) if words is None else {}
    return [
        OpenedSummary(
            text=(words or Words(opened_keys.get(row.subject_id))).text("memory_summary", row.id, row.text),
            **{name: getattr(row, name) for name in _PLAIN},
        )
        for row in rows
    ]


def _first(found: Iterable[Summary], words: Words | None = None) -> OpenedSummary | None:
    return next(iter(opened(found, words)), None)


_PLAIN = [name for name in OpenedSummary.__dataclass_fields__ if name != "text"]
