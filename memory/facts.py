"""The structured facts of an item: one Pydantic model per kind, upgraded on reading, refused by field when they lie.

@facts.upcaster("order", 1)
def name_the_shop(doc):
    return {**doc, "shop": doc.pop("store", "")}

A kind's version is one more than its newest upcaster. Facts of a version this process does not know are shown as they
are and carried along untouched: newer code wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from agentstate.core import canonical, contradicting
from agentstate.core.errors import Invalid, TooLarge
from agentstate.core.limits import FACTS_BYTES_MAX

Doc = dict[str, Any]
Upcaster = Callable[[Doc], Doc]
VERSION_FIRST = 1
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
OptionalLine = Annotated[str, StringConstraints(strip_whitespace=True, max_length=300)]


class Facts(BaseModel):
    """`key_fields` name what the facts are about: two items that agree in them and differ elsewhere contradict."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Contact(Facts):
    """How somebody is reached."""

    channel: Literal["email", "phone", "post", "chat", "other"]
    address: OptionalLine = ""
    preferred: bool = False


class Preference(Facts):
    about: Line
    value: Line


class Order(Facts):
    number: Line
    status: OptionalLine = ""
    ordered_on: date | None = None
    total: OptionalLine = ""  # with its currency


class Commitment(Facts):
    """What was promised, by whom, until when."""

    what: Line
    by: Literal["us", "them"] = "us"
    due_on: date | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Facts as this process understands them."""

    facts: Doc | None
    version: int
    problem: str = ""  # why they are shown as they were stored


@dataclass(frozen=True, slots=True)
class _Kind:
    model: type[BaseModel]
    key_fields: tuple[str, ...]


_kinds: dict[str, _Kind] = {}
_upcasters: dict[str, dict[int, Upcaster]] = {}


def register(kind: str, model: type[BaseModel], *, key_fields: tuple[str, ...]) -> None:
    """Make a kind known. `key_fields`: of the model; together they say what its facts are about."""
    known = _kinds.get(kind)
    assert known is None or known.model is model, f"two models for facts of kind {kind}"
    assert set(key_fields) <= set(model.model_fields), f"{kind} has no such fields: {key_fields}"
    _kinds[kind] = _Kind(model, key_fields)


def upcaster(kind: str, version: int) -> Callable[[Upcaster], Upcaster]:
    """Decorates the function that takes facts of `version` and returns those of `version` + 1."""

    def remember(function: Upcaster) -> Upcaster:
        known = _upcasters.setdefault(kind, {})
        assert known.get(version, function) is function, f"two upcasters from version {version} of {kind}"
        known[version] = function
        return function

    return remember


def forget(kind: str) -> None:
    """Drop a kind and its upcasters: a test ends."""
    _kinds.pop(kind, None)
    _upcasters.pop(kind, None)


def kinds() -> dict[str, int]:
    """Kind -> the version that this process writes."""
    return {kind: current_version(kind) for kind in sorted(_kinds)}


def schema(kind: str) -> Doc:
    """The JSON Schema of a kind, for forms. Raises: Invalid."""
    return _known(kind).model.model_json_schema()


def current_version(kind: str) -> int:
    return max(_upcasters.get(kind, {}), default=VERSION_FIRST - 1) + 1


def validated(kind: str, facts: Mapping[str, Any] | None) -> Doc | None:
    """The facts in the form they are kept, of the current version. Raises: Invalid naming the field, TooLarge."""
    if not kind:
        if facts:
            raise Invalid("Facts need a fact_kind, which names their shape.", field="fact_kind")
        return None
    model = _known(kind).model
    if facts is None:
        raise Invalid(f"An item of fact_kind {kind} has facts.", field="facts")
    canonical.check(dict(facts), where="/facts")
    try:
        found: Doc = model.model_validate(dict(facts)).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        place = "/".join(["facts", *map(str, first["loc"])])
        raise Invalid(f"Facts of kind {kind}: {place}: {first['msg']}.", field=place) from error
    size = size_of(found)
    if size > FACTS_BYTES_MAX:
        raise TooLarge(
            f"facts are {size:,} bytes of JSON; at most {FACTS_BYTES_MAX:,} are kept with one item.", field="facts"
        )
    return found


def read(kind: str, version: int, stored: Doc | None) -> Read:
    """Stored facts in the current version. Raises nothing: what cannot be read is shown as it is, and says why."""
    if stored is None:
        return Read(None, version)
    if kind not in _kinds:
        return Read(stored, version, f"This process does not know facts of kind {kind}.")
    current = current_version(kind)
    if version > current:
        return Read(stored, version, f"Newer code wrote version {version} of {kind}; this process knows {current}.")
    try:
        doc = dict(stored)
        for step in range(version, current):
            doc = _upcasters[kind][step](dict(doc))
        return Read(validated(kind, doc), current)
    except KeyError as missing:
        return Read(stored, version, f"{kind} cannot be upgraded from version {version}: {missing} is missing.")
    except Invalid as problem:
        return Read(stored, version, problem.message)


def key_of(kind: str, facts: Doc | None) -> tuple[str, ...] | None:
    """What these facts are about, in a form that can be compared; None when they cannot contradict others."""
    about = dict.fromkeys(_kinds[kind].key_fields, "") if kind in _kinds else {}
    return contradicting.key_of(kind, facts, about)


def size_of(facts: Doc | None) -> int:
    """Bytes of the canonical JSON: what facts take of the cap."""
    return 0 if facts is None else len(canonical.dumps(facts))


def _known(kind: str) -> _Kind:
    if kind not in _kinds:
        raise Invalid(f"There are no facts of kind {kind}; known are {', '.join(sorted(_kinds))}.", field="fact_kind")
    return _kinds[kind]


_OURS: dict[str, type[Facts]] = {
    "contact": Contact,
    "preference": Preference,
    "order": Order,
    "commitment": Commitment,
}
for _kind, _model in _OURS.items():
    register(_kind, _model, key_fields=tuple(contradicting.ABOUT[_kind]))
