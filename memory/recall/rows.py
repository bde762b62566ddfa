"""What recall reads: all units of a subject (or of the tenant) as columns, in one statement, and the tokens of some.

The statement has no LIMIT: whatever is cut before all signals have met is lost by accident. Columns come as bytes that
numpy reads as they are: five thousand rows as Python objects would cost more than their arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
from memory.recall.words import quoted

BITS_PER_BYTE = 8
ID_BYTES = 2  # of a token

# One row: an array a column, units in one order in all of them. RLS adds the tenant. Index: memory_unit_of_subject.
# Terms of units that match are read here: unnest() of a tsvector costs five times as much as its text.
_UNITS = """
SELECT {columns},
  array_agg(CASE WHEN u.terms @@ %(query)s::tsquery THEN u.terms::text END),
  array_agg(DISTINCT u.model) FILTER (WHERE {number} < 0 AND u.model <> '')
FROM memory_unit u
WHERE {of} AND u.in_recall AND (u.expires_at IS NULL OR u.expires_at > %(now)s)"""
_COLUMNS = (  # each with its type in the binary form of an array
    ("u.id", "V16"),
    ("u.subject_id", "V16"),
    ("coalesce(u.session_id, u.id)", "V16"),
    ("u.kind = 'item'", "?"),
    ("u.seq", ">i4"),
    ("u.author_no", ">i2"),
    ("u.sent_at", ">i8"),  # microseconds since 2000
    ("u.term_count", ">i4"),
    ("u.importance", ">f8"),
    ("coalesce({similarity}, 'NaN')", ">f8"),
    ("{number}", ">i4"),
    ("coalesce({eligible}, FALSE)", "?"),
)
POSITIONS = re.compile(r"[^ \n]*")
ARRAY_HEADER_BYTES = 20  # dimensions, flags, type, length, lower bound; then each element behind its size
SECONDS_TO_2000 = 946_684_800
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
    parts = {
        "similarity": _cases("1 - (u.vector <=> %(vector{n})s::vector)", "NULL::float8", len(vectors)),
        "number": _cases("{n}", "-1", len(vectors)),
        "eligible": _ELIGIBLE,
    }
    columns = ", ".join(f"array_send(array_agg({expression.format(**parts)}))" for expression, _ in _COLUMNS)
    of = _OF_TENANT if subject_id is None else "u.subject_id = %(subject)s"
    row = sql.row(_UNITS.format(columns=columns, number=parts["number"], of=of), args, binary=True)
    assert row is not None
    *arrays, terms, strangers = row
    return _read([_column(*one) for one in zip(arrays, _COLUMNS, strict=True)], terms or [], lexemes, strangers)


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


def _column(array: bytes | None, column: tuple[str, str]) -> NDArray[Any]:
    """The elements of an array of Postgres in binary form, none of them null."""
    of = np.dtype([("size", ">i4"), ("value", column[1])])
    if array is None:
        return np.zeros(0, dtype=of)["value"]
    return np.frombuffer(array, dtype=of, offset=ARRAY_HEADER_BYTES)["value"].copy()


def _read(
    columns: Sequence[NDArray[Any]],
    terms: Sequence[str | None],
    lexemes: Sequence[str],
    strangers: Sequence[str] | None,
) -> Found:
    ids, subjects, sessions, is_item, seq, author, sent_at, length, importance, sim, model, eligible = columns
    halves = ids.view(">u8").astype(np.uint64).reshape(-1, 2)
    hits = np.array(_hits(terms, lexemes), dtype=np.int64).reshape(-1, 3)
    read = Units(
        high=halves[:, 0],
        low=halves[:, 1],
        session=_numbered(sessions),
        seq=seq.astype(np.int64),
        author=author.astype(np.int64),
        sent_at=sent_at / 1e6 + SECONDS_TO_2000,
        length=length.astype(np.float64),
        importance=importance.astype(np.float64),
        model=model.astype(np.int64),
        sim=sim.astype(np.float64),
        eligible=eligible,
        hit_unit=hits[:, 0],
        hit_lexeme=hits[:, 1],
        hit_tf=hits[:, 2].astype(np.float64),
        lexemes=len(lexemes),
    )
    return Found(read, ids, subjects, sessions, is_item, tuple(strangers or ()))


def _numbered(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Equal ids get the same number, from 0."""
    halves = ids.view(">u8").astype(np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    inside = halves[order]
    numbers = np.zeros(len(ids), dtype=np.int64)
    numbers[order[1:]] = np.cumsum((inside[1:] != inside[:-1]).any(axis=1))
    return numbers


def _hits(terms: Sequence[str | None], lexemes: Sequence[str]) -> list[tuple[int, int, int]]:
    """(unit, lexeme, how often) for each lexeme of the question that a unit's terms hold.

    All texts are searched as one: Python does something for each hit, and not for each unit and lexeme.
    """
    holders = [(unit, text) for unit, text in enumerate(terms) if text is not None]
    joined = "\n".join(text for _, text in holders)
    ends = np.cumsum([len(text) + 1 for _, text in holders])
    found = [
        (at, place, start) for place, lexeme in enumerate(lexemes) for at, start in _found(joined, f"{quoted(lexeme)}:")
    ]
    rows_of = np.searchsorted(ends, [at for at, _, _ in found], side="right")
    return [
        (holders[row][0], place, _positions(joined, start))
        for row, (_, place, start) in zip(rows_of, found, strict=True)
    ]


def _found(text: str, mark: str) -> Iterator[tuple[int, int]]:
    """Begin and end of each mark that is a whole lexeme, and not the end of a longer one."""
    at = text.find(mark)
    while at >= 0:
        if at == 0 or text[at - 1] in " \n":
            yield at, at + len(mark)
        at = text.find(mark, at + 1)


def _positions(text: str, start: int) -> int:
    """How many stand there, up to the next lexeme or text."""
    return len(POSITIONS.match(text, start)[0].split(","))  # type: ignore[index]
