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
from memory.recall.ranking import Integers, Tokens, Units, by_id
from memory.recall.words import DIGEST_BYTES, ENTRY_BYTES

BITS_PER_BYTE = 8
ID_BYTES = 2  # of a token

# One row: an array a column, units in one order in all of them. RLS adds the tenant. Index: memory_unit_of_subject.
# No DISTINCT and no ORDER BY inside: either sorts whole rows, vectors and all, before the first is looked at.
_UNITS = """
SELECT {columns}, string_agg(u.words, '')
FROM memory_unit u
WHERE {of} AND u.in_recall AND (u.expires_at IS NULL OR u.expires_at > %(now)s)"""
# Each with its type in the binary form of an array. Few and wide: an array more costs as much a row as a cosine.
_COLUMNS = (
    ("u.id", "V16"),
    ("u.subject_id", "V16"),  # left out where it is the same for all
    ("coalesce(u.session_id, u.id)", "V16"),
    ("u.seq * 65536::int8 + u.author_no", ">i8"),
    ("u.sent_at", ">i8"),  # microseconds since 2000
    ("coalesce({similarity}, 'NaN')", ">f8"),
    (
        "coalesce(octet_length(u.words), 0) * 4"
        " + CASE WHEN {eligible} THEN 2 ELSE 0 END + CASE u.kind WHEN 'item' THEN 1 ELSE 0 END",
        ">i4",
    ),
)
_MODEL = ("{number}", ">i4")  # needed where several were asked
ARRAY_HEADER_BYTES = 20  # dimensions, flags, type, length, lower bound; then each element behind its size
SECONDS_TO_2000 = 946_684_800
ENTRY = np.dtype([("digest", f"<u{DIGEST_BYTES}"), ("often", "u1")])  # one lexeme of words.PACKED
FEW_BITS = 16  # of a digest tell nearly all other lexemes apart
FEW_MASK = np.uint64((1 << FEW_BITS) - 1)
# Each where it is asked for: a condition that always holds costs as much a row as any other.
_VALID = """
(u.valid_from IS NULL OR u.valid_from <= %(moment)s) AND (u.valid_to IS NULL OR u.valid_to > %(moment)s)"""
_ASKED = {
    "session": "coalesce(u.session_id = %(session)s, FALSE)",
    "authors": """u.kind = 'message' AND u.author_no = ANY (ARRAY(
      SELECT no FROM memory_author WHERE subject_id = %(subject)s AND digest = ANY (%(authors)s)))""",
    "after": "u.sent_at >= %(after)s",
    "before": "u.sent_at < %(before)s",
    "at": "u.sent_at <= %(at)s",
    "namespace": "(u.namespace = %(namespace)s OR starts_with(u.namespace, %(namespace)s || '/'))",
}
_OF_TENANT = "u.subject_id NOT IN (SELECT id FROM memory_subject WHERE status = 'erasing')"
# Index: memory_unittokens_pkey, memory_ownerkey_pkey.
_TOKENS = """
SELECT a.n::int4 - 1, t.unit_id::text, uuid_send(t.subject_id), k.wrapped, t.count, t.body
FROM unnest(%s::uuid[]) WITH ORDINALITY AS a (id, n) JOIN memory_unittokens t ON t.unit_id = a.id
  JOIN memory_ownerkey k ON k.owner_id = t.subject_id
WHERE t.model = %s AND t.count > 0 AND k.wrapped <> ''"""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which units may be answered. `authors`: digests of their names. `at`: what was known and held true at that
    moment. Times: from `after`, up to but without `before`."""

    now: datetime
    kinds: tuple[str, ...] = ("message", "item")
    session_id: UUID | None = None
    authors: tuple[bytes, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    at: datetime | None = None
    namespace: str = ""


@dataclass(frozen=True)
class Found:
    """`ids`: of the units, in the order of their columns."""

    units: Units
    ids: NDArray[np.void]
    subjects: NDArray[np.void] | UUID
    sessions: NDArray[np.void]
    is_item: NDArray[np.bool_]

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


@dataclass(frozen=True, slots=True)
class Asked:
    """The statement for all units of a subject (or, None, of the tenant), and how to read its one row."""

    query: sql.Query
    subject_id: UUID | None
    columns: Sequence[tuple[str, str]]

    def read(self, found: Sequence[sql.Row], digests: Sequence[int]) -> Found:
        """`digests`: of the question's lexemes."""
        *arrays, words = found[0]
        columns = [_column(*one) for one in zip(arrays, self.columns, strict=True)]
        subjects = columns.pop(1) if self.subject_id is None else self.subject_id
        return _read(subjects, columns, words, digests)


def asking(subject_id: UUID | None, *, vectors: Sequence[Vector], filters: Filters) -> Asked:
    """All units that may be recalled. Run it with `binary`, for read() to read."""
    eligible, args = _eligible(filters)
    args |= {"subject": subject_id, "now": filters.now}
    for n, vector in enumerate(vectors):
        args[f"model{n}"], args[f"vector{n}"] = vector.model, as_text(vector.values)
    number = _cases("{n}", "-1", len(vectors))
    similarity = _cases("1 - (u.vector <=> %(vector{n})s::vector)", "NULL::float8", len(vectors))
    columns = [column for column in _COLUMNS if subject_id is None or column[0] != "u.subject_id"]
    columns += [_MODEL] if len(vectors) > 1 else []
    parts = {"similarity": similarity, "number": number, "eligible": eligible}
    statement = _UNITS.format(
        columns=", ".join(f"array_send(array_agg({expression.format(**parts)}))" for expression, _ in columns),
        of=_OF_TENANT if subject_id is None else "u.subject_id = %(subject)s",
    )
    return Asked((statement, args), subject_id, columns)


def units(subject_id: UUID | None, *, digests: Sequence[int], vectors: Sequence[Vector], filters: Filters) -> Found:
    """One statement."""
    asked = asking(subject_id, vectors=vectors, filters=filters)
    return asked.read(sql.rows(*asked.query, binary=True), digests)


def tokens(ids: NDArray[np.void], *, model: str, dimensions: int) -> tuple[Integers, Tokens]:
    """Of these units, as far as they have tokens of this model that open: their places in `ids`, and the tokens."""
    names = ids.tobytes().hex()
    asked = "{" + ",".join(names[at : at + 2 * ids.itemsize] for at in range(0, len(names), 2 * ids.itemsize)) + "}"
    found = sql.rows(_TOKENS, [asked, model], binary=True)
    tenant_id, opened = current_tenant(), dict[bytes, bytes]()
    bound = sealing.aad(tenant_id, "memory_unittokens", "")  # and the row, which is its end
    size, places, counts, heads, tails = ID_BYTES + dimensions // BITS_PER_BYTE, [], [], [], []
    for place, name, subject, wrapped, count, body in found:
        if subject not in opened:
            opened[subject] = keys.KEYS.opened(tenant_id, UUID(bytes=subject), [(wrapped,)])
        try:
            plain = sealing.unseal(opened[subject], body, aad=bound + name.encode())
        except Corrupt:
            continue
        if len(plain) == count * size:
            places.append(place)
            counts.append(count)
            heads.append(plain[: count * ID_BYTES])
            tails.append(plain[count * ID_BYTES :])
    bits = np.frombuffer(b"".join(tails), dtype=np.uint8).reshape(-1, dimensions // BITS_PER_BYTE)
    read = Tokens(np.array(counts, dtype=np.int64), np.frombuffer(b"".join(heads), dtype="<u2"), bits)
    return np.array(places, dtype=np.int64), read


def as_text(values: Sequence[float]) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(map(repr, map(float, values))) + "]"


def _eligible(filters: Filters) -> tuple[str, dict[str, Any]]:
    """The condition, never null, and its arguments."""
    args: dict[str, Any] = {
        "session": filters.session_id,
        "authors": list(filters.authors) or None,
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
    native = of["value"].newbyteorder("=")
    if array is None:
        return np.zeros(0, dtype=native)
    return np.frombuffer(array, dtype=of, offset=ARRAY_HEADER_BYTES)["value"].astype(native)


def _read(
    subjects: NDArray[Any] | UUID,
    columns: Sequence[NDArray[Any]],
    words: bytes | None,
    digests: Sequence[int],
) -> Found:
    ids, sessions, turn, sent_at, sim, packed, *model = columns
    high, low = _halves(ids)
    length = (packed >> 2) // ENTRY_BYTES
    hit_unit, hit_lexeme, hit_tf = _hits(words or b"", length, digests)
    read = Units(
        high=high,
        low=low,
        session=_numbered(sessions),
        seq=turn >> 16,
        author=turn & 0xFFFF,
        sent_at=sent_at / 1e6 + SECONDS_TO_2000,
        length=length.astype(np.float64),
        model=model[0].astype(np.int64) if model else np.where(np.isnan(sim), -1, 0),
        sim=sim,
        eligible=(packed & 2) != 0,
        hit_unit=hit_unit,
        hit_lexeme=hit_lexeme,
        hit_tf=hit_tf,
        lexemes=len(digests),
    )
    return Found(read, ids, subjects, sessions, (packed & 1) != 0)


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


def _hits(words: bytes, length: Integers, digests: Sequence[int]) -> tuple[Integers, Integers, NDArray[np.float64]]:
    """(unit, lexeme, how often) for each lexeme of the question that a unit holds. `length`: lexemes of each unit,
    which stand one behind the other in `words`.

    Nothing is done in Python for a unit or a hit, and few lexemes are looked at more than once.
    """
    entries, asked = np.frombuffer(words, dtype=ENTRY), np.array(digests, dtype=np.uint64)
    stored = entries["digest"]
    likely = np.zeros(1 << FEW_BITS, dtype=bool)
    likely[asked & FEW_MASK] = True
    near = np.flatnonzero(likely[(stored & FEW_MASK).astype(np.intp)])
    place, lexeme = np.nonzero(stored[near][:, None] == asked[None, :])
    at = near[place]
    return np.searchsorted(np.cumsum(length), at, side="right"), lexeme, entries["often"][at].astype(np.float64)
