"""The protocol's dataclasses <-> JSON. Both sides of the REST API use this module, so they cannot differ.

Requests leave out every field that has its default and are read strictly: an unknown field is refused, and each refusal
names the place as a JSON pointer. Replies carry every field and are read leniently: a newer service may say more.
A union of dataclasses is an object with one member, its name in lower case: `{"park": {"why": "timer", "due_s": 5}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson

from agentstate.core import canonical
from agentstate.core.errors import Invalid
from agentstate.core.limits import JSON_DEPTH_MAX
from agentstate.sdk.store import AgentSpec, Entry, WorkerInfo

AnyType = TypeVar("AnyType")
Reader = Callable[[Any, bool], Any]  # (JSON value, strict) -> Python value
Writer = Callable[[Any], Any]

# A date inside a value of the agent's would become text here, and be refused by the local store.
_PLAIN_ONLY = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

# orjson reads an integer that does not fit into 64 bits as a float; nineteen digits are where that can begin.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Who wants a run, of which agents, and for how many seconds the answer may wait."""

    worker: WorkerInfo
    agents: Mapping[str, AgentSpec] = field(default_factory=dict)  # may be empty when the run is named
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ScratchpadRequest:
    """Entries to show at once. durable: also write them into the trace now, else the next turn must carry them."""

    entries: Sequence[Entry]
    durable: bool = False


def loads(body: bytes) -> Any:
    """Parse a body, or say what is wrong with it and where.

    Raises: Invalid; its field is the JSON pointer of a value that cannot be kept (NaN, a lone surrogate, NUL, an
    integer outside 64 bits, nesting), or empty when the text is no JSON at all (`malformed` is then true in its data).
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _explain(body, str(error))
    if _LONG_NUMBER.search(body):
        value = json.loads(body)
        canonical.check(value)
    elif b"\\u0000" in body or _may_be_deep(value, body):
        canonical.check(value)
    return value


def dumps(value: Any) -> bytes:
    """A request's body. Raises: Invalid, naming the place of a value that JSON cannot carry."""
    plain = encode(value)
    try:
        body = orjson.dumps(plain, option=_PLAIN_ONLY)
    except TypeError as error:
        canonical.check(plain, where="")
        raise Invalid(f"This cannot be sent as JSON: {error}.") from None
    if b"null" in body or b"\\u0000" in body:  # orjson writes NaN as null without a word
        canonical.check(plain, where="")
    return body


def reply(value: Any) -> bytes:
    """A reply's body, every field spelled out."""
    return orjson.dumps(value, default=_plain_mapping)


def encode(value: Any) -> Any:
    """A protocol object, a mapping or sequence of them, or plain JSON, as plain JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return _writer(type(value))(value)
    if isinstance(value, Mapping):
        return {key: encode(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [encode(each) for each in value]
    return value


def decode(cls: type[AnyType], raw: Any, *, strict: bool = True) -> AnyType:
    """Build a `cls` from parsed JSON. Raises: Invalid whose field is the JSON pointer of the fault."""
    reader: Callable[[Any, bool], AnyType] = _reader(cls)  # type: ignore[arg-type]
    return reader(raw, strict)


# --- reading


@dataclass(frozen=True, slots=True)
class _Shape:
    readers: Mapping[str, Reader]
    required: tuple[str, ...]


@cache
def _reader(kind: Any) -> Reader:
    if kind is Any:
        return lambda value, strict: value
    if kind in _SCALARS:
        return _SCALARS[kind]
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _literal_reader(arguments)
    if origin in (Union, UnionType):
        return _union_reader(arguments)
    if origin is Sequence:
        return _sequence_reader(_reader(arguments[0]))
    assert origin is Mapping, f"the wire knows no {kind}"
    return _mapping_reader(_reader(arguments[1]))


def _dataclass_reader(cls: Any) -> Reader:
    hints = get_type_hints(cls)
    shape = _Shape(
        {each.name: _reader(hints[each.name]) for each in fields(cls)},
        tuple(each.name for each in fields(cls) if each.default is MISSING and each.default_factory is MISSING),
    )

    def read(value: Any, strict: bool) -> Any:
        return cls(**_read_members(shape, value, strict))

    return read


def _read_members(shape: _Shape, value: Any, strict: bool) -> dict[str, Any]:
    if type(value) is not dict:
        raise Invalid(f"This must be an object, not {_kind(value)}.")
    found = {}
    for name, each in value.items():
        reader = shape.readers.get(name)
        if reader is None:
            if strict:
                raise Invalid(f"There is no field {name[:80]!r} here.", field=_pointer(name))
            continue
        try:
            found[name] = reader(each, strict)
        except Invalid as fault:
            fault.field = _pointer(name) + fault.field
            raise
    for name in shape.required:
        if name not in found:
            raise Invalid(f"The field {name!r} is missing.", field=_pointer(name))
    return found


def _sequence_reader(item: Reader) -> Reader:
    def read(value: Any, strict: bool) -> tuple[Any, ...]:
        if type(value) is not list:
            raise Invalid(f"This must be an array, not {_kind(value)}.")
        return tuple(_read_at(item, each, str(place), strict) for place, each in enumerate(value))

    return read


def _mapping_reader(item: Reader) -> Reader:
    def read(value: Any, strict: bool) -> dict[str, Any]:
        if type(value) is not dict:
            raise Invalid(f"This must be an object, not {_kind(value)}.")
        return {name: _read_at(item, each, name, strict) for name, each in value.items()}

    return read


def _union_reader(arguments: tuple[Any, ...]) -> Reader:
    choices = [each for each in arguments if each is not NoneType]
    optional = len(choices) < len(arguments)
    reader = _reader(choices[0]) if len(choices) == 1 else _tagged_reader(choices)

    def read(value: Any, strict: bool) -> Any:
        return None if value is None and optional else reader(value, strict)

    return read


def _tagged_reader(choices: Sequence[Any]) -> Reader:
    readers = {choice.__name__.lower(): _reader(choice) for choice in choices}

    def read(value: Any, strict: bool) -> Any:
        if type(value) is not dict or len(value) != 1 or next(iter(value)) not in readers:
            raise Invalid(f"This must be an object with exactly one of the members {', '.join(sorted(readers))}.")
        [(name, each)] = value.items()
        return _read_at(readers[name], each, name, strict)

    return read


def _literal_reader(choices: tuple[Any, ...]) -> Reader:
    def read(value: Any, strict: bool) -> Any:
        if value not in choices or type(value) is not str:
            raise Invalid(f"This must be one of {', '.join(choices)}.")
        return value

    return read


def _read_at(reader: Reader, value: Any, name: str, strict: bool) -> Any:
    try:
        return reader(value, strict)
    except Invalid as fault:
        fault.field = _pointer(name) + fault.field
        raise


def _text(value: Any, strict: bool) -> str:
    if type(value) is not str:
        raise Invalid(f"This must be text, not {_kind(value)}.")
    return value


def _whole(value: Any, strict: bool) -> int:
    if type(value) is not int:
        raise Invalid(f"This must be a whole number, not {_kind(value)}.")
    if not -(2**63) <= value < 2**63:
        raise Invalid("This whole number does not fit into 64 bits.")
    return value


def _number(value: Any, strict: bool) -> float:
    if type(value) is not float and type(value) is not int:
        raise Invalid(f"This must be a number, not {_kind(value)}.")
    return float(value)


def _truth(value: Any, strict: bool) -> bool:
    if type(value) is not bool:
        raise Invalid(f"This must be true or false, not {_kind(value)}.")
    return value


def _moment(value: Any, strict: bool) -> datetime:
    try:
        found = datetime.fromisoformat(_text(value, strict))
    except ValueError:
        raise Invalid("This must be a time like 2026-01-31T12:00:00Z.") from None
    if found.tzinfo is None:
        raise Invalid("This time needs its offset, as in 2026-01-31T12:00:00Z.")
    return found


_SCALARS: dict[Any, Reader] = {str: _text, int: _whole, float: _number, bool: _truth, datetime: _moment}
_KINDS = {dict: "an object", list: "an array", str: "text", bool: "true or false", NoneType: "null"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number")


def _pointer(name: str) -> str:
    return "/" + name[:80].replace("~", "~0").replace("/", "~1")


def _explain(body: bytes, fault: str) -> Any:
    """orjson refuses NaN and lone surrogates as bad JSON; json reads them, and the check names the place."""
    try:
        value = json.loads(body)
    except RecursionError:
        raise Invalid(f"This is nested more than {JSON_DEPTH_MAX} deep.") from None
    except ValueError:
        raise Invalid(f"The body is not JSON: {fault}.", malformed=True) from None
    canonical.check(value, where="")
    raise Invalid(f"The body is not JSON: {fault}.", malformed=True)


def _may_be_deep(value: Any, body: bytes) -> bool:
    """Level by level, which is far quicker than the check that names places."""
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH_MAX:
        return False
    level = [value]
    for _ in range(JSON_DEPTH_MAX + 1):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


# --- writing


@cache
def _writer(cls: Any) -> Writer:
    hints = get_type_hints(cls)
    plan = [(each.name, _default(each), _field_writer(hints[each.name])) for each in fields(cls)]

    def write(value: Any) -> dict[str, Any]:
        found = {}
        for name, default, writer in plan:
            each = getattr(value, name)
            if each is not default and not (each == default and type(each) is type(default)):
                found[name] = writer(each) if writer else each
        return found

    return write


def _default(each: Any) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _field_writer(kind: Any) -> Writer | None:
    """None: orjson takes the value as it is."""
    choices = [each for each in get_args(kind) if each is not NoneType]
    if datetime in (kind, *choices):
        return lambda value: value.isoformat()
    if get_origin(kind) in (Union, UnionType) and len(choices) > 1:
        return lambda value: {type(value).__name__.lower(): encode(value)}
    return None if kind is Any or kind in _SCALARS or get_origin(kind) is Literal else encode


def _plain_mapping(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
