"""A question, checked and put into the space of a model. Asking a model may take a network call: it is done before a
transaction is opened, by asked(), and handed to the search.

While a tenant moves to another model, the question is asked in the former one too: its vectors serve until they are
replaced.

Without a model, and when it is down, a question is still its words; it then says why it is no more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import structlog

from agentstate.core.errors import DomainError
from agentstate.core.limits import MIB, QUESTION_CHARS_MAX
from agentstate.db import sql
from agentstate.llm import embedding, former_embedder
from agentstate.llm.embedding import Embedder, Question
from agentstate.tenants.scope import scope_of
from memory import texts

log = structlog.get_logger(__name__)

TOKENS_MAX = 64  # of a question that are compared with those of units
REST_S = 10.0  # after a failure: a dead endpoint must not cost its time limit at every question
DOWN = (DomainError, OSError, RuntimeError, ValueError)  # endpoints, files, the engine of a local model
# From one name to the next, whatever stands between them. Index: memory_unit_by_model.
_HELD = """
WITH RECURSIVE held AS (
  (SELECT model FROM memory_unit WHERE model > '' ORDER BY model LIMIT 1)
  UNION ALL
  SELECT (SELECT u.model FROM memory_unit u WHERE u.model > h.model ORDER BY u.model LIMIT 1) FROM held h
  WHERE h.model IS NOT NULL)
SELECT model FROM held WHERE model <> %s"""
_rests_until: dict[str, float] = {}  # model -> monotonic seconds


@dataclass(frozen=True, slots=True)
class InModel:
    """The question as one model sees it. `label`: the model as rows name it."""

    label: str
    question: Question


@dataclass(frozen=True, slots=True)
class Asked:
    """`why_less`: why it is words only, or why some vectors could not be asked; empty when all is well."""

    text: str
    models: tuple[InModel, ...]
    why_less: str = ""
    is_shortened: bool = False


def asked(question: str, *, tenant_id: UUID) -> Asked:
    """The question in the space of the configured model, and of those whose vectors this tenant still holds. Needs no
    scope: it reads by itself, and holds nothing while a model is asked.

    Raises: Invalid for an empty one, NUL and half surrogate pairs. A long one is asked by its first 4,000 characters.
    """
    asked = plain(question, why_less="no embedding model is configured")
    embedder = embedding.embedder()
    if embedder is None:
        return asked
    try:
        asked = replace(asked, models=(_in_model(asked.text, embedder),), why_less="")
    except DOWN as error:
        return replace(asked, why_less=_why(embedder.model_id, error))
    return also(asked, _others(tenant_id, asked.models[0].label)) if former_embedder.is_possible() else asked


def plain(question: str, *, why_less: str) -> Asked:
    """The question as words only. Raises: Invalid as asked()."""
    texts.clean(question, field="question", bytes_max=MIB)
    stripped = question.strip()
    return Asked(stripped[:QUESTION_CHARS_MAX], (), why_less, len(stripped) > QUESTION_CHARS_MAX)


def _others(tenant_id: UUID, label: str) -> tuple[str, ...]:
    """Other models whose vectors the tenant holds. One round trip."""
    _, found = sql.together(scope_of(tenant_id), (_HELD, [label]))
    return tuple(held for (held,) in found)


def also(question: Asked, labels: tuple[str, ...]) -> Asked:
    """The same, asked as well in the models that made these vectors, as far as they can still be asked."""
    for label in labels:
        embedder = former_embedder.named(label.rpartition(":")[0])
        if embedder is None:
            continue
        try:
            found = _in_model(question.text, embedder)
        except DOWN as error:
            question = replace(question, why_less=_why(embedder.model_id, error))
            continue
        if found.label == label:
            question = replace(question, models=(*question.models, found))
    return question


def label(model_id: str, dimensions: int) -> str:
    """A model as rows name it. An endpoint may give vectors of another length under the same name."""
    return f"{model_id}:{dimensions}"


def forget_failures() -> None:
    _rests_until.clear()


def _in_model(text: str, embedder: Embedder) -> InModel:
    """Raises: what the embedder raises; ValueError for an answer that is none."""
    if time.monotonic() < _rests_until.get(embedder.model_id, 0.0):
        raise OSError("it failed a moment ago")
    try:
        question = _checked(embedder.ask(text))
    except DOWN:
        _rests_until[embedder.model_id] = time.monotonic() + REST_S
        raise
    return InModel(label(embedder.model_id, len(question.vector)), question)


def _checked(question: Question) -> Question:
    vector = np.asarray(question.vector)
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all() or not vector.any():
        raise ValueError("not a vector")
    vectors, ids = question.token_vectors, question.token_ids
    if vectors is None or ids is None:
        return Question(vector)
    fits = vectors.ndim == 2 and vectors.shape == (len(ids), len(vector)) and bool(np.isfinite(vectors).all())
    if not fits or not len(ids):
        return Question(vector)
    return Question(vector, vectors[:TOKENS_MAX], ids[:TOKENS_MAX])


def _why(model_id: str, error: Exception) -> str:
    """Never the error's own words: they may quote the question."""
    log.warning("recall.embedder_down", model=model_id, error=type(error).__name__)
    return f"the embedding model {model_id} could not be asked ({type(error).__name__})"
