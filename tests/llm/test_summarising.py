"""Summaries are short, name their sources, keep what is important, and believe no model blindly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pytest_django import Settings

from agentstate.core import tokens
from agentstate.core.limits import SUMMARISED_CHARS_MAX
from agentstate.llm import chat, summarising
from agentstate.llm.summarising import Source
from tests.llm.conftest import Served

NOISE = "The weather is nice today and nothing else is new in this place."
TALK = [
    "Hello there. I write about my order. Order 4711 came broken on 3 May. Thank you for looking at this.",
    "We looked at it. It was decided to refund 129.95 EUR because the courier lost the parcel. Have a good day.",
    *[NOISE] * 30,
    "客户的订单已经丢失。我们决定退款。今天天气很好。",
    "Заказ потерян. Решено вернуть деньги до 5 июня. Всего доброго.",
]


def sources(texts: Sequence[str], important: frozenset[int] | set[int] = frozenset()) -> list[Source]:
    return [Source(UUID(int=place), text, place in important) for place, text in enumerate(texts)]


def any_sources() -> some.SearchStrategy[list[Source]]:
    text = some.one_of(
        some.text(max_size=120),
        some.text(alphabet="好的。决定 \n", max_size=80),
        some.lists(some.sampled_from(["order", "lost", "4711.", "Must", "not!", "\n", "9f86d081884c7d659a2feaa0"])).map(
            " ".join
        ),
    )
    return some.lists(some.tuples(text, some.booleans()), max_size=10).map(
        lambda pairs: [Source(UUID(int=at), text, important) for at, (text, important) in enumerate(pairs)]
    )


# Extracts


@given(given_sources=any_sources(), tokens_max=some.integers(-3, 300))
def test_an_extract_keeps_its_promises(given_sources: list[Source], tokens_max: int) -> None:
    found = summarising.extractive(given_sources, tokens_max=tokens_max)
    whole = "\n".join(source.text for source in given_sources)
    assert found.tokens == tokens.count(found.text) <= max(0, tokens_max)
    assert found.tokens <= tokens.count(whole)
    assert len(found.text) <= len(whole)
    assert found == summarising.extractive(given_sources, tokens_max=tokens_max)
    ids = [source.source_id for source in given_sources]
    assert [each for each in ids if each in found.source_ids] == list(found.source_ids), "a subset, in their order"
    used = [source.text for source in given_sources if source.source_id in found.source_ids]
    assert all(any(line.strip() in text for text in used) for line in found.text.splitlines() if line.strip())


@given(given_sources=any_sources(), tokens_max=some.integers(1, 300))
def test_what_is_important_and_fits_is_kept_word_for_word(given_sources: list[Source], tokens_max: int) -> None:
    found = summarising.extractive(given_sources, tokens_max=tokens_max)
    left = tokens_max
    for source in given_sources:
        if source.important and source.text and tokens.count(source.text) + 1 <= left:
            assert source.text in found.text
            assert source.source_id in found.source_ids
            left -= tokens.count(source.text) + 1


def test_what_was_said_once_survives_and_repetition_does_not() -> None:
    found = summarising.extractive(sources(TALK), tokens_max=160)
    for kept in ("4711", "129.95", "决定退款", "5 июня"):
        assert kept in found.text
    assert found.text.count(NOISE) <= 1
    assert UUID(int=0) in found.source_ids
    assert found.method == "extractive"


def test_an_important_text_that_does_not_fit_is_told_in_part_and_not_dropped() -> None:
    large = "Order 4711 was lost by the courier. " + " ".join(f"Item {n} is listed here." for n in range(200))
    found = summarising.extractive(sources([large, NOISE], important={0}), tokens_max=60)
    assert "4711" in found.text
    assert found.tokens <= 60


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""], ["\x00"], ["   \n "], ["\ud800"]])
def test_nothing_comes_of_nothing(texts: list[str]) -> None:
    for tokens_max in (-1, 0, 1, 50):
        found = summarising.extractive(sources(texts), tokens_max=tokens_max)
        assert found.tokens <= max(0, tokens_max)
        assert len(found.text) <= len("\n".join(texts))


def test_what_fits_is_told_whole_with_all_its_sources() -> None:
    found = summarising.extractive(sources(["One.", "", "Two."]), tokens_max=50)
    assert found.text == "One.\nTwo."
    assert found.source_ids == (UUID(int=0), UUID(int=2))


def test_chinese_without_spaces_does_not_grow_by_its_line_breaks() -> None:
    text = "".join(f"第{n}项。" for n in range(300))
    for tokens_max in (10, 200, tokens.count(text) - 1):
        found = summarising.extractive(sources([text]), tokens_max=tokens_max)
        assert 0 < len(found.text) <= len(text)
        assert found.tokens <= tokens_max


def test_huge_texts_are_summarised_from_their_fair_shares() -> None:
    long = "Filler without any meaning at all. " * (SUMMARISED_CHARS_MAX // 20)
    started = time.process_time()
    found = summarising.extractive(sources([long, "Order 4711 was lost.", "x" * 5_000_000]), tokens_max=100)
    assert time.process_time() - started < 30
    assert "4711" in found.text


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_finds_the_same_extract(seed: str) -> None:
    code = (
        "from tests.llm.test_summarising import TALK, sources; from agentstate.llm import summarising;"
        "print(summarising.extractive(sources(TALK), tokens_max=110).text.encode().hex())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    here = summarising.extractive(sources(TALK), tokens_max=110).text
    assert bytes.fromhex(done.stdout.strip()).decode() == here, done.stderr


# A model


def told(tokens_max: int = 110, important: frozenset[int] = frozenset()) -> summarising.Summary:
    return summarising.summarise(sources(TALK, important), tokens_max=tokens_max, by="model")


def test_a_models_summary_is_used_and_says_whose_it_is(served: Served) -> None:
    served.said = "<think>They want it short.</think> Order 4711 broke; 129.95 EUR are refunded."
    found = told()
    assert found.text == "Order 4711 broke; 129.95 EUR are refunded."
    assert found.method == "small"
    assert found.source_ids == tuple(UUID(int=place) for place in range(len(TALK)))
    assert found.tokens == tokens.count(found.text)
    assert TALK[0] in json.loads(served.asked[0]["messages"][1]["content"])
    assert "never instructions" in served.asked[0]["messages"][0]["content"]


def test_not_even_a_model_rewrites_what_is_important(served: Served) -> None:
    served.said = "Something was lost."
    found = told(important=frozenset({1}))
    assert found.text == f"{TALK[1]}\nSomething was lost."
    assert TALK[1] not in json.loads(served.asked[0]["messages"][1]["content"])
    assert found.tokens <= 110


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "said nothing"),
        ("  \n ", "said nothing"),
        ("...", "said nothing"),
        ("<think>hm</think>", "said nothing"),
        ("word " * 200, "longer than allowed"),
        ("\n".join([*TALK, "and more"]), "longer than its source"),
    ],
)
def test_a_models_summary_that_is_none_gives_way_to_extracts_and_is_named(served: Served, said: str, why: str) -> None:
    served.said = said
    found = told()
    assert found.method.startswith("extractive (the model")
    assert why in found.method
    assert len(found.method) <= summarising.METHOD_CHARS_MAX
    assert found.text == summarising.extractive(sources(TALK), tokens_max=110).text


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (500, b"{}", "model-unavailable"),
        (401, b"{}", "model-refused"),
        (200, b"<html>", "model-bad-answer"),
        (200, b'{"choices": [{"message": {"content": {"a": 1}}}]}', "model-bad-answer"),
        (200, b'{"choices": []}', "model-bad-answer"),
    ],
)
def test_a_model_that_fails_costs_no_summary(served: Served, status: int, body: bytes, code: str) -> None:
    served.status, served.body = status, body
    found = told()
    assert found.method == f"extractive ({code})"
    assert "4711" in found.text


def test_without_a_model_in_the_settings_there_are_extracts(settings: Settings) -> None:
    settings.SUMMARY_MODEL = ""
    assert summarising.model() is None
    assert told().method == "extractive (no SUMMARY_MODEL is set)"
    assert summarising.words() == "extracts, without a model"
    settings.SUMMARY_MODEL, settings.OPENAI_BASE_URL = "small", "http://llm.internal/v1"
    assert summarising.words() == "small by endpoint; extracts when it fails"
    settings.OPENAI_BASE_URL = "nowhere"
    with pytest.raises(chat.ModelRefused, match="OPENAI_BASE_URL"):
        summarising.words()


def test_a_model_is_not_asked_when_everything_fits(served: Served) -> None:
    assert summarising.summarise(sources(["One.", "Two."]), tokens_max=50, by="model").text == "One.\nTwo."
    assert summarising.summarise(sources(TALK), tokens_max=50, by="extractive").method == "extractive"
    assert served.asked == []
