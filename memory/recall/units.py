"""Units: what of a message or an item can be found. Written in the transaction that writes the message or the item.

Words stand in a unit at once; its vector comes later. So nothing that was said waits for a model, and a unit without a
vector is found by its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from uuid import UUID

from django.db import connection

from agentstate.db import sql
from memory.models import Item, Message
from memory.recall import words
from memory.states import ItemStatus


@dataclass(frozen=True, slots=True)
class Unit:
    """One row, in the order of its columns; `words` and `literal` become what it keeps of them."""

    id: UUID
    kind: str
    subject_id: UUID
    session_id: UUID | None
    namespace: str
    seq: int
    author_no: int
    sent_at: datetime
    in_recall: bool
    expires_at: datetime | None
    valid_from: datetime | None
    valid_to: datetime | None
    words: str | None
    literal: str | None


_COLUMNS = [field.name for field in fields(Unit)][:-2]
_TYPES = [
    *("uuid", "text", "uuid", "uuid", "text", "int4", "int2", "timestamptz", "bool"),
    *("timestamptz", "timestamptz", "timestamptz", "text", "text"),
]
_ARRAYS = ", ".join(f"%s::{name}[]" for name in _TYPES)
_INSERT = f"""
INSERT INTO memory_unit ({", ".join(_COLUMNS)}, words, model)
SELECT {", ".join(f"u.{name}" for name in _COLUMNS)}, {words.PACKED.format(terms="t.terms")}, ''
FROM unnest({_ARRAYS}) AS u ({", ".join([*_COLUMNS, "words", "literal"])}),
  LATERAL (SELECT to_tsvector(%s::regconfig, u.words) || u.literal::tsvector AS terms) t
ON CONFLICT (id) DO UPDATE SET ({", ".join(_COLUMNS[1:])}, words, model, vector) =
  ({", ".join(f"excluded.{name}" for name in _COLUMNS[1:])}, excluded.words, '', NULL)"""
_FORGET_VECTORS = """
WITH tokens AS (DELETE FROM memory_unittokens WHERE unit_id = ANY(%(ids)s))
DELETE FROM memory_unitstaged WHERE unit_id = ANY(%(ids)s)"""
_ITEM_FACTS = """
UPDATE memory_unit SET namespace = %s, sent_at = %s, in_recall = %s, expires_at = %s,
  valid_from = %s, valid_to = %s WHERE id = %s"""


def index_messages(pairs: Sequence[tuple[Message, str, str]]) -> None:
    """One statement for all: (message, its text, its author's name). Text of our own that came back is not recalled.

    Idempotent. Asserts a transaction.
    """
    how = words.wording()
    made = words.terms([spoken(text, author_name) for _, text, author_name in pairs], how)
    _insert([_of_message(message, terms) for (message, _, _), terms in zip(pairs, made, strict=True)], how)


def index_item(item: Item, text: str) -> None:
    """Make the item's unit, or make it anew from changed words; its vector goes and is made again.

    Idempotent. Asserts a transaction. Locks: the unit.
    """
    how = words.wording()
    (terms,) = words.terms([text], how)
    _insert([_of_item(item, terms)], how)
    # After the unit is locked: whoever makes vectors of the former words finds it changed.
    sql.execute(_FORGET_VECTORS, {"ids": [item.id]})


def update_item(item: Item) -> None:
    """What an item's unit knows besides its words: status, namespace, times. Its vector stays."""
    unit = _of_item(item, words.Terms(None, None))
    known = (unit.namespace, unit.sent_at, unit.in_recall)
    sql.execute(_ITEM_FACTS, [*known, unit.expires_at, unit.valid_from, unit.valid_to, unit.id])


def set_in_recall(ids: Iterable[UUID], value: bool) -> int:
    """Let these units be found, or not; how many there are. Idempotent."""
    return sql.execute("UPDATE memory_unit SET in_recall = %s WHERE id = ANY(%s)", [value, list(ids)])


def drop(ids: Iterable[UUID]) -> int:
    """Delete units, with their vectors and tokens; how many there were."""
    return sql.execute("DELETE FROM memory_unit WHERE id = ANY(%s)", [list(ids)])


def spoken(text: str, author_name: str) -> str:
    """The text of a message as it is indexed and embedded: who said it is part of what was said."""
    return f"{author_name}: {text}" if author_name else text


def _insert(units: Sequence[Unit], how: words.Wording) -> None:
    assert connection.in_atomic_block, "a unit is written together with what it is the unit of"
    if units:
        columns = [list(column) for column in zip(*map(astuple, units), strict=True)]
        sql.execute(_INSERT, [*columns, how.config])


def _of_message(message: Message, terms: words.Terms) -> Unit:
    return Unit(
        id=message.id,
        kind="message",
        subject_id=message.subject_id,
        session_id=message.session_id,
        namespace="",
        seq=message.seq,
        author_no=message.author_no,
        sent_at=message.sent_at,
        in_recall=message.undone_in is None and message.origin == "said",
        expires_at=None,
        valid_from=None,
        valid_to=None,
        words=terms.words,
        literal=terms.literal,
    )


def _of_item(item: Item, terms: words.Terms) -> Unit:
    return Unit(
        id=item.id,
        kind="item",
        subject_id=item.subject_id,
        session_id=None,
        namespace=item.namespace,
        seq=0,
        author_no=0,
        sent_at=item.known_from,
        in_recall=item.status == ItemStatus.ACTIVE,
        expires_at=item.expires_at,
        valid_from=item.valid_from,
        valid_to=item.valid_to,
        words=terms.words,
        literal=terms.literal,
    )
