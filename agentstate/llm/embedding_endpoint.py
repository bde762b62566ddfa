"""Vectors from any endpoint that speaks OpenAI's /embeddings: sent in bounded batches, believed after checks.

An endpoint gives no token vectors. When it begins to give another number of dimensions, another model answers under the
same name; its vectors are refused, since they cannot be compared with those that are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from django.conf import settings

from agentstate.core import tokens
from agentstate.llm.embedding import Embedded, Floats, Question, readable, unit
from agentstate.llm.endpoint import Address, BadAnswer, Json, ModelRefused

BATCH_TEXTS_MAX = 64
BATCH_TOKENS_MAX = 100_000  # OpenAI takes 300,000 in a request
SILENT_S_MAX = 30.0
REPLY_S_MAX = 120.0
REPLY_BYTES_MAX = 16 * 1024 * 1024  # 64 vectors of 3,072 numbers in 20 digits are 4 MB
DIMENSIONS_MAX = 16_000  # what a column of pgvector holds
NUMBER_MAX = 1e30  # its square can still be summed
BLANK = "-"  # sent instead of a text without letters, which OpenAI refuses


class EndpointEmbedder:
    has_tokens = False

    def __init__(self, address: Address, *, tokens_max: int, silent_s_max: float = SILENT_S_MAX) -> None:
        """`tokens_max`: tokens of one text that the model reads; a longer one is cut."""
        self.model_id = f"endpoint:{address.name}"
        self._address = address
        self._tokens_max = tokens_max
        self._silent_s_max = silent_s_max
        self._dimensions = 0  # until it has answered

    @property
    def dimensions(self) -> int:
        if not self._dimensions:
            self.embed([BLANK])
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        shortened = (_shortened(text, tokens_max=self._tokens_max) for text in texts)
        return [Embedded(vector, None) for batch in _batches(shortened) for vector in self._vectors(batch)]

    def ask(self, question: str) -> Question:
        return Question(self.embed([question])[0].vector)

    def _vectors(self, batch: list[str]) -> list[Floats]:
        body = self._address.post(
            "/embeddings",
            {"model": self._address.name, "input": batch},
            silent_s_max=self._silent_s_max,
            s_max=max(self._silent_s_max, REPLY_S_MAX),
            bytes_max=REPLY_BYTES_MAX,
        )
        vectors = _checked(body, count=len(batch))
        if self._dimensions not in (0, vectors.shape[1]):
            raise BadAnswer(
                f"{self._address.place()} gave vectors of {vectors.shape[1]} dimensions, before of {self._dimensions}; "
                "if another model is served there now, give it another name in EMBED_MODEL."
            )
        self._dimensions = vectors.shape[1]
        return [unit(vector) for vector in vectors]


def trouble() -> str:
    """What is wrong with the settings, or "". Asks nobody."""
    if not (settings.EMBED_BASE_URL and settings.EMBED_MODEL):
        return f"{'EMBED_MODEL' if settings.EMBED_BASE_URL else 'EMBED_BASE_URL'} is not set"
    try:
        address().parts()
    except ModelRefused as refused:
        return refused.message
    return ""


def address() -> Address:
    return Address(settings.EMBED_MODEL, settings.EMBED_BASE_URL, settings.EMBED_API_KEY, setting="EMBED_BASE_URL")


def _shortened(text: str, *, tokens_max: int) -> str:
    """The beginning, as far as the model reads."""
    text = readable(text)
    while (count := tokens.count(text)) > tokens_max:
        text = text[: len(text) * tokens_max // count]
    return text if text.strip() else BLANK


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        cost = tokens.count(text)
        if batch and (len(batch) == BATCH_TEXTS_MAX or size + cost > BATCH_TOKENS_MAX):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += cost
    if batch:
        yield batch


def _checked(body: Json, *, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """texts x dimensions, finite, none of length 0, in the order in which they were asked for. Raises: BadAnswer."""
    try:
        rows = {row["index"]: row["embedding"] for row in body["data"]}
        given = len(body["data"])
        vectors = np.array([[_number(value) for value in rows[place]] for place in range(count)], dtype=np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadAnswer(f"The endpoint's answer does not hold one vector for each of {count} texts.") from None
    if given != count:
        raise BadAnswer(f"The endpoint gave {given} vectors for {count} texts.")
    if vectors.ndim != 2 or not 0 < vectors.shape[1] <= DIMENSIONS_MAX:
        raise BadAnswer("The endpoint's vectors are empty, or longer than can be kept.")
    if not np.isfinite(vectors).all() or np.abs(vectors).max() > NUMBER_MAX:
        raise BadAnswer("The endpoint's vectors hold numbers that are none, or beyond measure.")
    if not np.linalg.norm(vectors, axis=1).all():
        raise BadAnswer("One of the endpoint's vectors has no direction: it is nothing but zeros.")
    return vectors


def _number(value: Json) -> float:
    if type(value) not in (int, float):  # neither bool nor the digits of a number
        raise TypeError("no number")
    return float(value)
