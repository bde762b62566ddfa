"""JSON Schema (2020-12) from type hints: what a form for a person is built from and an edit is checked against."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    set: {"type": "array", "uniqueItems": True},
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    dt.time: {"type": "string", "format": "time"},
    UUID: {"type": "string", "format": "uuid"},
    Decimal: {"type": "string", "format": "decimal"},
}


def schema_of(hint: Any) -> dict[str, Any]:
    """The schema of one annotation; {} (anything) for what it does not know. A dict is taken as a schema already."""
    if isinstance(hint, Mapping):
        return dict(hint)
    if hint is None:
        return {"type": "null"}
    if isinstance(hint, type) and hint in _SCALARS:
        return dict(_SCALARS[hint])
    origin = get_origin(hint)
    if origin is not None:
        return _schema_of_generic(origin, get_args(hint))
    return _schema_of_class(hint)


def of_arguments(fn: Callable[..., Any], *, locked: Sequence[str] = (), hidden: Sequence[str] = ()) -> dict[str, Any]:
    """A function's arguments as one object. `locked` ones are readOnly: a person sees, but may not edit them."""
    hints = hints_of(fn)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, parameter in inspect.signature(fn).parameters.items():
        if name in hidden:
            continue
        properties[name] = _schema_of_parameter(parameter, hints.get(name, Any))
        if name in locked:
            properties[name]["readOnly"] = True
        if parameter.default is parameter.empty and parameter.kind not in _OPEN:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """Annotations, resolved; {} where a name in them cannot be resolved (a class local to another function)."""
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _schema_of_parameter(parameter: inspect.Parameter, hint: Any) -> dict[str, Any]:
    schema = schema_of(hint)
    if parameter.kind is parameter.VAR_POSITIONAL:
        return {"type": "array", "items": schema}
    if parameter.kind is parameter.VAR_KEYWORD:
        return {"type": "object", "additionalProperties": schema}
    if isinstance(parameter.default, (str, int, float, bool)):
        schema["default"] = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    return schema


def _schema_of_generic(origin: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    if origin is typing.Annotated:
        return _annotated(args)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return _union(args)
    if origin is tuple:
        if args[-1:] == (...,):
            return {"type": "array", "items": schema_of(args[0])}
        return {"type": "array", "prefixItems": [schema_of(arg) for arg in args], "minItems": len(args)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(args[1])}
    if isinstance(origin, type) and issubclass(origin, (Sequence, set, frozenset)):
        return {"type": "array", "items": schema_of(args[0])}
    return {}


def _annotated(args: tuple[Any, ...]) -> dict[str, Any]:
    schema = schema_of(args[0])
    for extra in args[1:]:
        if isinstance(extra, str):
            schema["description"] = extra
        elif isinstance(extra, Mapping):
            schema.update(extra)
    return schema


def _union(args: tuple[Any, ...]) -> dict[str, Any]:
    schemas = [schema_of(arg) for arg in args]
    if all(set(schema) == {"type"} and isinstance(schema["type"], str) for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _schema_of_class(hint: Any) -> dict[str, Any]:
    if not isinstance(hint, type):
        return {}
    if issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    if hasattr(hint, "model_json_schema"):
        return dict(hint.model_json_schema())
    if dataclasses.is_dataclass(hint):
        return _schema_of_dataclass(hint)
    return {}


def _schema_of_dataclass(hint: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(hint, include_extras=True)
    properties, required = {}, []
    for field in dataclasses.fields(hint):
        properties[field.name] = schema_of(hints[field.name])
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        elif isinstance(field.default, (str, int, float, bool)):
            properties[field.name]["default"] = field.default
    return {
        "type": "object",
        "title": hint.__name__,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
