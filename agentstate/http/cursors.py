"""Keyset cursors: where a page of a list ended, signed, and good for that list only.

A cursor names the values of the ordering columns of the last row, so a page costs the same at any depth and rows that
arrive meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from django.conf import settings
from django.db.models import Model, QuerySet
from django.db.models.fields.tuple_lookups import (  # type: ignore[import-untyped]
    Tuple,
    TupleGreaterThan,
    TupleLessThan,
)

from agentstate.core.errors import Invalid
from agentstate.core.limits import PAGE_ROWS

type_key = str | int | UUID | datetime
CURSOR_CHARS_MAX = 1000
MAC_BYTES = 16
READERS: dict[str, Callable[[Any], type_key]] = {"s": str, "i": int, "u": UUID, "t": datetime.fromisoformat}
AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True, slots=True)
class Page(Generic[AnyModel]):
    """Rows of one page; `after` leads to the next one and is empty on the last."""

    rows: list[AnyModel]
    after: str


def encode(keys: Sequence[type_key], *, scope: str) -> str:
    """A cursor. `scope` names the list with its tenant and filters; it is signed, not contained."""
    body = orjson.dumps([_tagged(key) for key in keys])
    return urlsafe_b64encode(_mac(body, scope) + body).decode().rstrip("=")


def decode(cursor: str, *, scope: str) -> list[type_key]:
    """The values of a cursor that encode() made for the same scope. Raises: Invalid(field="after")."""
    if len(cursor) > CURSOR_CHARS_MAX or not cursor.isascii():
        raise _refused()
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (NotBase64, ValueError) as error:
        raise _refused() from error
    mac, body = raw[:MAC_BYTES], raw[MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(body, scope)):
        raise _refused()
    return [READERS[tag](value) for tag, value in orjson.loads(body)]


def page(
    found: QuerySet[AnyModel],
    *,
    order: Sequence[str] = ("-id",),
    after: str = "",
    scope: str,
    rows_max: int = PAGE_ROWS,
) -> Page[AnyModel]:
    """One page of a queryset, ordered by columns that are unique together and all run the same way.

    The condition is a row comparison, which Postgres answers from one index range; Q | Q costs about twice as much.
    Raises: Invalid(field="after").
    """
    names = [name.removeprefix("-") for name in order]
    descending = {name.startswith("-") for name in order}
    assert len(descending) == 1, "all columns of a keyset run the same way"
    if after:
        keys = decode(after, scope=scope)
        found = found.filter(_beyond(names, keys, descending=descending.pop()))
    rows = list(found.order_by(*order)[: rows_max + 1])
    more = len(rows) > rows_max
    last = [getattr(rows[rows_max - 1], name) for name in names] if more else []
    return Page(rows=rows[:rows_max], after=encode(last, scope=scope) if more else "")


def _beyond(names: list[str], keys: list[type_key], *, descending: bool) -> Any:
    if len(keys) != len(names):
        raise _refused()
    lookup = TupleLessThan if descending else TupleGreaterThan
    return lookup(Tuple(*names), keys)


def _tagged(key: type_key) -> tuple[str, str | int]:
    if isinstance(key, datetime):
        return "t", key.isoformat()
    if isinstance(key, UUID):
        return "u", key.hex
    return ("i", key) if isinstance(key, int) else ("s", key)


def _mac(body: bytes, scope: str) -> bytes:
    key = f"agentstate.cursor\0{settings.SECRET_KEY}".encode()
    return hmac.digest(key, scope.encode() + b"\0" + body, "sha256")[:MAC_BYTES]


def _refused() -> Invalid:
    return Invalid("This place in the list is not valid here; start again from its first page.", field="after")
