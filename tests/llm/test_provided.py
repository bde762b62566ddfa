"""Models of other makers through pydantic-ai: the real client over real HTTP, and its errors as ours."""

from __future__ import annotations

import sys
import threading

import pytest
from pytest_django import Settings

from agentstate.llm import chat, summarising
from agentstate.llm.provided import Provided
from tests.llm.conftest import Served
from tests.llm.test_summarising import told

KEY = "sk-very-secret"
QUESTION = [chat.Message("system", "Be short."), chat.Message("assistant", "Yes?"), chat.Message("user", "Who?")]


@pytest.fixture
def provided(served: Served, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The endpoint, reached as a maker's client reaches its own: by the environment."""
    monkeypatch.setenv("OPENAI_BASE_URL", settings.OPENAI_BASE_URL)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings.SUMMARY_PROVIDER, settings.SUMMARY_MODEL, settings.OPENAI_BASE_URL = "pydantic-ai", "openai-chat:small", ""
    return served


def ask() -> chat.Reply:
    return Provided("openai-chat:small", reply_s_max=20).complete(QUESTION, purpose="test", tokens_max=50)


def test_a_maker_is_asked_by_its_own_client(provided: Served) -> None:
    provided.said = "Ada."
    reply = ask()
    assert (reply.text, reply.tokens_in, reply.tokens_out, reply.model) == ("Ada.", 11, 7, "openai-chat:small")
    assert [(one["role"], one["content"]) for one in provided.asked[0]["messages"]] == [
        ("system", "Be short."),
        ("assistant", "Yes?"),
        ("user", "Who?"),
    ]
    assert 50 in (provided.asked[0].get("max_tokens"), provided.asked[0].get("max_completion_tokens"))


def test_a_summary_by_it_says_whose_it_is_and_in_any_thread(provided: Served) -> None:
    provided.said = "Order 4711 broke; 129.95 EUR are refunded."
    found: list[summarising.Summary] = []
    asking = threading.Thread(target=lambda: found.append(told()))
    asking.start()
    asking.join()
    assert [(one.text, one.method) for one in found] == [(provided.said, "openai-chat:small")]
    assert summarising.words() == "openai-chat:small by pydantic-ai; extracts when it fails"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b'{"error": {"message": "wrong key sk-very-secret"}}', chat.ModelRefused),
        (404, b'{"error": {"message": "no such model"}}', chat.ModelRefused),
        (200, b"<html>", chat.ModelUnavailable),
        (200, b'{"choices": []}', chat.ModelUnavailable),
    ],
)
def test_its_errors_are_ours_and_quote_nothing(
    provided: Served, status: int, body: bytes, error: type[Exception]
) -> None:
    provided.status, provided.body = status, body
    with pytest.raises(error) as raised:
        ask()
    assert KEY not in str(raised.value) and "openai-chat:small" in str(raised.value)
    assert raised.value.__cause__ is None
    found = told()
    assert found.method.startswith("extractive (model-") and "4711" in found.text


def test_an_endpoint_that_is_away_costs_no_summary(provided: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(chat.ModelUnavailable, match="did not answer"):
        ask()


def test_a_model_nobody_can_ask_is_said_before_it_is_asked(
    provided: Served, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SUMMARY_MODEL = "nobody:small"
    with pytest.raises(chat.ModelRefused, match="maker:model"):
        summarising.words()
    settings.SUMMARY_MODEL = "openai-chat:small"
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(chat.ModelRefused, match="key"):
        summarising.words()
    monkeypatch.setitem(sys.modules, "pydantic_ai.models", None)
    with pytest.raises(chat.ModelRefused, match="pip install"):
        summarising.words()
    assert told().method == "extractive (model-refused)"
    assert provided.asked == []
