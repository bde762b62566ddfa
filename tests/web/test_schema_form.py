"""Forms from a JSON Schema: types survive the way through a page, and what is wrong stands beside its field."""

from __future__ import annotations

from typing import Any

import pytest

from agentstate.http import schema_form

REFUND: dict[str, Any] = {
    "type": "object",
    "required": ["order", "amount", "currency"],
    "additionalProperties": False,
    "properties": {
        "order": {"type": "string", "readOnly": True},
        "amount": {"type": "number", "minimum": 0, "maximum": 500},
        "currency": {"enum": ["EUR", "USD"]},
        "lines": {"type": "array", "items": {"type": "integer"}},
        "notify": {"type": "boolean"},
        "note": {"type": "string"},
    },
}
PROPOSED = {"order": "4467", "amount": 180.50, "currency": "EUR", "lines": [1, 2], "note": "two lamps"}


def posted(**changes: str) -> dict[str, str]:
    untouched = {item.name: item.value for item in schema_form.fields(REFUND, PROPOSED) if not item.locked}
    return {**untouched, **{f"arg.{name}": text for name, text in changes.items()}}


def test_an_untouched_form_gives_the_proposed_value_back() -> None:
    reading = schema_form.read(REFUND, PROPOSED, posted())
    assert reading.value == PROPOSED
    assert not reading.errors


def test_an_edited_number_stays_a_number_and_others_keep_their_types() -> None:
    reading = schema_form.read(REFUND, PROPOSED, posted(amount="150"))
    assert reading.value == {**PROPOSED, "amount": 150}
    assert isinstance(reading.value["amount"], int)
    assert schema_form.read(REFUND, PROPOSED, posted(amount="150.25")).value["amount"] == 150.25


def test_a_locked_field_cannot_be_changed_by_sending_it() -> None:
    reading = schema_form.read(REFUND, PROPOSED, posted(order="9999"))
    assert reading.value["order"] == "4467"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("amount", "a lot", "Write a number"),
        ("amount", "501", "maximum"),
        ("amount", "1e999", "too large"),
        ("amount", "", "Fill this in"),
        ("currency", '"GBP"', "Choose one"),
        ("lines", "[1, 2", "no valid JSON"),
        ("lines", '["x"]', "integer"),
        ("notify", "maybe", "Choose yes or no"),
    ],
)
def test_what_cannot_be_used_is_said_beside_its_field(name: str, text: str, says: str) -> None:
    reading = schema_form.read(REFUND, PROPOSED, posted(**{name: text}))
    wrong = {item.label: item.error for item in reading.errors}
    assert len(wrong) == 1
    assert says in next(iter(wrong.values()))
    assert next(item for item in reading.fields if item.error).value == text, "what was typed is kept"


def test_an_optional_field_left_empty_is_not_sent() -> None:
    reading = schema_form.read(REFUND, schema_form.ABSENT, {"arg.amount": "5", "arg.currency": '"EUR"', "arg.note": ""})
    assert "note" not in reading.value and "notify" not in reading.value


def test_without_a_schema_the_value_itself_tells_the_types() -> None:
    value = {"n": 3, "deep": {"flag": True, "name": "x"}, "list": [1]}
    shown = {item.pointer: item.kind for item in schema_form.fields({}, value)}
    assert shown == {"/n": "number", "/deep/flag": "yesno", "/deep/name": "text", "/list": "json"}
    reading = schema_form.read({}, value, {"arg.deep.flag": "false", "arg.n": "4"})
    assert reading.value == {"n": 4, "deep": {"flag": False, "name": "x"}, "list": [1]}


def test_defaults_of_a_schema_fill_an_empty_form() -> None:
    schema = {"type": "object", "properties": {"depth": {"type": "integer", "default": 3}}}
    assert [item.value for item in schema_form.fields(schema)] == ["3"]
    assert schema_form.read(schema, schema_form.ABSENT, {"arg.depth": "3"}).value == {"depth": 3}


def test_a_secret_is_shown_hidden_and_kept() -> None:
    value = {"api_key": "sk-0123456789abcdef01234567", "to": "a@b.test"}
    hidden = next(item for item in schema_form.fields({}, value) if item.hidden)
    assert hidden.value == "" and hidden.locked
    assert schema_form.read({}, value, {"arg.api_key": "", "arg.to": "c@d.test"}).value == {**value, "to": "c@d.test"}


def test_a_long_value_asks_to_be_acknowledged() -> None:
    text = "x" * (schema_form.LONG_CHARS + 1)
    assert [item.long for item in schema_form.fields({}, {"body": text, "to": "x"})] == [True, False]


def test_names_with_dots_do_not_collide() -> None:
    names = {item.name for item in schema_form.fields({}, {"a.b": 1, "a": {"b": 2}})}
    assert len(names) == 2


def test_a_date_that_may_be_left_empty_is_a_date_field_and_comes_back_as_null() -> None:
    when = {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None}
    schema = {"type": "object", "properties": {"due_on": when, "what": {"type": "string"}}, "required": ["what"]}
    shown = {item.pointer: item for item in schema_form.fields(schema, {"what": "call", "due_on": "2026-11-30"})}
    assert shown["/due_on"].kind == "date" and shown["/due_on"].value == "2026-11-30"
    posted = {"arg.what": "call", "arg.due_on": ""}
    assert schema_form.read(schema, {"what": "call", "due_on": "2026-11-30"}, posted).value["due_on"] is None
    assert schema_form.read(schema, schema_form.ABSENT, posted).value == {"what": "call", "due_on": None}
    kept = schema_form.read(schema, {"what": "call", "due_on": None}, {**posted, "arg.due_on": "2026-12-01"})
    assert kept.value["due_on"] == "2026-12-01" and not kept.errors
