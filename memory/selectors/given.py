"""One call made for a session and all it was given, word for word, in three reads whatever it was made of."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from agentstate.core.errors import NotFound
from agentstate.db import sql
from memory import keys
from memory.models import Injection
from memory.selectors import removed
from memory.selectors.ledger import Call, Line
from memory.selectors.opening import Words

# Each branch by a primary key. The owner is whose key sealed the words.
WORDS = """
WITH wanted AS (SELECT * FROM unnest(%s::text[], %s::uuid[], %s::int[]) AS w(source, id, version))
SELECT w.source, w.id, w.version, r.subject_id, r.text, NULL::uuid, 0 FROM wanted w
  JOIN memory_itemrevision r ON r.item_id = w.id AND r.version = w.version WHERE w.source = 'item'
UNION ALL SELECT w.source, w.id, w.version, m.subject_id, m.text, m.session_id, m.seq FROM wanted w
  JOIN memory_message m ON m.id = w.id WHERE w.source = 'message'
UNION ALL SELECT w.source, w.id, w.version, s.subject_id, s.text, NULL, 0 FROM wanted w
  JOIN memory_summary s ON s.id = w.id WHERE w.source = 'summary'
UNION ALL SELECT w.source, w.id, w.version, coalesce(p.subject_id, p.id), v.body, NULL, 0 FROM wanted w
  JOIN memory_progress p ON p.id = w.id JOIN memory_progressversion v ON v.progress_id = p.id AND v.version = w.version
  WHERE w.source = 'progress'
UNION ALL SELECT w.source, w.id, w.version, p.id, v.body, NULL, 0 FROM wanted w
  JOIN memory_prompt p ON p.id = w.id JOIN memory_promptversion v ON v.prompt_id = p.id AND v.version = w.version
  WHERE w.source = 'prompt'
"""
TABLES = {
    "item": ("memory_itemrevision", "{id}:{version}:text"),
    "message": ("memory_message", "{id}"),
    "summary": ("memory_summary", "{id}"),
    "progress": ("memory_progressversion", "{id}:{version}:body"),
    "prompt": ("memory_promptversion", "{id}:{version}:body"),
}


class Spoken(NamedTuple):
    """Words, and of a message where they were said."""

    text: str
    session_id: UUID | None = None
    seq: int = 0


_SILENT = Spoken("")


def call(session_id: UUID, call_id: UUID) -> Call:
    """Raises: NotFound."""
    # Index: memory_injection_session.
    rows = list(Injection.objects.filter(session_id=session_id, call_id=call_id).order_by("position"))
    if not rows:
        raise NotFound("There is no such call in this session.")
    words = _words({(row.source, row.source_id, row.version) for row in rows})
    first = rows[0]
    gone = removed.why_gone([row for row in rows if (row.source, row.source_id, row.version) not in words])
    lines = [
        _line(row, words.get((row.source, row.source_id, row.version), _SILENT), gone.get(row.id, "")) for row in rows
    ]
    return Call(call_id, first.run_id, first.step_seq, session_id, first.at, lines)


def _words(places: set[tuple[str, UUID, int]]) -> dict[tuple[str, UUID, int], Spoken]:
    """What can still be read of these, by source, id and version."""
    sources, ids, versions = (list(column) for column in zip(*places, strict=True))
    found = sql.rows(WORDS, [sources, ids, versions])
    opened = keys.several({row[3] for row in found})
    words = {}
    for source, id, version, owner_id, sealed, session_id, seq in found:
        if owner_id in opened:
            table, place = TABLES[source]
            text = Words(opened[owner_id]).text(table, place.format(id=id, version=version), sealed)
            words[source, id, version] = Spoken(text, session_id, seq)
    return words


def _line(row: Injection, words: Spoken, gone: str) -> Line:
    return Line(
        position=row.position,
        part=row.part,
        source=row.source,
        source_id=row.source_id,
        version=row.version,
        text=words.text.partition("\n")[0] if row.masked else words.text,
        gone=gone,
        tokens=row.tokens,
        score=row.score,
        scores={name: float(value) for name, value in row.scores.items()},
        masked=row.masked,
        subject_id=row.subject_id,
        session_id=row.session_id,
        at=row.at,
        spoken_in=words.session_id,
        seq=words.seq,
    )
