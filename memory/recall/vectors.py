"""Vectors as they are made, checked and written: at once, or beside those of the model in force until they take effect.

What an embedder answers is believed after checks. A unit that changed since its text was read keeps nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from uuid import UUID

import numpy as np
import structlog

from agentstate.crypto import sealing as crypto
from agentstate.db import sql
from agentstate.llm.embedding import Embedded, Embedder
from agentstate.llm.endpoint import BadAnswer, ModelRefused
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.recall import questions, rows
from memory.recall.wanted import Text

log = structlog.get_logger(__name__)

TOKENS_MAX = 32_767  # of one unit

_GIVEN = """
given AS (SELECT * FROM unnest(%(ids)s::uuid[], %(versions)s::text[], %(vectors)s::text[], %(counts)s::int2[],
  %(bodies)b::bytea[]) AS g (id, version, vector, count, body))"""
KEEP = f"""
WITH {_GIVEN}, kept AS (
  UPDATE memory_unit u SET model = %(model)s, vector = g.vector::vector FROM given g
  WHERE u.id = g.id AND u.xmin::text = g.version RETURNING u.id, u.subject_id, g.count, g.body),
tokens AS (
  INSERT INTO memory_unittokens (unit_id, subject_id, model, count, body)
  SELECT id, subject_id, %(model)s, count, body FROM kept WHERE count > 0
  ON CONFLICT (unit_id) DO UPDATE SET model = excluded.model, count = excluded.count, body = excluded.body),
bare AS (DELETE FROM memory_unittokens t USING kept WHERE t.unit_id = kept.id AND kept.count = 0),
staged AS (DELETE FROM memory_unitstaged s USING kept WHERE s.unit_id = kept.id)
SELECT count(*) FROM kept"""
STAGE = f"""
WITH {_GIVEN}, held AS (
  SELECT u.id, u.subject_id, g.vector, g.count, g.body FROM memory_unit u JOIN given g ON g.id = u.id
  WHERE u.xmin::text = g.version FOR NO KEY UPDATE OF u),
staged AS (
  INSERT INTO memory_unitstaged (unit_id, subject_id, model, vector, count, body)
  SELECT id, subject_id, %(model)s, vector::vector, count, body FROM held
  ON CONFLICT (unit_id) DO UPDATE
    SET model = excluded.model, vector = excluded.vector, count = excluded.count, body = excluded.body)
SELECT count(*) FROM held"""
_SWAP = """
WITH picked AS MATERIALIZED (
  SELECT unit_id FROM memory_unitstaged WHERE model = %(model)s ORDER BY unit_id LIMIT %(limit)s FOR UPDATE),
taken AS (
  DELETE FROM memory_unitstaged s USING picked WHERE s.unit_id = picked.unit_id
  RETURNING s.unit_id, s.subject_id, s.vector, s.count, s.body),
moved AS (UPDATE memory_unit u SET model = %(model)s, vector = t.vector FROM taken t WHERE u.id = t.unit_id),
tokens AS (
  INSERT INTO memory_unittokens (unit_id, subject_id, model, count, body)
  SELECT unit_id, subject_id, %(model)s, count, body FROM taken WHERE count > 0
  ON CONFLICT (unit_id) DO UPDATE SET model = excluded.model, count = excluded.count, body = excluded.body),
bare AS (DELETE FROM memory_unittokens t USING taken WHERE t.unit_id = taken.unit_id AND taken.count = 0)
SELECT count(*) FROM taken"""


def label(embedder: Embedder) -> str:
    """The embedder's model as rows name it. Raises: as embed(), from an endpoint that has not answered yet."""
    return questions.label(embedder.model_id, embedder.dimensions)


Made = list[tuple[Text, Embedded]]


def made(embedder: Embedder, batch: Sequence[Text]) -> Made:
    """The vectors of these texts. May take as long as a model does: hold no transaction meanwhile.

    Asked in the order of length: texts of a batch may be padded to the longest. One by one when they are refused
    together; a text that is refused alone is left without a vector. Raises: what the embedder raises, BadAnswer.
    """
    ordered = sorted(batch, key=lambda text: len(text.text))
    if not ordered:
        return []
    try:
        return list(zip(ordered, _checked(embedder, ordered), strict=True))
    except ModelRefused:
        if len(ordered) == 1:
            log.warning("recall.text_refused", unit=str(ordered[0].unit_id), model=embedder.model_id)
            return []
    singly = [one for text in ordered for one in made(embedder, [text])]
    if not singly:  # it is not the texts
        raise ModelRefused("The embedding model refuses every text.")
    return singly


def write(how: str, embedder: Embedder, made: Made) -> int:
    """KEEP or STAGE them; how many were written: not those whose unit has changed since. Locks: the units."""
    if not made:
        return 0
    owners = keys.several(text.subject_id for text, _ in made)
    made = [(text, one) for text, one in made if text.subject_id in owners]
    bodies = [_sealed(owners[text.subject_id], text.unit_id, one) for text, one in made]
    found = sql.row(
        how,
        {
            "model": label(embedder),
            "ids": [text.unit_id for text, _ in made],
            "versions": [text.version for text, _ in made],
            "vectors": [rows.as_text(one.vector.tolist()) for _, one in made],
            "counts": [one.tokens.count if one.tokens else 0 for _, one in made],
            "bodies": bodies,
        },
    )
    return int(found[0]) if found else 0


def _checked(embedder: Embedder, batch: Sequence[Text]) -> list[Embedded]:
    """Raises: BadAnswer for what cannot be a vector, besides what the embedder raises."""
    made = embedder.embed([text.text for text in batch])
    if len(made) != len(batch):
        raise BadAnswer(f"The embedder gave {len(made)} vectors for {len(batch)} texts.")
    return [_checked_one(one, embedder.dimensions) for one in made]


def _checked_one(one: Embedded, dimensions: int) -> Embedded:
    vector = np.asarray(one.vector, dtype=np.float64)
    if vector.shape != (dimensions,) or not np.isfinite(vector).all() or not vector.any():
        raise BadAnswer(f"The embedder gave something that is not a vector of {dimensions} numbers.")
    if one.tokens is None or not one.tokens.count:
        return Embedded(one.vector, None)
    sizes = (len(one.tokens.ids), len(one.tokens.bits))
    if sizes != (2 * one.tokens.count, math.ceil(dimensions / 8) * one.tokens.count) or one.tokens.count > TOKENS_MAX:
        raise BadAnswer("The embedder's tokens do not fit their number.")
    return one


def _sealed(key: bytes, unit_id: UUID, one: Embedded) -> bytes:
    if one.tokens is None:
        return b""
    bound = crypto.aad(current_tenant(), "memory_unittokens", unit_id)
    return crypto.seal(key, one.tokens.ids + one.tokens.bits, aad=bound, compress=False)


def swap(embedder: Embedder, *, limit: int) -> int:
    """Let staged vectors take effect; how many did."""
    found = sql.row(_SWAP, {"model": label(embedder), "limit": limit})
    return int(found[0]) if found else 0


def drop_staged(embedder: Embedder) -> None:
    """Those of another model: a move that was given up."""
    sql.execute("DELETE FROM memory_unitstaged WHERE model <> %s", [label(embedder)])
