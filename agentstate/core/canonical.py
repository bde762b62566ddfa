"""Canonical JSON: the same value always gives the same bytes, and what cannot be read back is refused with its place.

Not the JSON of anybody else's standard: keys sorted, UTF-8, no spaces, numbers as orjson writes them. Tuples become
lists, UUIDs and enum members their text; dates and objects are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from enum import Enum
from typing import Any, NoReturn
from uuid import UUID

import orjson

from agentstate.core.errors import Invalid
from agentstate.core.limits import JSON_DEPTH_MAX, JSON_INT_MAX

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_UINT64_MAX = 2**64 - 1
_INT64_MIN = -(2**63)
_ORJSON_DEPTH_MAX = 254
_BACKSLASH = ord("\\")
_SHALLOW_BYTES_MAX = 2 * JSON_DEPTH_MAX  # each level has two brackets
_COUNTED_BYTES_MAX = 16_384  # above, orjson is faster than counting brackets
_NO_OPENING = bytes(byte for byte in range(256) if byte not in b"[{")


def dumps(value: object, *, where: str = "") -> bytes:
    """The canonical bytes. `where` is the JSON pointer of `value` in the caller's document.

    Raises: Invalid (field = JSON pointer) for NaN, infinities, NUL, lone surrogates, ints outside 64 bit, keys that
    are no text, depth over 100, and anything that is not JSON.
    """
    try:
        out = orjson.dumps(value, option=_OPTIONS)
    except (TypeError, RecursionError) as error:  # names the trouble, but never the place
        _walk(value, where, 0, _UINT64_MAX)
        raise Invalid(f"This value is not JSON: {error}.", field=where) from error
    # Of each pair the first half is quick and nearly always enough: `in` would try first whether bytes are a number.
    if (
        (_BACKSLASH in out and b"\\u0000" in out)
        or (out.find(b"null") >= 0 and _hides_nan(value, out))
        or (len(out) > _SHALLOW_BYTES_MAX and not _is_shallow(value, out))
    ):
        _walk(value, where, 0, _UINT64_MAX)
    return out


def check(value: object, *, where: str = "") -> None:
    """For values from outside: what dumps refuses, and ints over 2**63 - 1. Raises: Invalid with the JSON pointer."""
    _walk(value, where, 0, JSON_INT_MAX)


def loads(raw: bytes) -> Any:
    """What dumps wrote. For bytes of strangers use parse: this one reads 2**64 as a float."""
    return orjson.loads(raw)


def parse(raw: bytes, *, where: str = "") -> Any:
    """JSON of a stranger, checked. Raises: Invalid."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"This is not JSON: {error}.", field=where) from error
    check(value, where=where)
    return value


def sha(raw: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(raw).digest()


def digest(value: object) -> bytes:
    return sha(dumps(value))


def _hides_nan(value: object, out: bytes) -> bool:
    """Maybe. orjson writes NaN as null without a word; reading back is 6 times faster than walking."""
    return bool(orjson.loads(out) != value)


def _is_shallow(value: object, out: bytes) -> bool:
    """orjson has a depth limit of its own: wrapped into the difference, a value over ours reaches it."""
    if len(out) < _COUNTED_BYTES_MAX and len(out.translate(None, _NO_OPENING)) <= JSON_DEPTH_MAX:
        return True
    for _ in range(_ORJSON_DEPTH_MAX - JSON_DEPTH_MAX):
        value = [value]
    try:
        orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        return False
    return True


def _walk(value: object, where: str, depth: int, int_max: int) -> None:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, UUID)):
        return
    if isinstance(value, str):
        check_text(value, where)
    elif isinstance(value, int):
        if not _INT64_MIN <= value <= int_max:
            _refuse("a whole number outside 64 bits", where, "Send it as text")
    elif type(value) is float:  # not its subclasses (numpy's), nor named tuples: orjson refuses both
        if not math.isfinite(value):
            _refuse(f"{value}, which JSON does not have", where, "Send null or text")
    elif isinstance(value, (dict, list)) or type(value) is tuple:
        _walk_children(value, where, depth + 1, int_max)
    else:
        _refuse(f"a {type(value).__name__}, which JSON does not have", where, "Turn it into text or numbers")


def _walk_children(value: dict[Any, Any] | list[Any] | tuple[Any, ...], where: str, depth: int, int_max: int) -> None:
    if depth > JSON_DEPTH_MAX:
        _refuse(f"something nested deeper than {JSON_DEPTH_MAX} levels", _shorten(where), "Flatten it")
    if not isinstance(value, dict):
        for index, child in enumerate(value):
            _walk(child, f"{where}/{index}", depth, int_max)
        return
    for key, child in value.items():
        if not isinstance(key, str):
            _refuse(f"the key {key!r}, which is not text", where, "Use text as keys")
        place = f"{where}/{key.replace('~', '~0').replace('/', '~1')}"
        check_text(key, place)
        _walk(child, place, depth, int_max)


def check_text(text: str, where: str) -> None:
    """As check, for one text."""
    if text.isascii():
        if "\0" in text:
            _refuse("text with a NUL character", where, "Remove it")
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse("text with half a surrogate pair", where, "Send valid UTF-8")
    if "\0" in text:
        _refuse("text with a NUL character", where, "Remove it")


def _shorten(where: str) -> str:
    return where if len(where) <= 200 else where[:200] + "…"


def _refuse(what: str, where: str, way_out: str) -> NoReturn:
    # The key itself may hold what we complain about; a message must be printable everywhere.
    place = where.encode("utf-8", "backslashreplace").decode().replace("\0", "\\u0000")
    raise Invalid(f"{place or 'The value'} holds {what}. {way_out}.", field=place)
