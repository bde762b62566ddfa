"""Summaries, opened: the running one of a session, its segments and turns, that of a subject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from agentstate.core.ids import public_id
from agentstate.db import sql
from memory import keys
from memory.models import Summary
from memory.selectors.opening import Words

SO_FAR_ROWS = 4
_COLUMNS = "s.id, s.subject_id, s.level, s.from_seq, s.to_seq, s.tokens"
# Index: memory_summary_so_far. Without an undo since it was made there is nothing to look for.
SO_FAR = f"""
SELECT {_COLUMNS}, s.text, s.session_version = %(version)s OR NOT EXISTS (
  SELECT 1 FROM memory_message m
  WHERE m.session_id = s.session_id AND m.seq <= s.to_seq AND m.undone_in > s.session_version)
FROM memory_summary s WHERE s.session_id = %(session)s AND s.level = 'session' AND s.to_seq >= %(from_seq)s
ORDER BY s.to_seq, s.id LIMIT %(rows)s
"""
_TEXTS = "SELECT id, text FROM memory_summary WHERE id = ANY(%s)"
_NEWEST = f"""
(SELECT {_COLUMNS} FROM memory_summary s WHERE s.session_id = %(session)s AND s.level = '{{level}}' AND NOT s.stale
 ORDER BY s.to_seq DESC LIMIT %(rows)s)
"""
# Index: memory_summary_new.
NEAR_AND_FAR = f"{_NEWEST.format(level='turn')} UNION ALL {_NEWEST.format(level='segment')}"


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


@dataclass(slots=True)
class SealedSummary:
    """A summary that is opened when its text is asked for: of many that could be used, few are.

    `sealed`: nothing, until with_texts() has read it.
    """

    words: Words
    id: UUID
    subject_id: UUID
    level: str
    from_seq: int
    to_seq: int
    tokens: int
    sealed: bytes = b""

    @property
    def text(self) -> str:
        return self.words.text("memory_summary", self.id, self.sealed)


def running(session_id: UUID) -> OpenedSummary | None:
    """The session so far, as far as it is summarised. Index: memory_summary_new."""
    found = Summary.objects.filter(session_id=session_id, level="session", stale=False)
    return _first(found.order_by("-to_seq", "-id")[:1])


def parts(session_id: UUID, level: str, *, above_seq: int = 0, rows_max: int = 200) -> list[OpenedSummary]:
    """Segments or turns that begin above this number, the newest `rows_max`, the oldest first."""
    found = Summary.objects.filter(session_id=session_id, level=level, stale=False, from_seq__gt=above_seq)
    # Index: memory_summary_new.
    return opened(found.order_by("-to_seq")[:rows_max])[::-1]


def so_far(session_id: UUID, version: int, *, from_seq: int, words: Words) -> list[tuple[SealedSummary, bool]]:
    """What was told of the session up to here or a little further, the shortest first, and whether it still holds.

    A running summary that was replaced by a later one still tells its part; one over messages that were taken back
    does not. `version`: the session's.
    """
    args = {"session": session_id, "version": version, "from_seq": from_seq, "rows": SO_FAR_ROWS}
    found = sql.rows(SO_FAR, args, binary=True)
    return [(SealedSummary(words, *row), bool(holds)) for *row, holds in found]


def near_and_far(session_id: UUID, *, words: Words, rows_max: int = 200) -> list[SealedSummary]:
    """The newest turns and the newest segments, `rows_max` of each, in one read; their texts are not read yet."""
    found = sql.rows(NEAR_AND_FAR, {"session": session_id, "rows": rows_max}, binary=True)
    return [SealedSummary(words, *row) for row in found]


def with_texts(chosen: Sequence[SealedSummary]) -> list[SealedSummary]:
    """Those whose text was not read yet, with it. One statement; none for none."""
    if not chosen:
        return []
    found = sql.rows(_TEXTS, [[one.id for one in chosen]], binary=True)
    texts: dict[UUID, bytes] = {row[0]: row[1] for row in found}
    return [replace(one, sealed=texts.get(one.id, b"")) for one in chosen]


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


def opened(found: Iterable[Summary]) -> list[OpenedSummary]:
    """One read of keys."""
    rows = list(found)
    opened_keys = keys.several(row.subject_id for row in rows)
    return [
        OpenedSummary(
            text=Words(opened_keys.get(row.subject_id)).text("memory_summary", row.id, row.text),
            **{name: getattr(row, name) for name in _PLAIN},
        )
        for row in rows
    ]


def _first(found: Iterable[Summary]) -> OpenedSummary | None:
    return next(iter(opened(found)), None)


_PLAIN = [name for name in OpenedSummary.__dataclass_fields__ if name != "text"]
