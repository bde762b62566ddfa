"""Columns of recall read and ordered without a loop, beside the same by loops."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest

from agentstate.core.ids import new_id
from memory.models import Unit
from memory.recall import ranking, rows, words
from memory.recall.ranking import Tokens, Units

LEXEMES = [f"w{number}" for number in range(20)]
# As if the digests of two lexemes began alike: only the first bits are looked at before all of them are.
ALIKE = {words.digest("w3") + (n << 40) & (1 << 64) - 1: f"alike{n}" for n in range(1, 4)}
DIGESTS = {words.digest(lexeme): lexeme for lexeme in LEXEMES} | ALIKE


def test_a_unit_keeps_nothing_that_no_search_reads() -> None:
    """Row security reads the tenant."""
    at, name = datetime(2026, 11, 21, tzinfo=UTC), UUID(int=1)
    filters = rows.Filters(at, ("item",), name, (b"d",), at, at, at, "attic")
    (asked, _), read = rows.asking(None, vectors=[rows.Vector("m", [1.0])] * 2, filters=filters).query, set[str]()
    assert isinstance(asked, str)
    for field in Unit._meta.fields:
        read |= {field.attname} if re.search(rf"\bu\.{field.attname}\b", asked) else set()
    assert read == {field.attname for field in Unit._meta.fields} - {"tenant_id"}


@pytest.mark.parametrize("seed", range(20))
def test_hits_are_those_of_reading_each_lexeme_of_each_unit(seed: int) -> None:
    draw = random.Random(seed)
    asked = draw.sample(list(DIGESTS), draw.randint(0, 12))
    held = [
        {lexeme: draw.randint(1, 255) for lexeme in draw.sample(list(DIGESTS), draw.randint(0, 9))}
        for _ in range(draw.randint(0, 30))
    ]
    stored = b"".join(d.to_bytes(8, "little") + often.to_bytes(1, "big") for unit in held for d, often in unit.items())
    found = rows._hits(stored, np.array([len(unit) for unit in held], dtype=np.int64), asked)
    expected = {(n, m, unit[one]) for m, one in enumerate(asked) for n, unit in enumerate(held) if one in unit}
    hits = [tuple(map(int, hit)) for hit in zip(*found, strict=True)]
    assert len(hits) == len(expected) and set(hits) == expected


@pytest.mark.parametrize("seed", range(5))
def test_tokens_are_compared_as_a_product_of_all_would(seed: int) -> None:
    noise = np.random.default_rng(seed)
    counts, asked = noise.integers(1, 9, 30), int(noise.integers(1, 20))
    bits = noise.integers(0, 256, (counts.sum(), 6)).astype(np.uint8)
    ids, own = noise.integers(0, 12, asked).astype(np.uint16), noise.integers(0, 12, counts.sum()).astype(np.uint16)
    vectors = noise.standard_normal((asked, 48)).astype(np.float32)
    signs, ends = np.unpackbits(bits, axis=1) * 2.0 - 1.0, np.cumsum(counts)
    units = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    best = np.array([(vectors @ signs[unit].T).max(axis=1) for unit in units])
    df = np.array([sum(one in own[unit] for unit in units) for one in ids])
    idf = np.log(1 + (30 - df + 0.5) / (df + 0.5))
    found = ranking.late_interaction(vectors, ids, Tokens(counts, own, bits))
    assert found == pytest.approx(best @ (idf / idf.sum()), abs=1e-4)


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
        session=np.array(session), seq=np.array(seq), author=none, sent_at=zeros, length=zeros,
        model=none, sim=zeros, eligible=zeros == 0, hit_unit=none, hit_lexeme=none, hit_tf=np.zeros(0), lexemes=0,
    )  # fmt: skip


def test_no_units_have_no_order() -> None:
    assert _units([], seq=[], session=[]).turns.tolist() == []
    assert ranking.candidates(_units([], seq=[], session=[]), ranking.Scores(np.zeros(0), {})).tolist() == []
