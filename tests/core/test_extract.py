"""An extract is short, the same every time, in the order of its sources, and holds what was said once."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agentstate.core import extract, tokens
from agentstate.core.extract import SENTENCE_CHARS_MAX

NOISE = "The page was fetched and looked at again without any news whatever."
LETTERS = [
    "Hello there. I write about my order. Order 4711 came broken on 3 May. Thank you for looking at this.",
    "We looked at it. It was decided to refund 129.95 EUR because the courier lost the parcel. Have a good day.",
    *[NOISE] * 40,
    "客户的订单已经丢失。我们决定退款。今天天气很好。",
]


def joined(found: list[tuple[int, str]]) -> str:
    return "\n".join(text for _, text in found)


def test_what_was_said_once_is_kept_and_repetition_is_not() -> None:
    found = extract.extract(LETTERS, tokens_max=90, count=tokens.count)
    text = joined(found)
    assert "4711" in text
    assert "129.95" in text
    assert "决定退款" in text
    assert text.count(NOISE) <= 1


def test_sentences_stand_in_the_order_of_their_sources() -> None:
    found = extract.extract(LETTERS, tokens_max=200, count=tokens.count)
    assert [source for source, _ in found] == sorted(source for source, _ in found)
    for source, sentence in found:
        assert sentence in LETTERS[source]
    places = [LETTERS[0].index(sentence) for source, sentence in found if source == 0]
    assert places == sorted(places)


def test_kept_texts_stand_whole_and_come_before_all_others() -> None:
    found = extract.extract(LETTERS, tokens_max=tokens.count(LETTERS[0]) + 1, count=tokens.count, keep=[0])
    assert found == [(0, LETTERS[0])]
    assert extract.extract(LETTERS, tokens_max=5, count=tokens.count, keep=[0, 1]) == []


def test_a_line_without_end_is_cut_so_that_a_part_of_it_can_be_taken() -> None:
    line = "key=value, " * 3_000 + "status=lost"
    found = extract.extract([line], tokens_max=300, count=tokens.count)
    assert found
    assert all(len(text) <= SENTENCE_CHARS_MAX for _, text in found)
    assert [len(piece) for piece in extract.sentences_of("x" * 1_000)] == [400, 400, 200]


@given(
    texts=some.lists(some.text(max_size=300), max_size=12),
    tokens_max=some.integers(-5, 400),
    kept=some.sets(some.integers(0, 11)),
)
def test_an_extract_is_never_longer_than_it_may_be(texts: list[str], tokens_max: int, kept: set[int]) -> None:
    keep = {place for place in kept if place < len(texts)}
    found = extract.extract(texts, tokens_max=tokens_max, count=tokens.count, keep=keep)
    assert tokens.count(joined(found)) <= max(0, tokens_max)
    assert found == extract.extract(texts, tokens_max=tokens_max, count=tokens.count, keep=keep)


@pytest.mark.parametrize("seed", ["1", "2", "77"])
def test_another_process_finds_the_same_extract(seed: str) -> None:
    code = (
        "from tests.core.test_extract import LETTERS, joined; from agentstate.core import extract, tokens;"
        "print(joined(extract.extract(LETTERS, tokens_max=60, count=tokens.count)).encode('utf-8').hex())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = joined(extract.extract(LETTERS, tokens_max=60, count=tokens.count))
    assert bytes.fromhex(found.stdout.strip()).decode() == here


def test_a_long_window_costs_about_as_much_as_its_length() -> None:
    def cost(sentences: int) -> float:
        texts = [f"Sentence {n} speaks of thing{n % 977} and of place{n % 1_009}." for n in range(sentences)]
        before = time.process_time()
        extract.extract(texts, tokens_max=sentences * 4, count=tokens.count)
        return time.process_time() - before

    cost(200)
    assert cost(8_000) < 40 * cost(1_000)  # quadratic would be 64 times
