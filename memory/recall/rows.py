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
from memory.models.unit import UNIT_KINDS
from memory.recall.ranking import Tokens, Units, by_id
from memory.recall.words import quoted

BITS_PER_BYTE = 8
ID_BYTES = 2  # of a token

# One row: an array a column, units in one order in all of them. RLS adds the tenant. Index: memory_unit_of_subject.
# No DISTINCT and no ORDER BY inside: either sorts whole rows, vectors and all, before the first is looked at.
_UNITS = """
SELECT {columns}, {terms}, {strangers}
FROM memory_unit u
WHERE {of} AND u.in_recall AND (u.expires_at IS NULL OR u.expires_at > %(now)s)"""
# A line a unit, empty where nothing matches. unnest() of a tsvector costs five times as much as its text.
_TERMS = """
convert_to(string_agg(CASE WHEN u.terms @@ %(query)s::tsquery THEN u.terms::text ELSE '' END, E'\\n '), 'UTF8')"""
_STRANGERS = "array_agg(u.model) FILTER (WHERE {number} < 0 AND u.model <> '')"
_COLUMNS = (  # each with its type in the binary form of an array
    ("u.id", "V16"),
    ("u.subject_id", "V16"),  # left out where it is the same for all
    ("coalesce(u.session_id, u.id)", "V16"),
    ("u.seq", ">i4"),
    ("u.author_no", ">i2"),
    ("u.sent_at", ">i8"),  # microseconds since 2000
    ("u.term_count", ">i4"),
    ("u.importance", ">f8"),
    ("coalesce({similarity}, 'NaN')", ">f8"),
    ("{number} * 4 + ({eligible})::int * 2 + (u.kind = 'item')::int", ">i4"),
)
ARRAY_HEADER_BYTES = 20  # dimensions, flags, type, length, lower bound; then each element behind its size
SECONDS_TO_2000 = 946_684_800
NEWLINE, SPACE, COMMA = b"\n ,"
WINDOW_BYTES = 8
# Each where it is asked for: a condition that always holds costs as much a row as any other.
_VALID = """
(u.valid_from IS NULL OR u.valid_from <= %(moment)s) AND (u.valid_to IS NULL OR u.valid_to > %(moment)s)"""
_ASKED = {
    "session": "coalesce(u.session_id = %(session)s, FALSE)",
    "authors": "u.kind = 'message' AND u.author_no = ANY (%(authors)s::int2[])",
    "after": "u.sent_at >= %(after)s",
    "before": "u.sent_at < %(before)s",
    "at": "u.sent_at <= %(at)s",
    "namespace": "(u.namespace = %(namespace)s OR starts_with(u.namespace, %(namespace)s || '/'))",
}
_OF_TENANT = "u.subject_id NOT IN (SELECT id FROM memory_subject WHERE status = 'erasing')"
_TOKENS = """
SELECT t.unit_id::text, t.subject_id, k.wrapped, t.count, t.body
FROM memory_unittokens t JOIN memory_ownerkey k ON k.owner_id = t.subject_id
WHERE t.unit_id = ANY (%s) AND t.model = %s AND t.count > 0 AND k.wrapped <> ''"""


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
    subjects: NDArray[np.void] | UUID
    sessions: NDArray[np.void]
    is_item: NDArray[np.bool_]
    strangers: tuple[str, ...]

    def id(self, place: int) -> UUID:
        return UUID(bytes=self.ids[place].tobytes())

    def subject_id(self, place: int) -> UUID:
        return self.subjects if isinstance(self.subjects, UUID) else UUID(bytes=self.subjects[place].tobytes())

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
    eligible, args = _eligible(filters)
    args |= {"subject": subject_id, "query": query, "now": filters.now}
    for n, vector in enumerate(vectors):
        args[f"model{n}"], args[f"vector{n}"] = vector.model, as_text(vector.values)
    number = f"({_cases('{n}', '-1', len(vectors))})"
    similarity = _cases("1 - (u.vector <=> %(vector{n})s::vector)", "NULL::float8", len(vectors))
    columns = [column for column in _COLUMNS if subject_id is None or column[0] != "u.subject_id"]
    parts = {"similarity": similarity, "number": number, "eligible": eligible}
    statement = _UNITS.format(
        columns=", ".join(f"array_send(array_agg({expression.format(**parts)}))" for expression, _ in columns),
        terms=_TERMS if lexemes else "NULL::bytea",
        strangers=_STRANGERS.format(number=number) if vectors else "NULL::text[]",
        of=_OF_TENANT if subject_id is None else "u.subject_id = %(subject)s",
    )
    row = sql.row(statement, args, binary=True)
    assert row is not None
    *arrays, terms, strangers = row
    read = [_column(*one) for one in zip(arrays, columns, strict=True)]
    if subject_id is not None:
        return _read(read[0], subject_id, read[1:], terms, lexemes, strangers)
    return _read(read[0], read[1], read[2:], terms, lexemes, strangers)


def tokens(unit_ids: Sequence[UUID], *, model: str, dimensions: int) -> dict[UUID, Tokens]:
    """Ids and packed sign bits of those units that have tokens of this model. Those that do not open are left out."""
    found = sql.rows(_TOKENS, [list(unit_ids), model], binary=True)
    tenant_id, opened = current_tenant(), dict[UUID, bytes]()
    out, by_name = {}, {str(unit_id): unit_id for unit_id in unit_ids}
    bound = sealing.aad(tenant_id, "memory_unittokens", "")  # and the row, which is its end
    for name, subject_id, wrapped, count, body in found:
        if subject_id not in opened:
            opened[subject_id] = keys.KEYS.opened(tenant_id, subject_id, [(wrapped,)])
        try:
            plain = sealing.unseal(opened[subject_id], body, aad=bound + name.encode())
        except Corrupt:
            continue
        if len(plain) == count * (ID_BYTES + dimensions // BITS_PER_BYTE):
            out[by_name[name]] = _split(plain, count)
    return out


def as_text(values: Sequence[float]) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(map(repr, map(float, values))) + "]"


def _split(plain: bytes, count: int) -> Tokens:
    ids = np.frombuffer(plain, dtype="<u2", count=count)
    return ids, np.frombuffer(plain, dtype=np.uint8, offset=count * ID_BYTES).reshape(count, -1)


def _eligible(filters: Filters) -> tuple[str, dict[str, Any]]:
    """The condition, never null, and its arguments."""
    args: dict[str, Any] = {
        "session": filters.session_id,
        "authors": list(filters.authors) if filters.authors is not None else None,
        "after": filters.after,
        "before": filters.before,
        "at": filters.at,
        "namespace": filters.namespace or None,
    }
    args = {name: value for name, value in args.items() if value is not None}
    asked = [_VALID, *(_ASKED[name] for name in args)]
    if set(filters.kinds) < set(UNIT_KINDS):
        asked.append("u.kind = ANY (%(kinds)s)")
    return " AND ".join(asked), args | {"kinds": list(filters.kinds), "moment": filters.at or filters.now}


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
    ids: NDArray[Any],
    subjects: NDArray[Any] | UUID,
    columns: Sequence[NDArray[Any]],
    terms: bytes | None,
    lexemes: Sequence[str],
    strangers: Sequence[str] | None,
) -> Found:
    sessions, seq, author, sent_at, length, importance, sim, packed = columns
    high, low = _halves(ids)
    hit_unit, hit_lexeme, hit_tf = _hits(terms or b"", lexemes)
    read = Units(
        high=high,
        low=low,
        session=_numbered(sessions),
        seq=seq.astype(np.int64),
        author=author.astype(np.int64),
        sent_at=sent_at / 1e6 + SECONDS_TO_2000,
        length=length.astype(np.float64),
        importance=importance.astype(np.float64),
        model=packed.astype(np.int64) >> 2,
        sim=sim.astype(np.float64),
        eligible=(packed & 2) != 0,
        hit_unit=hit_unit,
        hit_lexeme=hit_lexeme,
        hit_tf=hit_tf,
        lexemes=len(lexemes),
    )
    return Found(read, ids, subjects, sessions, (packed & 1) != 0, tuple(sorted(set(strangers or ()))))


def _halves(ids: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    halves = ids.view(">u8").astype(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


def _numbered(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Equal ids get the same number, from 0."""
    high, low = _halves(ids)
    order = by_id(high, low)
    numbers = np.zeros(len(ids), dtype=np.int64)
    numbers[order[1:]] = np.cumsum((np.diff(high[order]) != 0) | (np.diff(low[order]) != 0))
    return numbers


def _hits(lines: bytes, lexemes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(unit, lexeme, how often) for each lexeme of the question that a unit's terms hold; a line is a unit's terms.

    All lines are one text, and numpy searches it: nothing is done in Python for a unit or a hit.
    """
    marks = [f"{quoted(lexeme)}:".encode() for lexeme in lexemes]
    text = b" " + lines + bytes(max(map(len, marks), default=0) + WINDOW_BYTES)  # a blank is before each lexeme
    characters = np.frombuffer(text, dtype=np.uint8, count=1 + len(lines))
    blanks, newlines = np.flatnonzero(characters == SPACE), np.flatnonzero(characters == NEWLINE)
    starts = _starts(text, blanks + 1, marks)
    held = np.repeat(np.arange(len(marks)), [len(one) for one in starts]).astype(np.int64)
    at = np.concatenate([np.zeros(0, dtype=np.int64), *starts])
    until = np.append(blanks, len(characters))[np.searchsorted(blanks, at)]  # a newline has a blank behind it
    commas = np.flatnonzero(characters == COMMA)
    positions = 1 + np.searchsorted(commas, until) - np.searchsorted(commas, at)
    return np.searchsorted(newlines, at).astype(np.int64), held, positions.astype(np.float64)


def _starts(text: bytes, begins: NDArray[np.int64], marks: Sequence[bytes]) -> list[NDArray[np.int64]]:
    """Where the text goes on behind each mark, for the marks that begin at `begins`: eight bytes are one comparison."""
    windows = np.ndarray(len(text) - WINDOW_BYTES + 1, dtype="<u8", buffer=text, strides=(1,))
    heads, out = windows[begins], []
    for mark in marks:
        found = begins[_same(heads, mark)]
        for offset in range(WINDOW_BYTES, len(mark), WINDOW_BYTES):
            found = found[_same(windows[found + offset], mark[offset:])]
        out.append(found + len(mark))
    return out


def _same(windows: NDArray[np.uint64], mark: bytes) -> NDArray[np.bool_]:
    wanted = int.from_bytes(mark[:WINDOW_BYTES], "little")
    mask = (1 << BITS_PER_BYTE * min(len(mark), WINDOW_BYTES)) - 1
    return np.asarray((windows & np.uint64(mask)) == np.uint64(wanted))
