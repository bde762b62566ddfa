"""Form fields from a JSON Schema, and the JSON value back from what was typed, with its types kept.

What was not touched keeps the very value that was proposed (180.50 does not become 180.5 by being shown). A part that
no field can hold (a list, an object without properties) is one field of JSON text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any

import jsonschema
import orjson

from agentstate.core.limits import JSON_INT_MAX
from agentstate.http.redaction import Hidden, redact, secret_name

FIELDS_MAX = 200
DEPTH_MAX = 4
LONG_CHARS = 400  # a longer value has to be acknowledged before it is approved
ABSENT: Any = object()
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    path: Path
    label: str
    kind: str  # text, area, date, number, integer, yesno, choice, json
    value: str
    required: bool = False
    locked: bool = False
    hidden: bool = False  # a secret: shown as hidden, kept as it is
    options: tuple[tuple[str, str], ...] = ()
    hint: str = ""
    long: bool = False
    error: str = ""
    nullable: bool = False  # left empty it is null
    original: Any = field(default=ABSENT, compare=False)

    @property
    def name(self) -> str:
        return "arg." + ".".join(part.replace("\\", "\\\\").replace(".", "\\.") for part in self.path)

    @property
    def id(self) -> str:
        return "arg-" + "-".join("".join(sign if sign.isalnum() else "_" for sign in part) for part in self.path)

    @property
    def pointer(self) -> str:
        return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in self.path)

    @property
    def ack(self) -> str:
        return f"ack.{self.name}"

    @property
    def rows(self) -> int:
        return min(16, max(2, self.value.count("\n") + 1 + len(self.value) // 90))


@dataclass(frozen=True, slots=True)
class Reading:
    """What came back: the value, the fields with what was typed and what is wrong with them."""

    value: Any
    fields: list[Field]

    @property
    def errors(self) -> list[Field]:
        return [item for item in self.fields if item.error]


def fields(schema: Mapping[str, Any], value: Any = ABSENT) -> list[Field]:
    """One field per property that a person can edit. `value` ABSENT: an empty form with the schema's defaults."""
    return list(_fields(dict(schema), value, (), required=True, depth=0))[:FIELDS_MAX]


def read(schema: Mapping[str, Any], value: Any, posted: Mapping[str, str]) -> Reading:
    """Raises nothing: errors stand beside their fields."""
    result = {} if value is ABSENT else copy.deepcopy(value)
    shown = []
    for item in fields(schema, value):
        if item.locked or item.name not in posted:
            if item.original is not ABSENT and item.path and value is ABSENT:
                result = _put(result, item.path, item.original)
            shown.append(item)
            continue
        text = posted[item.name].replace("\r\n", "\n")
        parsed, error = (item.original, "") if text == item.value else _parse(item, text)
        shown.append(replace(item, value=text, error=error, long=len(text) > LONG_CHARS))
        if not error:
            result = _put(result, item.path, parsed)
    return Reading(result, shown if any(item.error for item in shown) else _validated(schema, result, shown))


def _fields(schema: dict[str, Any], value: Any, path: Path, *, required: bool, depth: int) -> Iterator[Field]:
    parts = schema.get("properties")
    if isinstance(parts, dict) and parts and depth < DEPTH_MAX and (value is ABSENT or isinstance(value, dict)):
        needed = schema.get("required") or []
        rest = [name for name in value if name not in parts] if isinstance(value, dict) else []
        ahead = [name for name in needed if name in parts]  # a stored schema has lost the order of its properties
        for name in [*ahead, *(name for name in parts if name not in ahead), *rest]:
            part = value.get(name, ABSENT) if isinstance(value, dict) else ABSENT
            yield from _fields(
                _schema_of(parts.get(name)), part, (*path, name), required=name in needed, depth=depth + 1
            )
    elif isinstance(value, dict) and value and "properties" not in schema and depth < DEPTH_MAX:
        for name, part in value.items():
            yield from _fields({}, part, (*path, name), required=True, depth=depth + 1)
    else:
        yield _leaf(schema, value, path, required=required)


def _schema_of(part: Any) -> dict[str, Any]:
    return part if isinstance(part, dict) else {}  # true and false are schemas too


def _leaf(schema: dict[str, Any], value: Any, path: Path, *, required: bool) -> Field:
    schema, nullable = _without_null(schema)
    original = schema.get("default", ABSENT) if value is ABSENT else value
    label = str(schema.get("title") or (path[-1].replace("_", " ").capitalize() if path else "Value"))
    if len(path) > 1 and not schema.get("title"):
        label = " / ".join(part.replace("_", " ") for part in path).capitalize()
    kind = _kind(schema, original)
    locked = bool(schema.get("readOnly")) or "const" in schema
    text = _text(original, "" if locked and kind == "choice" else kind)
    hidden = bool(path) and original is not ABSENT and (secret_name(path[-1]) or isinstance(redact(original), Hidden))
    return Field(
        path=path,
        label=label,
        kind="area" if kind == "text" and (len(text) > 80 or "\n" in text) else kind,
        value="" if hidden else text,
        required=required,
        locked=locked or hidden,
        hidden=hidden,
        options=_options(schema, kind, required=required),
        hint=_hint(schema),
        long=len(text) > LONG_CHARS and not hidden,
        nullable=nullable,
        original=original,
    )


def _without_null(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A schema that says "this or null" as "this", and whether it said so."""
    parts = schema.get("anyOf") or []
    rest = [part for part in parts if isinstance(part, dict) and part.get("type") != "null"]
    if len(rest) != 1 or len(rest) == len(parts):
        return schema, False
    return {**{name: part for name, part in schema.items() if name != "anyOf"}, **rest[0]}, True


def _kind(schema: dict[str, Any], value: Any) -> str:
    if "enum" in schema or _titled(schema):
        return "choice"
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else [kind for kind in kinds or () if kind != "null"]
    if len(kinds) == 1:
        if kinds == ["string"] and schema.get("format") == "date":
            return "date"
        known = {"string": "text", "number": "number", "integer": "integer", "boolean": "yesno"}
        return known.get(kinds[0], "json")
    if isinstance(value, bool):
        return "yesno"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) else "json"


def _titled(schema: dict[str, Any]) -> list[tuple[Any, str]]:
    """Choices written as oneOf of constants with titles."""
    parts = schema.get("oneOf") or schema.get("anyOf") or []
    if not parts or not all(isinstance(part, dict) and "const" in part for part in parts):
        return []
    return [(part["const"], str(part.get("title", part["const"]))) for part in parts]


def _text(value: Any, kind: str) -> str:
    if value is ABSENT:
        return ""
    if kind == "choice":
        return orjson.dumps(value).decode()
    if kind == "json" or isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _options(schema: dict[str, Any], kind: str, *, required: bool) -> tuple[tuple[str, str], ...]:
    if kind == "choice":
        named = _titled(schema) or [(item, item if isinstance(item, str) else str(item)) for item in schema["enum"]]
        found = [(orjson.dumps(item).decode(), words) for item, words in named]
    elif kind == "yesno":
        found = [("true", "yes"), ("false", "no")]
    else:
        return ()
    return tuple(found) if required else (("", "not set"), *found)


def _hint(schema: dict[str, Any]) -> str:
    parts = [str(schema.get("description", ""))]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        parts.append(f"From {low} to {high}.")
    elif low is not None:
        parts.append(f"At least {low}.")
    elif high is not None:
        parts.append(f"At most {high}.")
    return " ".join(part for part in parts if part)


def _parse(item: Field, text: str) -> tuple[Any, str]:
    if text.strip() == "" and item.nullable:
        return None, ""
    if text.strip() == "" and item.kind not in ("text", "area", "date"):
        return (ABSENT, "") if not item.required else (ABSENT, "Fill this in.")
    if item.kind in ("text", "area", "date"):
        if text == "" and item.original is ABSENT:
            return (ABSENT, "") if not item.required else (ABSENT, "Fill this in.")
        return text, ""
    if item.kind in ("number", "integer"):
        return _number(text.strip(), whole=item.kind == "integer")
    if item.kind == "yesno":
        return (text == "true", "") if text in ("true", "false") else (ABSENT, "Choose yes or no.")
    if item.kind == "choice":
        allowed = {option for option, _ in item.options}
        return (orjson.loads(text), "") if text in allowed else (ABSENT, "Choose one of the list.")
    return _json(text)


def _number(text: str, *, whole: bool) -> tuple[Any, str]:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return ABSENT, "Write a number, such as 1204.50."
    if not number.is_finite() or abs(number) > JSON_INT_MAX:
        return ABSENT, "This number is too large to be kept."
    if number == number.to_integral_value() and ("." not in text and "e" not in text.lower()):
        return int(number), ""
    return (ABSENT, "Write a whole number.") if whole else (float(number), "")


def _json(text: str) -> tuple[Any, str]:
    try:
        return orjson.loads(text), ""
    except orjson.JSONDecodeError as problem:
        return ABSENT, f"This is no valid JSON: {problem.msg} in line {problem.lineno}."


def _put(value: Any, path: Path, part: Any) -> Any:
    if not path:
        return {} if part is ABSENT else part
    place = value
    for name in path[:-1]:
        if part is ABSENT and name not in place:
            return value
        place = place.setdefault(name, {})
    if part is ABSENT:
        place.pop(path[-1], None)
    else:
        place[path[-1]] = part
    return value


def _validated(schema: Mapping[str, Any], value: Any, shown: list[Field]) -> list[Field]:
    """The schema's own refusals, each beside the field it is about (the first field when it is about none)."""
    if not schema:
        return shown
    found: dict[str, str] = {}
    for problem in list(jsonschema.Draft202012Validator(schema).iter_errors(value))[:20]:
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in problem.absolute_path)
        if problem.validator == "required":
            missing = [name for name in problem.validator_value if name not in (problem.instance or {})]
            pointer = f"{pointer}/{missing[0]}" if missing else pointer
            found.setdefault(pointer, "Fill this in.")
        else:
            found.setdefault(pointer, f"{problem.message[:200]}.")
    marked = list(shown)
    for pointer, text in found.items():
        place = _nearest(marked, pointer)
        if place is not None and not marked[place].error:
            marked[place] = replace(marked[place], error=text)
    return marked


def _nearest(shown: list[Field], pointer: str) -> int | None:
    """The field that holds this place of the value, else the first one."""
    for place, item in enumerate(shown):
        if pointer == item.pointer or (item.pointer and pointer.startswith(f"{item.pointer}/")):
            return place
    return 0 if shown else None
