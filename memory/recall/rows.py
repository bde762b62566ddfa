"""What recall reads: all units of a subject (or of the tenant) as columns, in one statement, and the tokens of some.

The statement has no LIMIT: whatever is cut before all signals have met is lost by accident. Columns come as bytes that
numpy reads as they are: five thousand rows as Python objects would cost more than their arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from agentstate.core.errors import Corrupt
from agentstate.crypto import sealing
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.recall.ranking import Tokens, Units

BITS_PER_BYTE = 8
ID_BYTES = 2  # of a token

# One row: a bytea a column, units in one order in all of them. RLS adds the tenant. Index: memory_unit_of_subject.
# A lexeme of the question that a unit holds becomes 4 bytes: 256 * its place in the question (from 1) + how often.
_UNITS = """
WITH s AS (
  SELECT u.id, u.subject_id, u.kind = 'item' AS is_item, coalesce(u.session_id, u.id) AS session, u.seq,
    u.author_no, u.sent_at, u.term_count, u.importance,
    {similarity} AS sim, {number} AS model, u.model AS name, coalesce({eligible}, FALSE) AS eligible,
    CASE WHEN u.terms @@ %(query)s::tsquery THEN (
      SELECT string_agg(int4send(256 * array_position(%(lexemes)s::text[], x.lexeme)
        + least(coalesce(array_length(x.positions, 1), 1), 255)), ''::bytea)
      FROM unnest(u.terms) AS x WHERE x.lexeme = ANY (%(lexemes)s::text[])) END AS hits
  FROM memory_unit u
  WHERE {of} AND u.in_recall AND (u.expires_at IS NULL OR u.expires_at > %(now)s)
)
SELECT string_agg(uuid_send(id), ''::bytea), string_agg(uuid_send(subject_id), ''::bytea),
  string_agg(boolsend(is_item), ''::bytea), string_agg(uuid_send(session), ''::bytea),
  string_agg(int4send(seq), ''::bytea), string_agg(int2send(author_no), ''::bytea),
  string_agg(float8send(extract(epoch FROM sent_at)::float8), ''::bytea), string_agg(int4send(term_count), ''::bytea),
  string_agg(float4send(importance::float4), ''::bytea), string_agg(float8send(coalesce(sim, 'NaN')), ''::bytea),
  string_agg(int2send(model::int2), ''::bytea), string_agg(boolsend(eligible), ''::bytea),
  string_agg(int4send(coalesce(octet_length(hits), 0) / 4), ''::bytea), string_agg(hits, ''::bytea),
  array_agg(DISTINCT name) FILTER (WHERE model < 0 AND name <> '')
FROM s"""
_ELIGIBLE = """
u.kind = ANY (%(kinds)s) AND (%(session)s::uuid IS NULL OR u.session_id = %(session)s)
AND (%(authors)s::int2[] IS NULL OR (u.kind = 'message' AND u.author_no = ANY (%(authors)s)))
AND (%(after)s::timestamptz IS NULL OR u.sent_at >= %(after)s)
AND (%(before)s::timestamptz IS NULL OR u.sent_at < %(before)s)
AND (%(at)s::timestamptz IS NULL OR u.sent_at <= %(at)s)
AND (u.valid_from IS NULL OR u.valid_from <= coalesce(%(at)s, %(now)s))
AND (u.valid_to IS NULL OR u.valid_to > coalesce(%(at)s, %(now)s))
AND (%(namespace)s = '' OR u.namespace = %(namespace)s OR starts_with(u.namespace, %(namespace)s || '/'))"""
_OF_TENANT = "u.subject_id NOT IN (SELECT id FROM memory_subject WHERE status = 'erasing')"
_TOKENS = "SELECT unit_id, subject_id, model, count, body FROM memory_unittokens WHERE unit_id = ANY (%s)"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which units may be answered. `at`: what was known and held true at that moment. Times: from `after`, up to but
    without `before`."""

    now: datetime
    kinds: tuple[str, ...] = ("message", "item")
    session_id: UUID | None = None
    authors: tuple[int, ...] | None = None
    after: datetime | None = None
    before: datetime | None = None
    at: datetime | None = None
    namespace: str = ""


@dataclass(frozen=True)
class Found:
    """`ids`: of the units, in the order of their columns. `strangers`: models whose vectors nobody asked for."""

    units: Units
    ids: NDArray[np.void]
    subjects: NDArray[np.void]
    sessions: NDArray[np.void]
    is_item: NDArray[np.bool_]
    strangers: tuple[str, ...]

    def id(self, place: int) -> UUID:
        return UUID(bytes=self.ids[place].tobytes())

    def subject_id(self, place: int) -> UUID:
        return UUID(bytes=self.subjects[place].tobytes())

    def sent_at(self, place: int) -> datetime:
        """Exact: a double holds the microseconds of this century."""
        return datetime.fromtimestamp(float(self.units.sent_at[place]), UTC)

    def session_id(self, place: int) -> UUID | None:
        """A unit without a session stands under its own id."""
        session = self.sessions[place].tobytes()
        return None if session == self.ids[place].tobytes() else UUID(bytes=session)


@dataclass(frozen=True, slots=True)
class Vector:
    """The question in the space of one model. `model`: as it stands in the rows."""

    model: str
    values: Sequence[float]


def units(
    subject_id: UUID | None, *, lexemes: Sequence[str], query: str, vectors: Sequence[Vector], filters: Filters
) -> Found:
    """All units of the subject that may be recalled; of the whole tenant when it is None. One statement."""
    args: dict[str, Any] = {
        "subject": subject_id,
        "lexemes": list(lexemes),
        "query": query,
        "now": filters.now,
        "kinds": list(filters.kinds),
        "session": filters.session_id,
        "authors": list(filters.authors) if filters.authors is not None else None,
        "after": filters.after,
        "before": filters.before,
        "at": filters.at,
        "namespace": filters.namespace,
    }
    for n, vector in enumerate(vectors):
        args[f"model{n}"], args[f"vector{n}"] = vector.model, as_text(vector.values)
    statement = _UNITS.format(
        similarity=_cases("1 - (u.vector <=> %(vector{n})s::vector)", "NULL::float8", len(vectors)),
        number=_cases("{n}", "-1", len(vectors)),
        eligible=_ELIGIBLE,
        of=_OF_TENANT if subject_id is None else "u.subject_id = %(subject)s",
    )
    row = sql.row(statement, args, binary=True)
    assert row is not None
    return _found([bytes(column) if column is not None else b"" for column in row[:-1]], row[-1], len(lexemes))


def tokens(unit_ids: Sequence[UUID], *, model: str, dimensions: int) -> dict[UUID, Tokens]:
    """Ids and packed sign bits of those units that have tokens of this model. Those that do not open are left out."""
    found = [row for row in sql.rows(_TOKENS, [list(unit_ids)], binary=True) if row[2] == model and row[3] > 0]
    opened = keys.several(subject_id for _, subject_id, _, _, _ in found)
    tenant_id, out = current_tenant(), {}
    for unit_id, subject_id, _, count, body in found:
        if subject_id not in opened:
            continue
        bound = sealing.aad(tenant_id, "memory_unittokens", unit_id)
        try:
            plain = sealing.unseal(opened[subject_id], body, aad=bound)
        except Corrupt:
            continue
        if len(plain) == count * (ID_BYTES + dimensions // BITS_PER_BYTE):
            out[unit_id] = _split(plain, count)
    return out


def as_text(values: Sequence[float]) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(map(repr, map(float, values))) + "]"


def _split(plain: bytes, count: int) -> Tokens:
    ids = np.frombuffer(plain, dtype="<u2", count=count)
    return ids, np.frombuffer(plain, dtype=np.uint8, offset=count * ID_BYTES).reshape(count, -1)


def _cases(then: str, otherwise: str, count: int) -> str:
    if not count:
        return otherwise
    cases = " ".join(f"WHEN %(model{n})s THEN {then.format(n=n)}" for n in range(count))
    return f"CASE u.model {cases} ELSE {otherwise} END"


def _found(columns: Sequence[bytes], strangers: Sequence[str] | None, lexemes: int) -> Found:
    ids, subjects, is_item, sessions, seq, author, sent_at, length, importance, sim, model, eligible, counts, hits = (
        columns
    )
    halves = np.frombuffer(ids, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    _, session = np.unique(np.frombuffer(sessions, dtype=[("high", ">u8"), ("low", ">u8")]), return_inverse=True)
    hit = np.frombuffer(hits, dtype=">i4").astype(np.int64)
    read = Units(
        high=halves[:, 0],
        low=halves[:, 1],
        session=session.astype(np.int64).reshape(-1),
        seq=np.frombuffer(seq, dtype=">i4").astype(np.int64),
        author=np.frombuffer(author, dtype=">i2").astype(np.int64),
        sent_at=np.frombuffer(sent_at, dtype=">f8").astype(np.float64),
        length=np.frombuffer(length, dtype=">i4").astype(np.float64),
        importance=np.frombuffer(importance, dtype=">f4").astype(np.float64),
        model=np.frombuffer(model, dtype=">i2").astype(np.int64),
        sim=np.frombuffer(sim, dtype=">f8").astype(np.float64),
        eligible=np.frombuffer(eligible, dtype=np.bool_),
        hit_unit=np.repeat(np.arange(len(halves)), np.frombuffer(counts, dtype=">i4")),
        hit_lexeme=hit // 256 - 1,
        hit_tf=(hit % 256).astype(np.float64),
        lexemes=lexemes,
    )
    of_ids, of_subjects, of_sessions = (np.frombuffer(column, dtype="V16") for column in (ids, subjects, sessions))
    return Found(read, of_ids, of_subjects, of_sessions, np.frombuffer(is_item, dtype=np.bool_), tuple(strangers or ()))
