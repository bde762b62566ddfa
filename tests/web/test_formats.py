"""How values are written: escaped, whole where it matters, secrets hidden, nothing invisible."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstate.core.clock import now
from agentstate.http.redaction import Hidden, redact
from agentstate.web import diffs, values
from agentstate.web.templatetags import formats
from tests.web.test_static import STATIC

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=30),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=10), part, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_a_tree_never_lets_markup_of_a_value_through(value: object) -> None:
    page = values.tree(value, whole=True)
    tags = set(re.findall(r"<(/?\w+)", page))
    assert tags <= {"ul", "/ul", "li", "/li", "details", "/details", "summary", "/summary", "small", "/small"} | {
        "svg", "/svg", "use", "span", "/span", "i", "/i"
    }  # fmt: skip
    assert not values.INVISIBLE.search(page)


def test_a_tree_folds_what_is_long_but_shows_arguments_whole() -> None:
    letter = "word " * 200
    assert "1,000 characters" in values.tree({"body": letter})
    whole = values.tree({"body": letter}, whole=True)
    assert "characters" not in whole and letter in whole


def test_a_huge_tree_is_cut_and_says_how_much_is_left_out() -> None:
    page = values.tree(list(range(5000)))
    assert page.count("<li>") < 700
    assert re.search(r"[\d,]+ more values in the raw view", page)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("password", "hunter2"),
        ("apiKey", "abc"),
        ("client-secret", "abc"),
        ("Authorization", "Basic Zm9v"),
        ("access_token", "abc"),
        ("note", "sk-0123456789abcdefghij"),
        ("note", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r"),
        ("note", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"),
        ("card", "4242 4242 4242 4242"),
    ],
)
def test_secrets_are_hidden_by_their_name_or_by_their_shape(key: str, value: str) -> None:
    shown = redact({"deep": [{key: value}]})
    assert isinstance(shown["deep"][0][key], Hidden)
    assert value not in values.tree({key: value})


@pytest.mark.parametrize(
    "kept",
    [
        {"tokens": 1204},
        {"order": "4467"},
        {"id": "01a1feb3dca4723fb7fd824ef30c2fc6"},
        {"run": "run_01a2010581657530bba38ee8fdbc9cd8"},
        {"run": "run_4111111111111111bba38ee8fdbc9cd8"},
        {"run": "01a20105-8165-7530-4111-111111111111"},
        {"share": "0.4111111111111111"},
        {"n": "1234567890123456"},
    ],
)
def test_what_only_looks_a_little_like_a_secret_stays(kept: dict[str, object]) -> None:
    assert redact(kept) == kept


@pytest.mark.parametrize("card", ["4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111"])
@pytest.mark.parametrize("text", ["{}", "It is {}.", "No.{}", "({})", "Card-{}, please"])
def test_a_card_number_is_hidden_wherever_it_stands(card: str, text: str) -> None:
    assert not re.search(r"\d{4}", str(redact(text.format(card))))


def test_a_secret_inside_a_text_is_cut_out_of_it() -> None:
    shown = redact("postgresql://app:s3cret@db/x and Bearer abcdefghijklmnopqrstuv")
    assert "s3cret" not in shown and "abcdefghij" not in shown and "@db/x" in shown


def test_a_difference_names_paths_and_keeps_types_apart() -> None:
    found = diffs.difference({"a": 1, "b": [1, 2], "c/d": "x"}, {"a": 1.5, "b": [1], "e": None, "c/d": "x"})
    assert [(row.op, row.path) for row in found.rows] == [("~", "/a"), ("−", "/b/1"), ("+", "/e")]
    assert diffs.difference({"n": 1}, {"n": True}), "1 and true are different values"
    assert not diffs.difference({"n": [1, {"x": 2}]}, {"n": [1, {"x": 2}]})


def test_a_long_difference_is_cut_and_says_so() -> None:
    found = diffs.difference(list(range(500)), [])
    assert len(found.rows) == diffs.ROWS_MAX and found.cut


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0004, "0 ms"),
        (0.099, "99 ms"),
        (0.0999, "0.1 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (727, "12 min 7 s"),
        (3600, "1 h"),
        (11_000, "3 h 3 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert formats.duration(seconds) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "$0"), (0.00002, "<$0.001"), (0.0311, "$0.031"), (12.345, "$12.35"), (1204.1, "$1,204.10")],
)
def test_money_says_something_however_small(amount: float, words: str) -> None:
    assert formats.money(amount) == words


def test_times_are_absolute_with_a_machine_form_and_relative_beside() -> None:
    at = now() - timedelta(minutes=12)
    assert re.fullmatch(r'<time datetime="\S+Z" title="\S+Z">[\w: ]+</time>', formats.clock(at))
    assert formats.ago(at) == "12 min ago"
    assert formats.ago(now() + timedelta(minutes=11, seconds=5)) == "in 11 min"
    assert formats.clock(None) == formats.ago(None) == ""


def test_every_status_has_a_shape_a_word_and_a_tone() -> None:
    from runs.states import ApprovalStatus, RunStatus, StepStatus

    for status in [*RunStatus.values, *StepStatus.values, *ApprovalStatus.values]:
        assert status in formats.STATES, status
        assert "<use" in formats.state(status)
    shapes = set(re.findall(r'id="(\w+)"', (STATIC / "sprite.svg").read_text()))
    assert {shape for shape, *_ in formats.STATES.values()} | set(formats.KIND_ICONS.values()) <= shapes
