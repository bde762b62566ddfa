"""The offline count errs upwards. The true counts were taken once with the vocabularies cl100k_base and o200k_base."""

from __future__ import annotations

import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agentstate.core import tokens

LETTER = (
    "Hi there! Could you please refund my order #4711? It arrived broken, and I'm really not happy about it. "
    "Thanks, Ann\n"
)
CODE = (
    "def transition(obj, *, to: str, actor: Actor) -> Model:\n"
    '    """Move obj to `to`."""\n'
    '    if obj.status != expected[0]:\n        raise Conflict(f"{obj} is {obj.status}", status=obj.status)\n'
    "    return obj\n"
)
ROW = json.dumps(
    {"id": "1f2e3d4c-5b6a-4798-8a9b-0c1d2e3f4a5b", "amount": 129.95, "ok": True, "tags": ["urgent"], "at": "2026-11-21"}
)
URL = "https://shop.example.com/orders/2026/11/21?user=ann.lee%40example.com&session=9f8e7d6c5b4a&utm_source=mail"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
BASE64 = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="
CHINESE = "他们在北京的公司里工作了很多年，最后决定回到家乡开一家小餐馆。"
GERMAN = "Die Datenschutzgrundverordnung verpflichtet Unternehmen, Verarbeitungstätigkeiten zu dokumentieren."
EMOJI = "😀🎉👩‍💻🇩🇪"
TRUE = {  # cl100k, o200k
    LETTER: (30, 29),
    CODE: (54, 54),
    ROW: (69, 69),
    URL: (42, 42),
    HEX: (43, 43),
    BASE64: (37, 32),
    CHINESE: (35, 23),
    GERMAN: (24, 16),
    EMOJI: (18, 12),
}


@pytest.mark.parametrize("text", sorted(TRUE))
def test_the_count_is_never_under_and_seldom_far_over(text: str) -> None:
    counted = tokens.count(text)
    assert max(TRUE[text]) <= counted <= 2.5 * min(TRUE[text])


def test_nothing_is_nothing() -> None:
    assert tokens.count("") == 0


@given(some.text(max_size=300), some.text(max_size=300))
def test_a_longer_text_never_counts_far_less_than_its_parts(first: str, second: str) -> None:
    whole, parts = tokens.count(first + "\n" + second), tokens.count(first) + tokens.count(second)
    assert 0 <= whole <= parts + 2
    assert tokens.count(first) <= 3 * len(first)


def test_a_mebibyte_of_anything_is_counted_in_one_pass() -> None:
    """A pattern that looks ahead would take hours here."""
    for piece in ("ab+/", "aB", "9", "a9", "é", "!", "\n", "x "):
        assert 2**14 < tokens.count(piece * (2**20 // len(piece))) < 2**21
    assert tokens.count("a" * 2**20) == ceil(0.55 * 2**20)
    assert tokens.count(" " * 2**20) == 2**20 / 32
