from __future__ import annotations

import datetime
import enum
import json
import math
from collections import namedtuple
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstate.core import canonical
from agentstate.core.errors import Invalid
from agentstate.core.limits import JSON_DEPTH_MAX

Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Thing:
    name: str = "x"


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


BAD = [
    pytest.param({"a": [1, math.nan]}, "/a/1", id="nan"),
    pytest.param({"a": {"b": math.inf}}, "/a/b", id="infinity"),
    pytest.param([None, -math.inf], "/1", id="minus-infinity"),
    pytest.param({"a": "x\x00y"}, "/a", id="nul"),
    pytest.param({"a": "ä\x00"}, "/a", id="nul-behind-an-umlaut"),
    pytest.param({"a": ["\ud800"]}, "/a/0", id="lone-high-surrogate"),
    pytest.param({"a": "\udfff!"}, "/a", id="lone-low-surrogate"),
    pytest.param([2**64], "/0", id="int-2-64"),
    pytest.param([-(2**63) - 1], "/0", id="int-under"),
    pytest.param([10**400], "/0", id="int-huge"),
    pytest.param({"a": {1: 2}}, "/a", id="int-key"),
    pytest.param({"a": {None: 2}}, "/a", id="none-key"),
    pytest.param({"a~b/c": {"d": {1, 2}}}, "/a~0b~1c/d", id="set"),
    pytest.param([b"bytes"], "/0", id="bytes"),
    pytest.param([object()], "/0", id="object"),
    pytest.param([Thing()], "/0", id="dataclass"),
    pytest.param([datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)], "/0", id="datetime"),
    pytest.param([{"a": Point(1, 2)}], "/0/a", id="named-tuple"),
    pytest.param([numpy.float64(1.5)], "/0", id="numpy-float"),
]


@pytest.mark.parametrize(("value", "place"), BAD)
def test_what_json_cannot_hold_is_refused_with_its_place(value: object, place: str) -> None:
    with pytest.raises(Invalid) as refused:
        canonical.dumps(value, where="/input")
    assert refused.value.field == f"/input{place}"
    assert f"/input{place}" in refused.value.message
    with pytest.raises(Invalid) as refused:
        canonical.check(value)
    assert refused.value.field == place


@pytest.mark.parametrize(("key", "shown"), [("a\x00b", "/a\\u0000b"), ("\ud800", "/\\ud800")])
def test_a_bad_key_is_refused_in_a_message_that_can_be_printed(key: str, shown: str) -> None:
    with pytest.raises(Invalid) as refused:
        canonical.dumps({key: 1})
    assert refused.value.field == shown
    refused.value.message.encode()


@pytest.mark.parametrize("depth", [1, 99, JSON_DEPTH_MAX])
def test_the_allowed_depth_is_kept(depth: int) -> None:
    assert canonical.loads(canonical.dumps(nested(depth))) == nested(depth)
    canonical.check(nested(depth))


@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX + 1, 200, 253, 254, 255, 1000, 20_000])
def test_deeper_values_are_refused(depth: int) -> None:
    with pytest.raises(Invalid, match="deeper than 100"):
        canonical.dumps(nested(depth))
    with pytest.raises(Invalid, match="deeper than 100"):
        canonical.check(nested(depth))


@pytest.mark.parametrize("wide", [["x" * 20_000], [[]] * 300, [{"a": []}] * 200])
def test_depth_is_seen_in_wide_and_in_long_values_too(wide: list[Any]) -> None:
    assert canonical.dumps([wide, nested(JSON_DEPTH_MAX - 1)])
    with pytest.raises(Invalid, match="deeper"):
        canonical.dumps([wide, nested(JSON_DEPTH_MAX)])


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Invalid, match="deeper"):
        canonical.dumps(loop)


def test_ints_up_to_64_bits_are_written_and_borders_refuse_over_63() -> None:
    assert canonical.dumps([2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
    canonical.check([2**63 - 1, -(2**63)])
    with pytest.raises(Invalid) as refused:
        canonical.check({"n": 2**63})
    assert refused.value.field == "/n"


def test_the_words_null_and_backslash_u0000_are_ordinary_text() -> None:
    value = {"null": "null", "a": None, "b": "\\u0000", "c": ["null", None, (None,)]}
    assert canonical.loads(canonical.dumps(value)) == {**value, "c": ["null", None, [None]]}


def test_keys_are_sorted_at_every_level_and_order_never_matters() -> None:
    assert canonical.dumps({"b": {"d": 1, "c": 2}, "a": ()}) == b'{"a":[],"b":{"c":2,"d":1}}'


def test_uuids_and_members_become_text_on_both_ways() -> None:
    value = {"id": UUID(int=7), "colour": Colour.RED, "none": None}  # None sends it through the walk as well
    assert canonical.loads(canonical.dumps(value)) == {"id": str(UUID(int=7)), "colour": "red", "none": None}
    canonical.check(value)


def test_digest_is_the_sha_of_the_bytes() -> None:
    assert canonical.digest({"a": 1}) == canonical.sha(b'{"a":1}')
    assert len(canonical.digest(None)) == 32


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[" * 100_000, b"nul", b"\xff", b'"\xed\xa0\x80"', b"1" * 5_000, b"[1e999]", b"NaN", b"[-Infinity]",
     b"9223372036854775808", b"18446744073709551616", b'"\\u0000"', b'"\\ud800"', b'{"\\u0000":1}'],
)  # fmt: skip
def test_bad_json_of_strangers_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        canonical.parse(raw)


def test_good_json_of_strangers_is_read() -> None:
    assert canonical.parse(b' {"a": [1.5, "\\ud83d\\ude00", null]} ') == {"a": [1.5, "😀", None]}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=40,
)


@given(json_values)
def test_what_is_written_is_read_back_the_same(value: object) -> None:
    try:
        raw = canonical.dumps(value)
    except Invalid:
        assert "\\u0000" in json.dumps(value)  # only a key with NUL is refused here
        return
    assert canonical.loads(raw) == value
    assert canonical.parse(raw) == value
    assert canonical.dumps(canonical.loads(raw)) == raw


any_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner) | st.tuples(inner),
    max_leaves=40,
)


@given(any_values)
def test_the_fast_way_refuses_exactly_what_the_full_walk_refuses(value: object) -> None:
    def refused_by_walk() -> str | None:
        try:
            canonical._walk(value, "", 0, 2**64 - 1)
        except Invalid as refusal:
            return refusal.field
        return None

    try:
        raw = canonical.dumps(value)
    except Invalid as refusal:
        assert refusal.field == refused_by_walk()
    else:
        assert refused_by_walk() is None
        assert orjson.loads(raw) == json.loads(json.dumps(value))
