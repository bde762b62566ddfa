"""The embedder that made vectors which are stored, when the settings choose another one now.

While a tenant moves from one model to another, questions are asked in both: the old vectors serve until they are
replaced. What is needed for it is what is still there: the model's files, or the endpoint under its address.
"""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from agentstate.llm import embedding
from agentstate.llm.embedding import Embedder
from agentstate.llm.endpoint import Address

ENDPOINT = "endpoint:"


def named(model_id: str) -> Embedder | None:
    """The embedder with this id, if it can be had without a download; None when nothing here knows it."""
    chosen = embedding.embedder()
    if chosen is not None and chosen.model_id == model_id:
        return chosen
    if model_id.startswith(ENDPOINT):
        return _endpoint(model_id.removeprefix(ENDPOINT), settings.EMBED_BASE_URL, settings.EMBED_API_KEY)
    return _local(model_id)


def is_possible() -> bool:
    """Whether there may be one: with the model on this machine and no endpoint there is no other."""
    return bool(settings.EMBED_BASE_URL)


@lru_cache(maxsize=4)
def _endpoint(name: str, url: str, key: str) -> Embedder | None:
    from agentstate.llm.embedding_endpoint import EndpointEmbedder

    if not url:
        return None
    address = Address(name, url, key, setting="EMBED_BASE_URL")
    return EndpointEmbedder(address, tokens_max=settings.EMBED_TOKENS_MAX)


def _local(model_id: str) -> Embedder | None:
    from agentstate.llm import minilm

    folder = minilm.find(settings.EMBED_MODEL_DIR).folder
    if folder is None or model_id != minilm.MiniLM.model_id:
        return None
    return _minilm(str(folder))


@lru_cache(maxsize=1)
def _minilm(folder: str) -> Embedder:
    from pathlib import Path

    from agentstate.llm.minilm import MiniLM

    return MiniLM(Path(folder))
