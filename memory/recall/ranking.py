"""The arithmetic of recall: arrays in, arrays out, no database and no text.

Lexical: BM25 over the subject's units, idf inside the subject. Semantic: late interaction between the question's token
vectors and the sign bits of a unit's tokens, for the best hundred; without bits the cosine of the sentence vectors.
Neighbours share scores, the session counts as one document, a named author or month lifts its units. What a unit lacks
has no weight for it, and the other weights are scaled up: a unit without a vector is judged by its words.

Every part of a score is kept, and the parts add up to it. Sources: Robertson and Zaragoza, 2009 (BM25); Khattab and
Zaharia, 2020 (late interaction).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
TOKEN_IDS = 1 << 16
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


DRAFT = Weights(lexical=0.5, semantic=0.5, near=0.15, far=0.07)  # chooses candidates; the result without tokens
BITS = Weights(lexical=0.3, semantic=0.7, near=0.15, far=0.07)
WORDS = Weights(lexical=1.0, semantic=0.0, near=0.2, far=0.1)
SET_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)  # of each byte
RUNGS: Mapping[str, Weights] = {"bits": BITS, "sentence": DRAFT, "words": WORDS}


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
        turn = self.session * (int(self.seq.max(initial=0)) + 1) + self.seq
        order = np.argsort(turn)
        ordered = turn[order]
        if (ordered[1:] == ordered[:-1]).any():  # then the id decides
            return np.lexsort((self.low, self.high, turn))
        return order

    @cached_property
    def together(self) -> tuple[Floats, Floats]:
        """For one turn and for two, along `turns`: 1 where that many further on it is the same session."""
        session = self.session[self.turns]
        one, two = ((session[distance:] == session[:-distance]).astype(np.float64) for distance in (1, 2))
        return one, two

    def best(self, scores: Floats, count: int, among: Booleans | None = None) -> Integers:
        """The first `count` places, the greatest score first; ties by place in the session, then id."""
        order = np.arange(len(scores)) if among is None else np.flatnonzero(among)
        found = scores[order]
        if len(order) > count:  # only what is not less than the last of them is put in order
            kept = found >= np.partition(found, len(found) - count)[len(found) - count]
            order, found = order[kept], found[kept]
        return order[np.lexsort((self.low[order], self.high[order], self.seq[order], -found))][:count]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of several units, one behind the other: how many each has, at least one; their ids, and packed sign bits, a row
    a token."""

    counts: Integers
    ids: NDArray[np.uint16]
    bits: NDArray[np.uint8]


@dataclass(frozen=True)
class Cues:
    """What the question names: the units of one author, of some months. None: it names none."""

    author: Booleans | None = None
    month: Booleans | None = None


@dataclass(frozen=True)
class Scores:
    """A score for each unit, and the parts that add up to it: those that have a say. `raw`: the figures before they
    were scaled; `scaled`: those that are the same on every rung."""

    total: Floats
    parts: dict[str, Floats]
    raw: dict[str, Floats] = field(default_factory=dict)
    scaled: dict[str, Floats] = field(default_factory=dict)

    def best(self, units: Units, count: int) -> Integers:
        """Places of the eligible units that have anything of the question, the best first. The least of all that match
        is scaled to 0, and matches nevertheless."""
        return units.best(self.total, count, units.eligible & ((self.total > 0) | (self.raw["bm25"] > 0)))


def draft(units: Units, cues: Cues, weights: Weights = DRAFT) -> Scores:
    """What words and sentence vectors say: the result where there are no tokens, else it chooses the candidates."""
    raw = {"bm25": bm25(units), "session_bm25": session_bm25(units), "sim": units.sim}
    alike = {name: scaled(raw[name]) for name in ("bm25", "session_bm25")}
    lexical, semantic = _own(weights, alike["bm25"], scaled(units.sim, units.model))
    return _scored(units, cues, weights, {"bm25": lexical, "sim": semantic}, raw, alike)


def candidates(units: Units, drafted: Scores) -> Integers:
    """Places of the best hundred, whether eligible or not: a neighbour's words may count too."""
    return units.best(drafted.total, CANDIDATES)


def settle(units: Units, cues: Cues, drafted: Scores, top: Integers, late: Floats, weights: Weights = BITS) -> Scores:
    """The final scores from late interaction. `late`: one for each place of `top`, NaN where a unit has no tokens."""
    everywhere = np.full(len(units), np.nan)
    everywhere[top] = late
    model, lost = units.model[top], np.isnan(late)
    found = np.zeros(len(units))  # outside the candidates nothing was compared: there, all have the least
    found[top] = scaled(late, model)
    if lost.any():
        found[top[lost]] = scaled(units.sim[top], model)[lost]
    lexical, semantic = _own(weights, drafted.scaled["bm25"], found)
    by_sentence = np.zeros(len(units))
    by_sentence[top[lost]] = semantic[top[lost]]
    own = {"bm25": lexical, "sim": by_sentence, "late": semantic - by_sentence}
    return _scored(units, cues, weights, own, {**drafted.raw, "late": everywhere}, drafted.scaled)


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
    count, lexemes = int(units.session.max()) + 1, max(units.lexemes, 1)
    lengths = _sums(units.session, units.length, count)
    often = _sums(units.session[units.hit_unit] * lexemes + units.hit_lexeme, units.hit_tf, count * lexemes)
    held = np.flatnonzero(often)
    session, lexeme = np.divmod(held, lexemes)
    df = np.bincount(lexeme, minlength=units.lexemes)
    weights = _saturated(often[held], lengths[session], _mean(lengths), SESSION_B)
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
    found, tables = np.empty_like(sums), SET_BITS @ asked
    for byte, table in zip(columns, tables, strict=True):
        sums += table.take(byte, axis=0, out=found, mode="clip")  # no byte is outside; checked, it goes by a copy
    return sums


def _holders(ids: NDArray[np.uint16], tokens: Tokens) -> NDArray[np.int64]:
    """For each token of the question, how many units hold it."""
    number = np.zeros(TOKEN_IDS, dtype=np.int16)
    number[ids] = np.arange(1, len(ids) + 1)  # equal ids have one number
    asked = number[tokens.ids]
    held = np.flatnonzero(asked)
    units = np.searchsorted(np.cumsum(tokens.counts), held, side="right")
    holds = np.zeros((len(tokens.counts), len(ids) + 1), dtype=bool)
    holds[units, asked[held]] = True
    return np.asarray(np.count_nonzero(holds, axis=0)[number[ids]])


def smoothed(values: Floats, units: Units, weights: Weights) -> Floats:
    """What the neighbours add: units one and two turns away in the same session."""
    inside, added = values[units.turns], np.zeros(len(values))
    for distance, weight, together in zip((1, 2), (weights.near, weights.far), units.together, strict=True):
        given = weight * inside
        added[distance:] += given[:-distance] * together
        added[:-distance] += given[distance:] * together
    back = np.empty(len(values))
    back[units.turns] = added
    return back


def scaled(values: Floats, group: Integers | None = None) -> Floats:
    """Between 0 and 1 by least and greatest; NaN stays. All the same: 1 if they are above 0. Groups, from 0 on, apart:
    scores of two models cannot be compared."""
    known = ~np.isnan(values)
    if group is None:
        groups = [known]
    else:
        groups = [known & (group == number) for number in range(int(group.max(initial=-1)) + 1)]
    out = np.full(len(values), np.nan)
    for mask in groups:
        if mask.all():
            return _between(values)
        if mask.any():
            out[mask] = _between(values[mask])
    return out


def _between(values: Floats) -> Floats:
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if high > low:
        return np.asarray((values - low) / (high - low))
    return np.full(len(values), 1.0 if high > 0 else 0.0)


def _own(weights: Weights, lexical: Floats, semantic: Floats) -> tuple[Floats, Floats]:
    """What a unit has by itself, weighed: 0 for `semantic` where it is NaN; then words have the whole weight."""
    lacks = np.isnan(semantic)
    if not lacks.any():
        whole = weights.lexical + weights.semantic
        return weights.lexical / whole * lexical, weights.semantic / whole * semantic
    shares = np.where(lacks, 0.0, weights.semantic)
    wholes = weights.lexical + shares
    wholes = np.where(wholes > 0, wholes, 1.0)
    return weights.lexical / wholes * lexical, np.where(lacks, 0.0, shares / wholes * semantic)


def _scored(
    units: Units, cues: Cues, weights: Weights, own: dict[str, Floats], raw: dict[str, Floats], alike: dict[str, Floats]
) -> Scores:
    """`own`: parts that a unit has by itself. `alike`: what stays the same however they are weighed."""
    together = _added(own.values())
    parts = {**own, "neighbours": smoothed(together, units, weights)}
    parts["session"] = weights.session * alike["session_bm25"]
    if cues.author is not None:
        parts["author"] = np.where(cues.author, weights.author, 0.0)
    if cues.month is not None:
        parts["month"] = np.where(cues.month, weights.month, 0.0)
    if weights.recency:
        parts["recency"] = weights.recency * scaled(units.sent_at)
    return Scores(_added(parts.values()), parts, raw, alike)


def _added(parts: Iterable[Floats]) -> Floats:
    first, second, *others = parts
    total = first + second
    for part in others:
        total += part
    return total


def _sums(group: Integers, values: Floats, count: int) -> Floats:
    return np.asarray(np.bincount(group, values, minlength=count), dtype=np.float64)


def _idf(df: NDArray[np.int64], count: int) -> Floats:
    return np.asarray(np.log1p((count - df + 0.5) / (df + 0.5)))


def _saturated(tf: Floats, length: Floats, mean: float, b: float) -> Floats:
    return np.asarray(tf * (K1 + 1) / (tf + K1 * (1 - b + b * length / mean)))


def _mean(lengths: Floats) -> float:
    """1 when nothing has a length: then nothing matches either."""
    return float(lengths.mean()) or 1.0 if len(lengths) else 1.0
