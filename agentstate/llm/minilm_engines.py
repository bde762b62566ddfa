"""The forward pass of all-MiniLM-L6-v2, twice: in numpy, and as a graph for onnxruntime where that is installed.

Both read the same weights from the mapped file, whose pages all processes share. Numpy is the oracle: a test compares
them. The graph holds no weights; tests/llm/make_minilm_graph.py writes it.

Sources: Devlin et al., 2018 (BERT); Wang et al., 2020 (MiniLM); the error function is Eigen's rational approximation.
"""

from __future__ import annotations

import json
import mmap
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from agentstate.llm.embedding import Floats, unit

log = structlog.get_logger(__name__)

GRAPH = Path(__file__).with_name("minilm.onnx")
LAYERS, HEADS, WIDTH = 6, 12, 384
EPSILON = np.float32(1e-12)
HALF, ROOT_HALF = np.float32(0.5), np.float32(0.5**0.5)
SCALE = np.float32((WIDTH / HEADS) ** -0.5)
# x * ABOVE(x^2) / BELOW(x^2) is erf(x) for |x| <= 4 within 4e-7; highest power first.
# fmt: off
ABOVE = np.array([
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
], dtype=np.float32)
BELOW = np.array([
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02,
], dtype=np.float32)
# fmt: on
Weights = dict[str, Floats]


class Engine(Protocol):
    def run(self, ids: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Token ids with their marks -> the last hidden state, tokens x 384, and its mean, scaled to length 1."""


def has_onnx() -> bool:
    return find_spec("onnxruntime") is not None


def load(weights: Path, *, engine: str = "") -> Engine:
    """`engine`: "onnx" or "numpy"; onnx where it is installed and takes the graph when not said."""
    read = read_weights(weights)
    if engine == "numpy" or (not engine and not has_onnx()):
        return NumpyEngine(read)
    try:
        return OnnxEngine(read)
    except Exception as error:  # a library of another version or for another processor; numpy gives the same vectors
        if engine:
            raise
        log.warning("minilm.onnxruntime_refused", cause=type(error).__name__)
        return NumpyEngine(read)


def read_weights(path: Path) -> Weights:
    """Name -> array of a safetensors file. The arrays are views of the mapped file: nothing is copied."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    body = 8 + int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[8:body])
    return {name: _array(mapped, body, entry) for name, entry in header.items() if entry.get("dtype") == "F32"}


def _array(mapped: mmap.mmap, body: int, entry: dict[str, Any]) -> Floats:
    start, end = entry["data_offsets"]
    flat = np.frombuffer(mapped, dtype="<f4", count=(end - start) // 4, offset=body + start)
    return flat.reshape(entry["shape"])


class NumpyEngine:
    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def run(self, ids: NDArray[np.int64]) -> tuple[Floats, Floats]:
        hidden = self._embeddings(ids)
        for layer in range(LAYERS):
            hidden = self._feed_forward(f"encoder.layer.{layer}", self._attention(f"encoder.layer.{layer}", hidden))
        return hidden, unit(hidden.mean(axis=0))

    def _embeddings(self, ids: NDArray[np.int64]) -> Floats:
        table = "embeddings.{}_embeddings.weight".format
        summed = self._weights[table("word")][ids] + self._weights[table("position")][: len(ids)]
        return self._normed("embeddings.LayerNorm", summed + self._weights[table("token_type")][0])

    def _attention(self, layer: str, hidden: Floats) -> Floats:
        def heads(part: str) -> Floats:
            rows = self._linear(f"{layer}.attention.self.{part}", hidden)
            return rows.reshape(len(hidden), HEADS, -1).transpose(1, 0, 2)

        shares: Floats = heads("query") @ heads("key").transpose(0, 2, 1)
        shares *= SCALE
        shares -= shares.max(axis=2, keepdims=True)
        np.exp(shares, out=shares)
        shares /= shares.sum(axis=2, keepdims=True)
        joined: Floats = (shares @ heads("value")).transpose(1, 0, 2).reshape(hidden.shape)
        said = self._linear(f"{layer}.attention.output.dense", joined)
        return self._normed(f"{layer}.attention.output.LayerNorm", hidden + said)

    def _feed_forward(self, layer: str, hidden: Floats) -> Floats:
        inner = _gelu(self._linear(f"{layer}.intermediate.dense", hidden))
        return self._normed(f"{layer}.output.LayerNorm", hidden + self._linear(f"{layer}.output.dense", inner))

    def _linear(self, name: str, rows: Floats) -> Floats:
        found: Floats = rows @ self._weights[f"{name}.weight"].T
        found += self._weights[f"{name}.bias"]
        return found

    def _normed(self, name: str, rows: Floats) -> Floats:
        rows = rows - rows.mean(axis=1, keepdims=True)
        rows /= np.sqrt((rows * rows).mean(axis=1, keepdims=True) + EPSILON)
        rows *= self._weights[f"{name}.weight"]
        rows += self._weights[f"{name}.bias"]
        return rows


class OnnxEngine:
    def __init__(self, weights: Weights) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # processes are the parallelism here
        options.enable_cpu_mem_arena = False  # it would keep what the longest text took
        options.log_severity_level = 3
        self._weights = {name: array for name, array in weights.items() if not name.startswith("pooler.")}
        handed_over = [ort.OrtValue.ortvalue_from_numpy(array) for array in self._weights.values()]
        options.add_external_initializers(list(self._weights), handed_over)
        self._session = ort.InferenceSession(GRAPH.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(self, ids: NDArray[np.int64]) -> tuple[Floats, Floats]:
        hidden, pooled = self._session.run(["hidden", "pooled"], {"ids": ids})
        return hidden, pooled


def _gelu(rows: Floats) -> Floats:
    """x/2 * (1 + erf(x / sqrt 2))"""
    found = _erf(rows * ROOT_HALF)
    found += 1
    found *= rows
    found *= HALF
    return found


def _erf(x: Floats) -> Floats:
    x = np.clip(x, -4, 4)
    square = x * x
    found = _polynomial(ABOVE, square)
    found *= x
    found /= _polynomial(BELOW, square)
    return found


def _polynomial(factors: Floats, x: Floats) -> Floats:
    """Horner's scheme, in place."""
    found: Floats = factors[0] * x
    for factor in factors[1:-1]:
        found += factor
        found *= x
    found += factors[-1]
    return found
