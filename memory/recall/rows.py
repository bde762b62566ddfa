"""What recall reads: all units of a subject (or of the tenant) as columns, in one statement, and the tokens of some.

The statement has no LIMIT: whatever is cut before all signals have met is lost by accident. Columns come as bytes that
numpy reads as they are: five thousand rows as Python objects would cost more than their arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray

from agentstate.crypto import sealing
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.models.unit import UNIT_KINDS
from memory.recall.ranking import Integers, Tokens, Units
from memory.recall.words import DIGEST_BYTES, ENTRY_BYTES

BITS_PER_BYTE = 8
ID_BYTES = 2  # of a token
ID_LENGTH = 16  # bytes of a unit's

# One row: the values of a column one behind the other, units in one order in all of them. RLS adds the tenant. Index:
# memory_unit_of_subject. No DISTINCT and no ORDER BY inside: either sorts whole rows, vectors and all, before the first
# is looked at.
_UNITS = """
SELECT {columns}, string_agg(u.words, '')
FROM memory_unit u
WHERE {of} AND u.in_recall AND (u.expires_at IS NULL OR u.expires_at > %(now)s)"""
# Each as bytes, and their type. Few and wide: one more costs as much a row as a cosine.
_COLUMNS = {
    "id": ("uuid_send(u.id)", "V16"),
    "subject": ("uuid_send(u.subject_id)", "V16"),  # left out where it is the same for all
    "session": ("uuid_send(coalesce(u.session_id, u.id))", "V16"),
    "turn": ("int8send(u.seq * 65536::int8 + u.author_no)", ">i8"),
    "sent_at": ("timestamptz_send(u.sent_at)", ">i8"),  # microseconds since 2000
    "similarity": ("float8send(coalesce({similarity}, 'NaN'))", ">f8"),  # where a model was asked
    "number": ("int4send({number})", ">i4"),  # where several were
    "packed": (
        "int4send(coalesce(octet_length(u.words), 0) * 4"
        " + CASE WHEN {eligible} THEN 2 ELSE 0 END + CASE u.kind WHEN 'item' THEN 1 ELSE 0 END)",
        ">i4",
    ),
}
SECONDS_TO_2000 = 946_684_800
ENTRY = np.dtype([("digest", f"<u{DIGEST_BYTES}"), ("often", "u1")])  # one lexeme of words.PACKED
FEW = np.uint64(1 << 16)  # the first two bytes of a digest tell nearly all other lexemes apart
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
# Index: memory_unittokens_pkey.
_TOKENS = """
SELECT a.n::int4 - 1, t.unit_id::text, t.count, t.body
FROM unnest(%s::uuid[]) WITH ORDINALITY AS a (id, n) JOIN memory_unittokens t ON t.unit_id = a.id
WHERE t.model = %s AND t.count > 0"""
# Index: memory_ownerkey_pkey.
_KEYS = "SELECT owner_id, wrapped FROM memory_ownerkey WHERE owner_id = ANY (%s::uuid[]) AND wrapped <> ''"


Name = tuple[str, str]  # of a unit, and of its subject, in hex
Owners = Mapping[str, bytes]  # subjects by name: their keys, as they are stored


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

    def some(self, units: Integers) -> list[Name]:
        """The units at these places by name, each with its subject's."""
        names = _names(self.ids[units])
        if isinstance(self.subjects, UUID):
            return list(zip(names, repeat(self.subjects.hex)))
        return list(zip(names, _names(self.subjects[units]), strict=True))

    def told(self, places: Integers) -> Iterator[One]:
        """The units at these places. A unit without a session stands under its own id."""
        units, ids, sessions = self.units, _ids(self.ids[places]), _ids(self.sessions[places])
        subjects = repeat(self.subjects) if isinstance(self.subjects, UUID) else _ids(self.subjects[places])
        columns = (places, units.seq[places], units.author[places], self.is_item[places], units.sent_at[places])
        several = zip(ids, subjects, sessions, *(column.tolist() for column in columns), strict=False)
        for id, subject_id, session_id, place, seq, author_no, is_item, sent_at in several:
            # Exact: a double holds the microseconds of this century.
            at, session = datetime.fromtimestamp(sent_at, UTC), None if session_id == id else session_id
            yield One(place, id, subject_id, session, seq, author_no, is_item, at)


@dataclass(slots=True)
class One:
    """A unit by itself, and its place in the columns."""

    place: int
    id: UUID
    subject_id: UUID
    session_id: UUID | None
    seq: int
    author_no: int
    is_item: bool
    sent_at: datetime


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
    columns: Sequence[str]

    def read(self, found: Sequence[sql.Row], digests: Sequence[int]) -> Found:
        """`digests`: of the question's lexemes."""
        *columns, words = found[0]
        read = {name: _column(name, column) for name, column in zip(self.columns, columns, strict=True)}
        return _read(read, self.subject_id, words or b"", digests)


def asking(subject_id: UUID | None, *, vectors: Sequence[Vector], filters: Filters) -> Asked:
    """All units that may be recalled. Run it with `binary`, for read() to read."""
    wanted = _wanted(filters)
    is_every = set(filters.kinds) >= set(UNIT_KINDS)
    args = wanted | {"subject": subject_id, "now": filters.now, "kinds": list(filters.kinds)}
    args["moment"] = filters.at or filters.now
    for n, vector in enumerate(vectors):
        args[f"model{n}"], args[f"vector{n}"] = vector.model, as_text(vector.values)
    columns, selected = _selected(tuple(wanted), is_every, subject_id is None, len(vectors))
    of = _OF_TENANT if subject_id is None else "u.subject_id = %(subject)s"
    return Asked((_UNITS.format(columns=selected, of=of), args), subject_id, columns)


@lru_cache(maxsize=256)
def _selected(wanted: tuple[str, ...], is_every: bool, of_tenant: bool, vectors: int) -> tuple[tuple[str, ...], str]:
    """The columns, and how they are read. `wanted`: some of _ASKED; `is_every`: units of all kinds may be answered."""
    eligible = " AND ".join(
        [_VALID, *(_ASKED[name] for name in wanted), *([] if is_every else ["u.kind = ANY (%(kinds)s)"])]
    )
    number = _cases("{n}", "-1", vectors)
    similarity = _cases("1 - (u.vector <=> %(vector{n})s::vector)", "NULL::float8", vectors)
    unneeded = {"subject": not of_tenant, "similarity": not vectors, "number": vectors < 2}
    columns = tuple(name for name in _COLUMNS if not unneeded.get(name))
    parts = {"similarity": similarity, "number": number, "eligible": eligible}
    return columns, ", ".join(f"string_agg({_COLUMNS[name][0].format(**parts)}, '')" for name in columns)


def units(subject_id: UUID | None, *, digests: Sequence[int], vectors: Sequence[Vector], filters: Filters) -> Found:
    """One statement."""
    asked = asking(subject_id, vectors=vectors, filters=filters)
    return asked.read(sql.rows(*asked.query, binary=True), digests)


def tokens(
    units: Sequence[Name], *, model: str, dimensions: int, owners: Owners | None = None
) -> tuple[Integers, Tokens]:
    """Of these units, as far as they have tokens of this model that open: their places in `units`, and the tokens.

    `owners`: their keys, if they were read in this transaction. One round trip.
    """
    tenant_id, asked = current_tenant(), (_TOKENS, [_literal([unit for unit, _ in units]), model])
    if owners is None:
        wanted = (_KEYS, [_literal(sorted({owner for _, owner in units}))])
        found, wrapped = sql.together(asked, wanted, binary=True)
        owners = {owner_id.hex: key for owner_id, key in wrapped}
    else:
        found = sql.rows(*asked, binary=True)
    of_owner = {owner: keys.KEYS.opened(tenant_id, UUID(owner), [(key,)]) for owner, key in owners.items()}
    bound = sealing.aad(tenant_id, "memory_unittokens", "")  # and the row, which is its end
    size, id_bytes = ID_BYTES + dimensions // BITS_PER_BYTE, ID_BYTES
    sealed = ((of_owner.get(units[place][1]), body, bound + name.encode()) for place, name, _, body in found)
    opened = [
        (place, count, plain)
        for (place, _, count, _), plain in zip(found, sealing.unseal_each(sealed), strict=True)
        if plain is not None and len(plain) == count * size
    ]
    counts = np.array([count for _, count, _ in opened], dtype=np.int64)
    ids = b"".join([plain[: count * id_bytes] for _, count, plain in opened])
    bits = b"".join([plain[count * id_bytes :] for _, count, plain in opened])
    rows = np.frombuffer(bits, dtype=np.uint8).reshape(-1, dimensions // BITS_PER_BYTE)
    places = np.array([place for place, _, _ in opened], dtype=np.int64)
    return places, Tokens(counts, np.frombuffer(ids, dtype="<u2"), rows)


def _ids(ids: NDArray[np.void]) -> Iterator[UUID]:
    each = ids.tobytes()
    return (UUID(bytes=each[at : at + ID_LENGTH]) for at in range(0, len(each), ID_LENGTH))


def _names(ids: NDArray[np.void]) -> list[str]:
    digits = ids.tobytes().hex()
    return [digits[at : at + 2 * ID_LENGTH] for at in range(0, len(digits), 2 * ID_LENGTH)]


def _literal(names: Sequence[str]) -> str:
    """An array of them."""
    return "{" + ",".join(names) + "}"


def as_text(values: Sequence[float]) -> str:
    """A vector as pgvector reads it."""
    return orjson.dumps(values).decode()


def _wanted(filters: Filters) -> dict[str, Any]:
    """The arguments of those of _ASKED that are asked for."""
    args: dict[str, Any] = {
        "session": filters.session_id,
        "authors": list(filters.authors) or None,
        "after": filters.after,
        "before": filters.before,
        "at": filters.at,
        "namespace": filters.namespace or None,
    }
    return {name: value for name, value in args.items() if value is not None}


def _cases(then: str, otherwise: str, count: int) -> str:
    if not count:
        return otherwise
    cases = " ".join(f"WHEN %(model{n})s THEN {then.format(n=n)}" for n in range(count))
    return f"CASE u.model {cases} ELSE {otherwise} END"


def _column(name: str, values: bytes | None) -> NDArray[Any]:
    """None: there are no rows."""
    kind = np.dtype(_COLUMNS[name][1])
    return np.frombuffer(values or b"", dtype=kind).astype(kind.newbyteorder("="))


def _read(columns: Mapping[str, NDArray[Any]], subject_id: UUID | None, words: bytes, digests: Sequence[int]) -> Found:
    ids, turn, packed = columns["id"], columns["turn"], columns["packed"]
    high, low = _halves(ids)
    sim = columns.get("similarity", np.full(len(ids), np.nan))
    length = (packed >> 2) // ENTRY_BYTES
    hit_unit, hit_lexeme, hit_tf = _hits(words, length, digests)
    read = Units(
        high=high,
        low=low,
        session=_numbered(columns["session"]),
        seq=turn >> 16,
        author=turn & 0xFFFF,
        sent_at=columns["sent_at"] / 1e6 + SECONDS_TO_2000,
        length=length.astype(np.float64),
        model=columns.get("number", np.where(np.isnan(sim), -1, 0)).astype(np.int64),
        sim=sim,
        eligible=(packed & 2) != 0,
        hit_unit=hit_unit,
        hit_lexeme=hit_lexeme,
        hit_tf=hit_tf,
        lexemes=len(digests),
    )
    return Found(read, ids, subject_id or columns["subject"], columns["session"], (packed & 1) != 0)


def _halves(ids: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """As they came: few of them are looked at."""
    halves = ids.view(">u8").reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


def _numbered(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Equal ids get the same number, from 0."""
    high, low = (half.astype(np.uint64) for half in _halves(ids))
    order = np.argsort(high)  # the first halves alone nearly always tell them apart, or are halves of one id
    others, differ = _changes(high[order]), _changes(low[order])
    if (differ & ~others).any():
        order = np.lexsort((low, high))
        others, differ = _changes(high[order]), _changes(low[order])
    numbers = np.zeros(len(ids), dtype=np.int64)
    numbers[order[1:]] = np.cumsum(others | differ)
    return numbers


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before it; one less than there are."""
    return np.asarray(values[1:] != values[:-1])


def _hits(words: bytes, length: Integers, digests: Sequence[int]) -> tuple[Integers, Integers, NDArray[np.float64]]:
    """(unit, lexeme, how often) for each lexeme of the question that a unit holds. `length`: lexemes of each unit,
    which stand one behind the other in `words`.

    Nothing is done in Python for a unit or a hit, and few lexemes are looked at more than once.
    """
    entries, asked = np.frombuffer(words, dtype=ENTRY), np.array(digests, dtype=np.uint64)
    likely = np.zeros(FEW, dtype=bool)
    likely[asked % FEW] = True
    begins = np.ndarray(len(entries), dtype="<u2", buffer=words, strides=(ENTRY_BYTES,))
    near = np.flatnonzero(likely.take(begins))
    place, lexeme = np.nonzero(entries["digest"][near][:, None] == asked[None, :])
    at = near[place]
    return np.searchsorted(np.cumsum(length), at, side="right"), lexeme, entries["often"][at].astype(np.float64)
