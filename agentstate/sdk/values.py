"""Python values to JSON and back.

What a step returns is always passed through JSON, in its first run too, so that an agent sees the same value whether
the step ran or was answered from its record.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import types
import typing
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from agentstate.core import canonical
from agentstate.core.errors import Invalid, TooLarge
from agentstate.core.limits import PAYLOAD_BYTES_MAX

_SCALARS = (str, int, float, bool, type(None))
_UNIONS = (Union, types.UnionType)


def plain(value: Any, *, where: str = "") -> Any:
    """The value as dicts, lists and scalars; dataclasses and Pydantic models by their fields.

    Raises: Invalid, with the JSON pointer, for what has no JSON form.
    """
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Mapping):
        return {_key(key, where): plain(item, where=f"{where}/{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where=f"{where}/{index}") for index, item in enumerate(value)]
    return _plain_object(value, where)


def encode(value: Any, *, where: str = "") -> bytes:
    """Canonical JSON of a value. Raises: Invalid, TooLarge."""
    try:
        raw = canonical.dumps(value, where=where)  # plain JSON already, as most values are
    except Invalid:
        raw = canonical.dumps(plain(value, where=where), where=where)
    if len(raw) > PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"{where or 'The value'} is {len(raw):,} bytes as JSON; at most {PAYLOAD_BYTES_MAX:,} are kept. "
            "Store it elsewhere and pass a reference.",
            field=where,
        )
    return raw


def settled(value: Any, *, where: str = "") -> Any:
    """The value as it comes back from its record; shares nothing with what was handed in. Raises: Invalid, TooLarge."""
    return canonical.loads(encode(value, where=where))


def hydrate(hint: Any, value: Any) -> Any:
    """JSON back into what the annotation names: dataclasses, models, dates, UUIDs, and lists or dicts of them."""
    if hint is None or hint is Any or isinstance(hint, (str, typing.TypeVar)) or value is None:
        return value
    origin = get_origin(hint)
    if origin is typing.Annotated:
        return hydrate(get_args(hint)[0], value)
    if origin in _UNIONS:
        return _hydrate_union(get_args(hint), value)
    if origin is not None:
        return _hydrate_generic(origin, get_args(hint), value)
    return _hydrate_class(hint, value)


def _key(key: Any, where: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise Invalid(f"{where or 'The value'} has the key {key!r}; use text as keys.", field=where)
    return key


def _plain_object(value: Any, where: str) -> Any:
    if isinstance(value, Enum):
        return plain(value.value, where=where)
    if isinstance(value, _SCALARS):  # subclasses of str and int
        return value
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"), where=where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name), where=f"{where}/{field.name}") for field in fields}
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    raise Invalid(f"{where or 'The value'} is a {type(value).__name__}, which JSON does not have.", field=where)


def _hydrate_union(options: tuple[Any, ...], value: Any) -> Any:
    for option in options:
        if option is type(None):
            continue
        if isinstance(option, type) and type(value) is option:
            return value
    for option in options:
        if option is not type(None):
            try:
                return hydrate(option, value)
            except (TypeError, ValueError):
                continue
    return value


def _hydrate_generic(origin: Any, args: tuple[Any, ...], value: Any) -> Any:
    if origin in (list, set, frozenset) and isinstance(value, list):
        items = [hydrate(args[0], item) for item in value]
        return items if origin is list else origin(items)
    if origin is tuple and isinstance(value, list):
        hints = [args[0]] * len(value) if args[-1:] == (...,) else list(args)
        return tuple(hydrate(hint, item) for hint, item in zip(hints, value, strict=False))
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict) and len(args) == 2:
        return {key: hydrate(args[1], item) for key, item in value.items()}
    return value


def _hydrate_class(hint: Any, value: Any) -> Any:
    if not isinstance(hint, type) or isinstance(value, hint):
        return value
    if hasattr(hint, "model_validate"):
        return hint.model_validate(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _hydrate_dataclass(hint, value)
    if hint in (dt.datetime, dt.date, dt.time) and isinstance(value, str):
        return hint.fromisoformat(value)
    if hint is dt.timedelta and isinstance(value, (int, float)):
        return dt.timedelta(seconds=value)
    if hint in (UUID, Decimal) and isinstance(value, str):
        return hint(value)
    if issubclass(hint, Enum) or (hint in (tuple, set, frozenset) and isinstance(value, list)):
        return hint(value)
    return float(value) if hint is float and type(value) is int else value


def _hydrate_dataclass(hint: Any, value: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(hint)
    names = {field.name for field in dataclasses.fields(hint) if field.init}
    return hint(**{name: hydrate(hints.get(name), item) for name, item in value.items() if name in names})
