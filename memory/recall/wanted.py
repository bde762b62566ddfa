"""The texts that want a vector: read in the order of their units, opened, and bounded to one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from agentstate.core.clock import now
from agentstate.core.errors import Corrupt
from agentstate.db import sql
from memory import keys, sealing
from memory.recall.units import spoken

log = structlog.get_logger(__name__)

BATCH_CHARS = 100_000  # texts of one batch; a longer one goes alone
FIRST = UUID(int=0)

LIVE = "u.in_recall AND (u.expires_at IS NULL OR u.expires_at > %(now)s)"
EVERY = "TRUE"
OTHER = "u.model NOT IN ('', %(model)s)"
MISSING = f"u.model = '' AND {LIVE}"
REPLACEABLE = f"{OTHER} AND {LIVE}"
UNSTAGED = f"""{REPLACEABLE}
  AND NOT EXISTS (SELECT 1 FROM memory_unitstaged s WHERE s.unit_id = u.id AND s.model = %(model)s)"""
# Index: memory_unit_by_model. xmin: the version of the row whose text is read here.
_WANTED = """
SELECT u.id, u.xmin::text, u.subject_id, u.kind, m.text, m.author_no, a.name, r.version, r.text
FROM memory_unit u
  LEFT JOIN memory_message m ON u.kind = 'message' AND m.id = u.id
  LEFT JOIN memory_author a ON a.subject_id = m.subject_id AND a.no = m.author_no
  LEFT JOIN memory_item i ON u.kind = 'item' AND i.id = u.id
  LEFT JOIN memory_itemrevision r ON r.item_id = i.id AND r.version = i.version
WHERE {which} AND u.id > %(after)s ORDER BY u.id LIMIT %(limit)s"""


@dataclass(frozen=True, slots=True)
class Text:
    """What is to be embedded. `version`: of its unit's row."""

    unit_id: UUID
    version: str
    subject_id: UUID
    text: str


@dataclass(frozen=True, slots=True)
class Texts:
    """One batch in the order of its units. `last`: the unit behind which the next one begins; None: there are none."""

    texts: list[Text]
    last: UUID | None


def batch(which: str, *, model: str, after: UUID, limit: int) -> Texts:
    """The next texts of units for which `which` (a condition of this module) holds."""
    found = sql.rows(_WANTED.format(which=f"({which})"), {"after": after, "now": now(), "limit": limit, "model": model})
    opened = _opened(found)
    taken = _bounded(opened)
    if len(taken) < len(opened):
        return Texts(taken, taken[-1].unit_id)
    return Texts(taken, found[-1][0] if found else None)


def of(unit_ids: Sequence[UUID]) -> list[Text]:
    """The texts of these units, as far as they may be recalled and open."""
    args = {"ids": list(unit_ids), "after": FIRST, "now": now(), "limit": len(unit_ids)}
    return _opened(sql.rows(_WANTED.format(which=f"u.id = ANY (%(ids)s) AND {LIVE}"), args))


def _opened(wanted: Sequence[sql.Row]) -> list[Text]:
    """Those texts that open: an erased subject's do not, and need no vector."""
    owners = keys.several(row[2] for row in wanted)
    opened = (_open(row, owners[row[2]]) for row in wanted if row[2] in owners)
    return [text for text in opened if text is not None]


def _open(row: sql.Row, key: bytes) -> Text | None:
    unit_id, xmin, subject_id, kind, said, author_no, name, version, statement = row
    try:
        if kind == "message" and said is not None:
            author = sealing.open_text(key, "memory_author", f"{subject_id}:{author_no}", name) if name else ""
            text = spoken(sealing.open_text(key, "memory_message", unit_id, said), author)
        elif statement is not None:
            text = sealing.open_text(key, "memory_itemrevision", f"{unit_id}:{version}:text", statement)
        else:
            return None
    except Corrupt:
        log.error("recall.text_corrupt", unit=str(unit_id))
        return None
    return Text(unit_id, xmin, subject_id, text)


def _bounded(batch: Sequence[Text]) -> list[Text]:
    """As many from the start as are not too long together, but one at least."""
    size, taken = 0, list[Text]()
    for text in batch:
        size += len(text.text)
        if taken and size > BATCH_CHARS:
            break
        taken.append(text)
    return taken
