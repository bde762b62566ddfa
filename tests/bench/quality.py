"""Recall measured on the written conversations: recall@5, @10, @20 and the mean reciprocal rank, by category and rung.

Everything goes through what an application calls: rows are indexed, vectors made by the upkeep's batches, questions
searched. Nothing is timed; the figures are the same at every run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from agentstate.llm.embedding import Embedded, Embedder, Question
from agentstate.llm.former_embedder import named
from agentstate.llm.minilm import MiniLM
from memory.recall import questions, words
from memory.recall.embedding import embed_batch
from memory.recall.questions import InModel
from memory.recall.searching import search
from memory.services import subjects
from tests.bench.conversations import Asked, Conversation
from tests.memory.recall_world import Talk

CATEGORIES = ("single", "paraphrase", "temporal", "author", "multi-session", "correction")
RUNGS = ("bits", "sentence", "words")
DEPTH = 100


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over questions."""

    questions: int
    at_5: float
    at_10: float
    at_20: float
    mrr: float

    @classmethod
    def of(cls, results: Sequence[Result]) -> Quality:
        count = max(len(results), 1)
        at_5, at_10, at_20 = (sum(result.recall(k) for result in results) / count for k in (5, 10, 20))
        return cls(len(results), at_5, at_10, at_20, sum(result.reciprocal_rank for result in results) / count)


@dataclass(frozen=True, slots=True)
class Result:
    """`ranks`: of each piece of evidence, from 1; None when it was not among the first hundred."""

    category: str
    ranks: tuple[int | None, ...]

    def recall(self, k: int) -> float:
        return sum(rank is not None and rank <= k for rank in self.ranks) / len(self.ranks)

    @property
    def reciprocal_rank(self) -> float:
        best = min((rank for rank in self.ranks if rank is not None), default=None)
        return 1 / best if best else 0.0


class Remembering:
    """An embedder that embeds each text once: the small talk of the conversations repeats."""

    has_tokens = True

    def __init__(self, inner: Embedder) -> None:
        self.inner, self.model_id, self.dimensions = inner, inner.model_id, inner.dimensions
        self._embedded: dict[str, Embedded] = {}
        self._asked: dict[str, Question] = {}

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        for text in texts:
            if text not in self._embedded:
                (self._embedded[text],) = self.inner.embed([text])
        return [self._embedded[text] for text in texts]

    def ask(self, question: str) -> Question:
        if question not in self._asked:
            self._asked[question] = self.inner.ask(question)
        return self._asked[question]


@dataclass
class Stored:
    """A conversation in the database, and the unit of each of its turns."""

    conversation: Conversation
    subject_id: UUID
    units: list[list[UUID]]

    def evidence(self, question: Asked) -> list[UUID]:
        return [self.units[session][turn] for session, turn in question.evidence]


def local_model() -> Remembering | None:
    """The embedding model on this machine, or None when its files are not installed."""
    found = named(MiniLM.model_id)
    return Remembering(found) if found else None


def store(conversation: Conversation) -> Stored:
    """In a tenant's scope."""
    subject = subjects.resolve(external_id=f"{conversation.half}-{conversation.number}")
    talk = Talk(subject)
    made = [
        talk.session(*[(turn.author, turn.text) for turn in said], start=start)
        for start, said in zip(conversation.starts, conversation.sessions, strict=True)
    ]
    return Stored(conversation, subject.id, made)


def embed(embedder: Embedder) -> int:
    """Vectors for all that lack one in this tenant."""
    cursor, done = "", 0
    while True:
        batch = embed_batch(cursor, embedder=embedder)
        if batch.failed:
            raise RuntimeError(batch.failed)
        cursor, done = batch.cursor, done + batch.done
        if batch.is_over:
            return done


def measure(stored: Iterable[Stored], rung: str, embedder: Embedder | None) -> list[Result]:
    return [
        Result(question.category, _ranks(_found(one, question, rung, embedder), one.evidence(question)))
        for one in stored
        for question in one.conversation.questions
    ]


def control(stored: Iterable[Stored], rung: str, embedder: Embedder | None, *, seed: int = 5) -> list[Result]:
    """The same with turns drawn by lot for evidence: what chance gives."""
    draw, results = random.Random(seed), []
    for one in stored:
        every = [unit for session in one.units for unit in session]
        for question in one.conversation.questions:
            lots = draw.sample(every, len(question.evidence))
            results.append(Result(question.category, _ranks(_found(one, question, rung, embedder), lots)))
    return results


def by_category(results: Sequence[Result]) -> dict[str, Quality]:
    found = {name: Quality.of([result for result in results if result.category == name]) for name in CATEGORIES}
    return {"all": Quality.of(results), **found}


def shared_words(conversation: Conversation, question: Asked, lexemes: Callable[[str], set[str]]) -> set[str]:
    """Content words that a question has in common with its evidence, the author's name included."""
    evidence = " ".join(
        f"{conversation.sessions[session][turn].author}: {conversation.sessions[session][turn].text}"
        for session, turn in question.evidence
    )
    return lexemes(question.text) & lexemes(evidence)


def lexemes(text: str) -> set[str]:
    """By Postgres' own stemmer, as they are indexed. In a tenant's scope."""
    return {lexeme for one in words.lexemes_of([words.prepared(text)], "english") for lexeme, _ in one}


def _found(one: Stored, question: Asked, rung: str, embedder: Embedder | None) -> list[UUID]:
    recall = search(one.subject_id, _in_rung(question.text, rung, embedder), k=DEPTH)
    if recall.rung != rung:
        raise RuntimeError(f"measured {recall.rung} instead of {rung}: {recall.degraded_because}")
    return [hit.id for hit in recall.hits]


def _in_rung(text: str, rung: str, embedder: Embedder | None) -> questions.Asked:
    if embedder is None or rung == "words":
        return questions.Asked(text, (), "measured without a model")
    asked = embedder.ask(text)
    if rung == "sentence":
        asked = Question(asked.vector)
    return questions.Asked(text, (InModel(questions.label(embedder.model_id, len(asked.vector)), asked),))


def _ranks(found: Sequence[UUID], evidence: Sequence[UUID]) -> tuple[int | None, ...]:
    place = {unit: rank for rank, unit in enumerate(found, 1)}
    return tuple(place.get(unit) for unit in evidence)
