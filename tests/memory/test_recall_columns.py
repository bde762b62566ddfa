"""Columns of recall read and ordered without a loop, beside the same by loops."""

from __future__ import annotations

import random
from uuid import UUID

import numpy as np
import pytest

from agentstate.core.ids import new_id
from memory.recall import ranking, rows, words
from memory.recall.ranking import Units

# Of every length around the windows of eight bytes, each inside others, with whatever quoting must double.
LEXEMES = [
    "a",
    "ab",
    "abc",
    "it's",
    "\\",
    "':",
    "'a':",
    "a:1,2",
    "é",
    "日本",
    "abcdef",
    "abcdefg",
    "abcdefgh",
    "x" * 40,
]
LEXEMES += ["x" * 40, f"{'x' * 40}y", "abcdefghi", "abcdefghijklmno", "abcdefghijklmnop", "😀😀😀😀"]


@pytest.mark.parametrize("seed", range(20))
def test_hits_are_those_of_reading_each_lexeme_of_each_unit(seed: int) -> None:
    draw = random.Random(seed)
    asked = draw.sample(LEXEMES, draw.randint(0, 8))
    held = [
        {lexeme: draw.randint(1, 12) for lexeme in draw.sample(LEXEMES, draw.randint(0, 9))}
        for _ in range(draw.randint(1, 30))
    ]
    lines = [words.literal((lexeme, range(1, count + 1)) for lexeme, count in unit.items()) for unit in held]
    found = rows._hits("\n ".join(lines).encode(), asked)
    expected = [(n, m, unit[lexeme]) for m, lexeme in enumerate(asked) for n, unit in enumerate(held) if lexeme in unit]
    assert [tuple(map(int, hit)) for hit in zip(*found, strict=True)] == expected


def test_ids_that_differ_in_their_second_half_only_are_told_apart() -> None:
    ids = [UUID(int=n % 7 + (n % 3 << 64)) for n in random.Random(1).sample(range(21), 21)]
    column = np.frombuffer(b"".join(one.bytes for one in ids * 2), dtype="V16")
    numbers = rows._numbered(column).tolist()
    assert numbers == [sorted(ids).index(one) for one in ids * 2]
    units = _units(ids, seq=[0] * 21, session=[0] * 21)
    assert [ids[place] for place in units.best(np.zeros(21), 21)] == sorted(ids)


@pytest.mark.parametrize("seed", range(10))
def test_the_best_are_those_of_ordering_all(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randint(1, 60)
    ids = [new_id() for _ in range(count)]
    seq, session = ([draw.randrange(4) for _ in ids] for _ in range(2))
    units = _units(ids, seq=seq, session=session)
    scores = np.array([draw.choice([0.0, 0.5, 1.0]) for _ in ids])  # many are equal, also where they are cut off
    among = np.array([draw.random() < 0.7 for _ in ids])
    order = sorted(range(count), key=lambda place: (-scores[place], seq[place], ids[place].bytes))
    for wanted in (1, 5, count, count + 5):
        assert units.best(scores, wanted).tolist() == order[:wanted]
        assert units.best(scores, wanted, among).tolist() == [place for place in order if among[place]][:wanted]
    turns = sorted(range(count), key=lambda place: (session[place], seq[place], ids[place].bytes))
    assert units.turns.tolist() == turns


def _units(ids: list[UUID], *, seq: list[int], session: list[int]) -> Units:
    zeros, none = np.zeros(len(ids)), np.zeros(0, dtype=np.int64)
    return Units(
        high=np.array([one.int >> 64 for one in ids], dtype=np.uint64),
        low=np.array([one.int & (1 << 64) - 1 for one in ids], dtype=np.uint64),
        session=np.array(session), seq=np.array(seq), author=none, sent_at=zeros, length=zeros, importance=zeros,
        model=none, sim=zeros, eligible=zeros == 0, hit_unit=none, hit_lexeme=none, hit_tf=np.zeros(0), lexemes=0,
    )  # fmt: skip


def test_no_units_have_no_order() -> None:
    assert _units([], seq=[], session=[]).turns.tolist() == []
    assert ranking.candidates(_units([], seq=[], session=[]), ranking.Scores(np.zeros(0), {})).tolist() == []
