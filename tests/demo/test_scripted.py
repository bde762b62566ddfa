"""The scripted model reads every message of the mailbox rightly, and always the same way."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from agentstate.dev.demo.scripted import Scripted, read_message
from agentstate.dev.demo.shapes import Letter, Reading
from agentstate.dev.sandbox.catalogue import ORDERS
from agentstate.dev.sandbox.mailbox import MESSAGES
from agentstate.llm import chat

EXPECTED = {
    "msg-01": ("refund", "4467", "180.50", "en"),
    "msg-02": ("refund", "4471", "49.90", "en"),
    "msg-03": ("refund", "4480", "129.00", "fr"),
    "msg-04": ("refund", "4485", "42.25", "de"),
    "msg-05": ("question", "4490", None, "es"),
    "msg-06": ("refund", "4493", "1249.00", "en"),
    "msg-07": ("spam", None, None, "en"),
    "msg-08": ("injection", "4502", None, "en"),
    "msg-09": ("refund", "4391", "15.00", "en"),
    "msg-10": ("complaint", "4498", None, "en"),
    "msg-11": ("refund", "4502", "400.00", "en"),
    "msg-12": ("refund", "4507", "19.00", "nl"),
    "msg-13": ("question", None, None, "en"),
}


@pytest.mark.parametrize("message_id", MESSAGES)
def test_a_message_is_read_as_a_person_would(message_id: str) -> None:
    found = Reading.model_validate(read_message(asdict(MESSAGES[message_id])))
    assert (found.kind, found.order, found.amount, found.language) == EXPECTED[message_id]
    assert found.order is None or found.order in ORDERS


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("refund of €1.249,00 please", "1249.00"),
        ("refund of 1,249.00 EUR", "1249.00"),
        ("refund 12 000,50 please", "12000.50"),
        ("refund me", None),
        ("refund 3.14159", None),
    ],
)
def test_amounts_are_read_in_every_spelling(text: str, amount: str | None) -> None:
    assert read_message({"subject": "", "body": text})["amount"] == amount


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "nl"])
@pytest.mark.parametrize("outcome", ["refunded", "declined", "answered"])
def test_every_outcome_has_a_letter_in_every_language(language: str, outcome: str) -> None:
    facts = {"outcome": outcome, "language": language, "name": "Ada {x}", "subject": "s" * 300, "order": "4467"}
    asked = [chat.Message("user", json.dumps({**facts, "amount": "12.00", "reason": "Because."}))]
    letter, reply = chat.ask_for(Scripted(), Letter, asked, purpose="write-letter")
    assert "Ada {x}" in letter.text
    assert ("12.00" in letter.text) is (outcome == "refunded")
    assert min(reply.tokens_in, reply.tokens_out, reply.cost) > 0


def test_an_unknown_purpose_is_an_error_and_not_an_empty_answer() -> None:
    with pytest.raises(chat.BadAnswer, match="no rules for 'sing'"):
        Scripted().complete([chat.Message("user", "{}")], purpose="sing")
