"""The arithmetic of recall: arrays in, arrays out, no database and no text.

Lexical: BM25 over the subject's units, idf inside the subject. Semantic: late interaction between the question's token
vectors and the sign bits of a unit's tokens, for the best hundred; without bits the cosine of the sentence vectors.
Neighbours share scores, the session counts as one document, a named author or month lifts its units. What a unit lacks
has no weight for it, and the other weights are scaled up: a unit without a vector is judged by its words.

Every part of a score is kept, and the parts add up to it. Sources: Robertson and Zaragoza, 2009 (BM25); Khattab and
Zaharia, 2020 (late interaction).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

CANDIDATES = 100  # whose tokens are compared
K1 = 1.2
UNIT_B, SESSION_B = 0.3, 0.75  # chat turns are short: a long one is informative and is not punished
BITS_PER_BYTE = 8
PARTS = ("bm25", "sim", "late", "neighbours", "session", "author", "month", "recency")


@dataclass(frozen=True, slots=True)
class Weights:
    """Of one rung. `lexical` and `semantic` add up to 1; the others come on top."""

    lexical: float
    semantic: float
    near: float  # of a unit one turn away
    far: float  # two turns away
    session: float = 0.2
    author: float = 0.1
    month: float = 0.3
    recency: float = 0.0


DRAFT = Weights(lexical=0.5, semantic=0.5, near=0.15, far=0.07)  # chooses the candidates
BITS = Weights(lexical=0.3, semantic=0.7, near=0.15, far=0.07)
SENTENCE = DRAFT
WORDS = Weights(lexical=1.0, semantic=0.0, near=0.2, far=0.1)
SET_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)  # of each byte
RUNGS: Mapping[str, Weights] = {"bits": BITS, "sentence": SENTENCE, "words": WORDS}


@dataclass(frozen=True)
class Units:
    """Units as columns, one place each. Hits are flat: unit `hit_unit` holds lexeme `hit_lexeme` `hit_tf` times."""

    high: NDArray[np.uint64]  # the id's halves: they break ties
    low: NDArray[np.uint64]
    session: Integers  # numbered from 0; a unit without a session has a number of its own
    seq: Integers
    author: Integers
    sent_at: Floats  # seconds since 1970
    length: Floats  # lexemes
    model: Integers  # which of the question's vectors `sim` is with; -1: none
    sim: Floats  # cosine; NaN without a vector
    eligible: Booleans  # what the filters let through; the others still count as neighbours and in idf
    hit_unit: Integers
    hit_lexeme: Integers
    hit_tf: Floats
    lexemes: int  # of the question

    def __len__(self) -> int:
        return len(self.seq)

    @cached_property
    def turns(self) -> Integers:
        """Places by session, and in it by turn."""
        return self._by_turn[np.argsort(self.session[self._by_turn] * len(self) + np.arange(len(self)))]

    def best(self, scores: Floats, count: int, among: Booleans | None = None) -> Integers:
        """The first `count` places, the greatest score first; ties by place in the session, then id."""
        order = self._by_turn if among is None else self._by_turn[among[self._by_turn]]
        found = scores[order]
        if len(order) > count:  # only what is not less than the last of them is put in order
            kept = found >= np.partition(found, len(found) - count)[len(found) - count]
            order, found = order[kept], found[kept]
        return order[np.argsort(-found, kind="stable")][:count]

    @cached_property
    def _by_turn(self) -> Integers:
        rank = np.empty(len(self), dtype=np.int64)
        rank[by_id(self.high, self.low)] = np.arange(len(self))
        return np.argsort(self.seq * len(self) + rank)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of several units, one behind the other: how many each has, at least one; their ids, and packed sign bits, a row
    a token."""

    counts: Integers
    ids: NDArray[np.uint16]
    bits: NDArray[np.uint8]


@dataclass(frozen=True)
class Cues:
    """What the question names: the units of one author, of some months."""

    author: Booleans
    month: Booleans


@dataclass(frozen=True)
class Scores:
    """A score for each unit, and the parts that add up to it. `raw`: the figures before they were scaled."""

    total: Floats
    parts: dict[str, Floats]
    raw: dict[str, Floats] = field(default_factory=dict)

    def best(self, units: Units, count: int) -> Integers:
        """Places of the eligible units that have anything of the question, the best first. The least of all that match
        is scaled to 0, and matches nevertheless."""
        return units.best(self.total, count, units.eligible & ((self.total > 0) | (self.raw["bm25"] > 0)))


def draft(units: Units, cues: Cues, weights: Weights = DRAFT) -> Scores:
    """What words and sentence vectors say: the result where there are no tokens, else it chooses the candidates."""
    raw = {"bm25": bm25(units), "session_bm25": session_bm25(units), "sim": units.sim}
    return _scored(units, cues, weights, raw, sim=scaled(units.sim, units.model))


def candidates(units: Units, drafted: Scores) -> Integers:
    """Places of the best hundred, whether eligible or not: a neighbour's words may count too."""
    return units.best(drafted.total, CANDIDATES)


def settle(units: Units, cues: Cues, drafted: Scores, top: Integers, late: Floats, weights: Weights = BITS) -> Scores:
    """The final scores from late interaction. `late`: one for each place of `top`, NaN where a unit has no tokens."""
    everywhere = np.full(len(units), np.nan)
    everywhere[top] = late
    # Outside the candidates nothing was compared: there, all have the least.
    found = np.zeros(len(units))
    found[top] = scaled(late, units.model[top])
    sim = np.full(len(units), np.nan)
    sim[top] = np.where(np.isnan(late), scaled(units.sim[top], units.model[top]), np.nan)
    found[top] = np.where(np.isnan(late), np.nan, found[top])
    return _scored(units, cues, weights, {**drafted.raw, "late": everywhere}, late=found, sim=sim)


def bm25(units: Units) -> Floats:
    """Per unit, idf inside these units."""
    count = len(units)
    df = np.bincount(units.hit_lexeme, minlength=units.lexemes)
    weights = _saturated(units.hit_tf, units.length[units.hit_unit], _mean(units.length), UNIT_B)
    return _sums(units.hit_unit, _idf(df, count)[units.hit_lexeme] * weights, count)


def session_bm25(units: Units) -> Floats:
    """Per unit, that of its whole session as one document. A unit without a session is a document by itself."""
    if not len(units):
        return np.zeros(0)
    count = int(np.max(units.session)) + 1
    lengths = _sums(units.session, units.length, count)
    key = units.session[units.hit_unit] * max(units.lexemes, 1) + units.hit_lexeme
    keys, place = np.unique(key, return_inverse=True)
    tf = _sums(place.reshape(-1), units.hit_tf, len(keys))
    session, lexeme = keys // max(units.lexemes, 1), keys % max(units.lexemes, 1)
    df = np.bincount(lexeme, minlength=units.lexemes)
    weights = _saturated(tf, lengths[session], _mean(lengths), SESSION_B)
    scores = _sums(session, _idf(df, count)[lexeme] * weights, count)
    return scores[units.session]


def late_interaction(vectors: NDArray[np.float32], ids: NDArray[np.uint16], tokens: Tokens) -> Floats:
    """For each unit the sum over the question's tokens of the best match among its own, weighed by idf.

    `vectors`: question tokens x dimensions, `ids` beside them.
    """
    if not len(tokens.counts) or not len(vectors):
        return np.zeros(len(tokens.counts))
    starts = np.cumsum(tokens.counts) - tokens.counts
    best = 2.0 * np.maximum.reduceat(_sums_of_set(vectors, tokens.bits), starts, axis=0) - vectors.sum(axis=1)
    idf = _idf(_holders(ids, tokens), len(tokens.counts))
    return np.asarray(best @ (idf / idf.sum()), dtype=np.float64)


def _sums_of_set(vectors: NDArray[np.float32], bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Tokens x question tokens: the sum of a vector's values where a token's bit is set.

    Looked up byte by byte: a product of matrices of this size wakes threads, which on a busy machine wait for each
    other longer than all else takes.
    """
    asked = vectors.reshape(len(vectors), -1, BITS_PER_BYTE).transpose(1, 2, 0)  # bytes x bits x question tokens
    sums, columns = np.zeros((len(bits), len(vectors)), dtype=np.float32), np.ascontiguousarray(bits.T)
    for byte, values in zip(columns, asked, strict=True):
        sums += (SET_BITS @ values).take(byte, axis=0)
    return sums


def _holders(ids: NDArray[np.uint16], tokens: Tokens) -> NDArray[np.int64]:
    """For each token of the question, how many units hold it."""
    known, place = np.unique(ids, return_inverse=True)
    at = np.minimum(np.searchsorted(known, tokens.ids), len(known) - 1)
    held = known[at] == tokens.ids
    unit = np.repeat(np.arange(len(tokens.counts)), tokens.counts)
    pairs = np.unique(unit[held] * len(known) + at[held])
    return np.bincount(pairs % len(known), minlength=len(known))[place.reshape(-1)]


def by_id(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Integers:
    """Places in the order of ids. Their first halves alone nearly always tell them apart, or are halves of one id."""
    order = np.argsort(high)
    same = np.diff(high[order]) == 0
    if (np.diff(low[order])[same] != 0).any():
        return np.lexsort((low, high))
    return order


def smoothed(values: Floats, units: Units, weights: Weights) -> Floats:
    """What the neighbours add: units one and two turns away in the same session."""
    order = units.turns
    inside, session = values[order], units.session[order]
    added = np.zeros(len(values))
    for distance, weight in ((1, weights.near), (2, weights.far)):
        together = session[distance:] == session[:-distance]
        added[distance:] += np.where(together, weight * inside[:-distance], 0.0)
        added[:-distance] += np.where(together, weight * inside[distance:], 0.0)
    back = np.empty(len(values))
    back[order] = added
    return back


def scaled(values: Floats, group: Integers | None = None) -> Floats:
    """Between 0 and 1 by least and greatest; NaN stays. All the same: 1 if they are above 0. Groups, from 0 on, apart:
    scores of two models cannot be compared."""
    out, known = np.full(len(values), np.nan), ~np.isnan(values)
    for number in [None] if group is None else range(np.max(group, initial=-1) + 1):
        mask = known if number is None else known & (group == number)
        if mask.any():
            out[mask] = _between(values[mask])
    return out


def _between(values: Floats) -> Floats:
    low, high = np.min(values), np.max(values)
    if high > low:
        return np.asarray((values - low) / (high - low))
    return np.full(len(values), 1.0 if high > 0 else 0.0)


def _scored(
    units: Units,
    cues: Cues,
    weights: Weights,
    raw: dict[str, Floats],
    *,
    late: Floats | None = None,
    sim: Floats,
) -> Scores:
    """`late` and `sim`, scaled: NaN where a unit has none. At most one of them counts for a unit."""
    late = np.full(len(units), np.nan) if late is None else late
    semantic = np.where(np.isnan(late), sim, late)
    has = ~np.isnan(semantic)
    share = np.where(has, weights.semantic, 0.0)
    whole = weights.lexical + share
    whole = np.where(whole > 0, whole, 1.0)
    parts = {
        "bm25": weights.lexical / whole * scaled(raw["bm25"]),
        "sim": np.where(np.isnan(late) & has, share / whole * sim, 0.0),
        "late": np.where(np.isnan(late), 0.0, share / whole * late),
    }
    own = parts["bm25"] + parts["sim"] + parts["late"]
    parts["neighbours"] = smoothed(own, units, weights)
    parts["session"] = weights.session * scaled(raw["session_bm25"])
    parts["author"] = weights.author * cues.author
    parts["month"] = weights.month * cues.month
    if weights.recency:
        parts["recency"] = weights.recency * scaled(units.sent_at)
    total = np.sum(list(parts.values()), axis=0) if len(units) else np.zeros(0)
    return Scores(total, parts, raw)


def _sums(group: Integers, values: Floats, count: int) -> Floats:
    return np.asarray(np.bincount(group, values, minlength=count), dtype=np.float64)


def _idf(df: NDArray[np.int64], count: int) -> Floats:
    return np.asarray(np.log1p((count - df + 0.5) / (df + 0.5)))


def _saturated(tf: Floats, length: Floats, mean: float, b: float) -> Floats:
    return np.asarray(tf * (K1 + 1) / (tf + K1 * (1 - b + b * length / mean)))


def _mean(lengths: Floats) -> float:
    """1 when nothing has a length: then nothing matches either."""
    return float(lengths.mean()) or 1.0 if len(lengths) else 1.0
