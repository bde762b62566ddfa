"""Before another model takes effect: does it find texts again about as well as the one in force?

There are no labels, so each sampled text is asked for by every other word of it, among a pool of the tenant's texts.
That finds a model that answers noise, the same for everything, or in a language it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentstate.db import sql
from agentstate.llm.embedding import Embedder
from memory.recall import wanted

SAMPLED, POOL, FIRST_K = 50, 500, 10
LOSS_MAX = 0.1  # of the sampled texts that the new model may find less often

# Spread over the tenant, the same ones at every try.
_POOL = """
SELECT u.id, u.model, u.vector::text, s.vector::text FROM memory_unit u JOIN memory_unitstaged s ON s.unit_id = u.id
WHERE s.model = %(model)s ORDER BY md5(u.id::text) LIMIT %(limit)s"""


Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Compared:
    """Shares of the sampled texts that each model finds among the first ten of the pool."""

    new: float
    former: float
    sampled: int

    @property
    def is_good(self) -> bool:
        return self.new >= self.former - LOSS_MAX


@dataclass(frozen=True, slots=True)
class Pool:
    """What is searched and what for: (place in the pool, half its words). Vectors as text, of both models."""

    asked: list[tuple[int, str]]
    of_new: list[str]
    of_former: list[str]


def pool(label: str, former: str) -> Pool | None:
    """From the units with a vector of each of these models, as rows name them. None: there is nothing to look for."""
    found = [row for row in sql.rows(_POOL, {"model": label, "limit": POOL}) if row[1] == former]
    asked = wanted.of([unit_id for unit_id, *_ in found[:SAMPLED]])
    if not asked:
        return None
    place = {unit_id: n for n, (unit_id, *_) in enumerate(found)}
    halves = [(place[text.unit_id], _half(text.text)) for text in asked]
    return Pool(halves, [row[3] for row in found], [row[2] for row in found])


def compare(pool: Pool, embedder: Embedder, former: Embedder) -> Compared:
    """Asks both models: hold no transaction meanwhile. Raises: what they raise."""
    new, old = (
        _share(model, pool.asked, _matrix(of)) for model, of in ((embedder, pool.of_new), (former, pool.of_former))
    )
    return Compared(new, old, len(pool.asked))


def _half(text: str) -> str:
    """Every other word: the text is not asked for by itself."""
    return " ".join(text.split()[::2])


def _matrix(given: Iterable[str]) -> Matrix:
    """Rows of length 1."""
    matrix = np.array([json.loads(vector) for vector in given], dtype=np.float64)
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))


def _share(model: Embedder, asked: Sequence[tuple[int, str]], matrix: Matrix) -> float:
    answers = model.embed([text for _, text in asked])
    scores = matrix @ np.stack([np.asarray(answer.vector, dtype=np.float64) for answer in answers]).T
    found = sum(int((scores[:, n] > scores[place, n]).sum() < FIRST_K) for n, (place, _) in enumerate(asked))
    return found / len(asked)
