"""The words of all units made anew, after a tenant has changed how its full text is kept: in batches, from a cursor.

Until a unit's turn has come its words are those of the former setting, and are not found. With full text off, words go
from units that may not be recalled any more too.
"""

from __future__ import annotations

from uuid import UUID

from agentstate.db import sql
from memory.recall import wanted, words
from memory.recall.embedding import Batch

BATCH_UNITS = 200
_REWORD = f"""
UPDATE memory_unit u SET words = {words.PACKED.format(terms="t.terms")}
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) AS g (id, version, words, literal),
  LATERAL (SELECT to_tsvector(%s::regconfig, g.words) || g.literal::tsvector AS terms) t
WHERE u.id = g.id AND u.xmin::text = g.version"""


def target() -> str:
    """What the words of this tenant are to be: the target of its upkeep. One query."""
    how = words.wording()
    return f"{how.mode}:{how.config}"


def reword_batch(cursor: str, *, batch_units: int = BATCH_UNITS) -> Batch:
    """The next batch of units in this tenant. A unit that is written meanwhile has the new words already.

    Asserts a tenant scope. Idempotent. Locks: the units of the batch, while they are written.
    """
    found = wanted.batch(wanted.EVERY, model="", after=_after(cursor), limit=batch_units)
    if found.last is None:
        return Batch("", 0, True)
    how = words.wording()
    made = words.terms([text.text for text in found.texts], how)
    columns = [
        [text.unit_id for text in found.texts],
        [text.version for text in found.texts],
        [terms.words for terms in made],
        [terms.literal for terms in made],
    ]
    return Batch(found.last.hex, sql.execute(_REWORD, [*columns, how.config]), False)


def _after(cursor: str) -> UUID:
    try:
        return UUID(cursor)
    except ValueError:
        return wanted.FIRST
