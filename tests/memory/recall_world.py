"""Subjects with something to recall, an embedder that needs no weights, and recall computed a second time, slowly.

The embedder knows words, not language: each word has a vector of its own, words of one family nearly the same. It is as
deterministic as a hash, so that quality and every rung can be tested anywhere.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np

from agentstate.core.clock import now
from agentstate.core.ids import new_id
from agentstate.llm import embedding
from agentstate.llm.embedding import Embedded, Question, TokenRows
from memory import keys, sealing, texts
from memory.models import Author, Item, ItemRevision, Message, Session, Subject
from memory.recall import units

EPOCH = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
FAMILIES = {
    "dog": "pet", "puppy": "pet", "hound": "pet", "pet": "pet",
    "car": "vehicle", "automobile": "vehicle", "vehicle": "vehicle", "sedan": "vehicle",
    "doctor": "medic", "physician": "medic", "surgeon": "medic",
    "refund": "money", "reimbursement": "money", "repayment": "money",
}  # fmt: skip


class WordEmbedder:
    """A vector a word. `dimensions`: a multiple of 8."""

    has_tokens = True

    def __init__(self, model_id: str = "words@1", *, dimensions: int = 64, tokens: bool = True) -> None:
        self.model_id, self.dimensions, self.has_tokens = model_id, dimensions, tokens
        self.asked: list[str] = []
        self.embedded: list[str] = []
        self.down: Exception | None = None

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        if self.down:
            raise self.down
        self.embedded += texts
        return [self._embedded(text) for text in texts]

    def ask(self, question: str) -> Question:
        if self.down:
            raise self.down
        self.asked.append(question)
        ids, vectors = self._tokens(question)
        return Question(self._vector(vectors), *((vectors, ids) if self.has_tokens else (None, None)))

    def _embedded(self, text: str) -> Embedded:
        ids, vectors = self._tokens(text)
        bits = np.packbits(vectors > 0, axis=1).tobytes()
        rows = TokenRows(ids.astype("<u2").tobytes(), bits, len(ids)) if self.has_tokens else None
        return Embedded(self._vector(vectors), rows)

    def _tokens(self, text: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        found = re.findall(r"\w+", text.lower()) or ["nothing"]
        ids = np.array([int.from_bytes(_hash(word)[:2], "little") for word in found], dtype=np.uint16)
        return ids, np.stack([self._word(word) for word in found]).astype(np.float32)

    def _word(self, word: str) -> np.ndarray[Any, Any]:
        own, family = self._seeded(word), self._seeded(FAMILIES.get(word, word))
        return np.asarray(0.2 * own + family)

    def _seeded(self, word: str) -> np.ndarray[Any, Any]:
        seed = int.from_bytes(_hash(f"{self.model_id}:{word}")[:8], "little")
        return np.random.default_rng(seed).standard_normal(self.dimensions)

    def _vector(self, vectors: np.ndarray[Any, Any]) -> Any:
        return embedding.unit(vectors.mean(axis=0))


@dataclass
class Talk:
    """A subject with messages and items as the services write them; `texts`: what stands in each unit."""

    subject: Subject
    texts: dict[UUID, str] = field(default_factory=dict)
    authors: dict[str, int] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)

    def session(self, *said: tuple[str, str], start: datetime = EPOCH, **more: Any) -> list[UUID]:
        """A session of (author, text), a minute apart; the ids of its messages."""
        at = now()
        session = Session.objects.create(
            subject_id=self.subject.id, key=str(new_id()), created_at=at, last_active_at=at
        )
        self.sessions.append(session)
        rows = [self._message(session, n, author, text, start, more) for n, (author, text) in enumerate(said, 1)]
        Message.objects.bulk_create([row for row, _, _ in rows])
        units.index_messages(rows)
        self.texts |= {row.id: units.spoken(text, author) for row, text, author in rows}
        return [row.id for row, _, _ in rows]

    def item(self, text: str, **fields: Any) -> UUID:
        at = fields.pop("at", EPOCH)
        item = Item.objects.create(
            **{
                "subject_id": self.subject.id, "kind": "semantic", "bytes": len(text.encode()), "tokens": 1,
                "digest": sealing.digest(text), "valid_from": at, "known_from": at, "created_at": at, "updated_at": at,
                **fields,
            }
        )  # fmt: skip
        self.revise(item, text, 1)
        return item.id

    def revise(self, item: Item, text: str, version: int) -> None:
        key = keys.owner_key(self.subject.id)
        ItemRevision.objects.create(
            item_id=item.id, version=version, subject_id=self.subject.id, change="created", tokens=1,
            text=sealing.seal_text(key, "memory_itemrevision", f"{item.id}:{version}:text", text),
            actor_kind="system", actor_id="test", actor_name="test", created_at=now(), valid_from=item.valid_from,
        )  # fmt: skip
        Item.objects.filter(id=item.id).update(version=version)
        units.index_item(item, text)
        self.texts[item.id] = text

    def _message(
        self, session: Session, n: int, author: str, text: str, start: datetime, more: dict[str, Any]
    ) -> tuple[Message, str, str]:
        message_id, key = new_id(), keys.owner_key(self.subject.id)
        row = Message(
            id=message_id, session_id=session.id, subject_id=self.subject.id, seq=n, role="user",
            author_no=self._author(author, key), text=sealing.seal_text(key, "memory_message", message_id, text),
            tokens=1, bytes=len(text.encode()), sent_at=start + timedelta(minutes=n), recorded_at=now(), **more,
        )  # fmt: skip
        return row, text, author

    def _author(self, name: str, key: bytes) -> int:
        if not name:
            return 0
        if name not in self.authors:
            no = self.authors[name] = len(self.authors) + 1
            digest = sealing.digest("author", str(self.subject.id), texts.normalised(name))
            sealed = sealing.seal_text(key, "memory_author", f"{self.subject.id}:{no}", name)
            Author.objects.create(subject_id=self.subject.id, no=no, digest=digest, name=sealed)
        return self.authors[name]


@dataclass(frozen=True)
class Slow:
    """One unit for the oracle: everything is a plain Python value."""

    id: UUID
    session: object
    seq: int
    author: int
    month: bool
    terms: dict[str, int]
    vector: list[float] | None = None
    tokens: tuple[list[int], list[list[int]]] | None = None  # ids, and per token signs as +1 and -1


def slow_scores(
    units: Sequence[Slow], lexemes: Sequence[str], *, author: int | None = None, question: Question | None = None
) -> dict[UUID, float]:
    """Recall by loops, as section 2 of the recipe has it. Written apart from ranking.py, and without numpy."""
    lexical = _scale(_bm25([unit.terms for unit in units], lexemes, b=0.3))
    in_session: dict[object, dict[str, int]] = {}
    sizes: dict[object, int] = {}
    for unit in units:
        merged = in_session.setdefault(unit.session, {})
        for lexeme, count in unit.terms.items():
            merged[lexeme] = merged.get(lexeme, 0) + count
        sizes[unit.session] = sizes.get(unit.session, 0) + len(unit.terms)
    names = list(in_session)
    by_session = dict(
        zip(
            names,
            _bm25([in_session[name] for name in names], lexemes, b=0.75, sizes=[sizes[n] for n in names]),
            strict=True,
        )
    )
    session = _scale([by_session[unit.session] for unit in units])
    extra = [
        0.2 * session[n] + 0.1 * (author is not None and unit.author == author) + 0.3 * unit.month
        for n, unit in enumerate(units)
    ]
    if question is None or not any(unit.vector for unit in units):
        return _total(units, lexical, extra, near=0.2, far=0.1)
    asked = [float(value) for value in question.vector]
    sims = _scale([_dot(asked, unit.vector) if unit.vector else None for unit in units])
    first = [0.5 * lexical[n] + 0.5 * sims[n] if sims[n] is not None else lexical[n] for n in range(len(units))]
    drafted = _total(units, first, extra, near=0.15, far=0.07)
    if question.token_vectors is None or not any(unit.tokens for unit in units):
        return drafted
    ranked = sorted(range(len(units)), key=lambda n: (-drafted[units[n].id], units[n].seq, units[n].id.bytes))
    top = ranked[:100]
    late = dict(zip(top, _scale(_late([units[n] for n in top], question)), strict=True))
    top_sims = dict(
        zip(top, _scale([_dot(asked, units[n].vector) if units[n].vector else None for n in top]), strict=True)
    )
    final = []
    for n in range(len(units)):
        semantic = 0.0 if n not in late else late[n] if late[n] is not None else top_sims[n]
        final.append(lexical[n] if semantic is None else 0.3 * lexical[n] + 0.7 * semantic)
    return _total(units, final, extra, near=0.15, far=0.07)


def _bm25(documents: Sequence[dict[str, int]], lexemes: Sequence[str], *, b: float, sizes: Any = None) -> list[float]:
    sizes = sizes if sizes is not None else [len(document) for document in documents]
    mean, out = (sum(sizes) / len(sizes)) or 1.0, [0.0] * len(documents)
    for lexeme in lexemes:
        df = sum(lexeme in document for document in documents)
        idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
        for n, document in enumerate(documents):
            tf = document.get(lexeme, 0)
            out[n] += idf * tf * 2.2 / (tf + 1.2 * (1 - b + b * sizes[n] / mean)) if tf else 0.0
    return out


def _late(units: Sequence[Slow], question: Question) -> list[float | None]:
    assert question.token_vectors is not None and question.token_ids is not None
    holders = [unit for unit in units if unit.tokens]
    weights = []
    for token in question.token_ids:
        df = sum(int(token) in unit.tokens[0] for unit in holders if unit.tokens)
        weights.append(math.log(1 + (len(holders) - df + 0.5) / (df + 0.5)))
    out: list[float | None] = []
    for unit in units:
        if not unit.tokens:
            out.append(None)
            continue
        best = [max(_dot(vector, signs) for signs in unit.tokens[1]) for vector in question.token_vectors.tolist()]
        out.append(sum(w * value for w, value in zip(weights, best, strict=True)) / sum(weights))
    return out


def _total(
    units: Sequence[Slow], own: Sequence[float], extra: Sequence[float], *, near: float, far: float
) -> dict[UUID, float]:
    out = {}
    for n, unit in enumerate(units):
        turns = sorted((other.seq, m) for m, other in enumerate(units) if other.session == unit.session)
        place = turns.index((unit.seq, n))
        neighbours = sum(
            weight * own[turns[place + step][1]]
            for step, weight in ((-1, near), (1, near), (-2, far), (2, far))
            if 0 <= place + step < len(turns)
        )
        out[unit.id] = own[n] + neighbours + extra[n]
    return out


def _scale(values: Sequence[float | None]) -> list[Any]:
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    flat = 1.0 if high > 0 else 0.0
    return [None if v is None else (v - low) / (high - low) if high > low else flat for v in values]


def _dot(left: Sequence[float], right: Sequence[float] | None) -> float:
    assert right is not None
    return sum(a * b for a, b in zip(left, right, strict=True))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
