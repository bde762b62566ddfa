"""Writes agentstate/llm/minilm.onnx: the forward pass of all-MiniLM-L6-v2 as a graph that holds no weights.

    pip install onnx && python tests/llm/make_minilm_graph.py

Each weight is declared by its name in model.safetensors and handed over when the graph is loaded. One text at a time:
`ids` has no batch dimension, so nothing is padded. The test beside this compares the graph with the pass in numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnx import NodeProto, TensorProto, helper

GRAPH = Path(__file__).resolve().parents[2] / "agentstate" / "llm" / "minilm.onnx"
OPSET = 20  # the first with Gelu
WIDTH, INNER, HEADS, LAYERS, POSITIONS, WORDS = 384, 1536, 12, 6, 512, 30_522
EPSILON = 1e-12
TABLES = {"word": WORDS, "position": POSITIONS, "token_type": 2}


def weights() -> Iterator[tuple[str, tuple[int, ...]]]:
    for table, rows in TABLES.items():
        yield f"embeddings.{table}_embeddings.weight", (rows, WIDTH)
    yield from _pair("embeddings.LayerNorm", (WIDTH,))
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            yield from _pair(f"{at}.attention.self.{part}", (WIDTH, WIDTH))
        yield from _pair(f"{at}.attention.output.dense", (WIDTH, WIDTH))
        yield from _pair(f"{at}.attention.output.LayerNorm", (WIDTH,))
        yield from _pair(f"{at}.intermediate.dense", (INNER, WIDTH))
        yield from _pair(f"{at}.output.dense", (WIDTH, INNER))
        yield from _pair(f"{at}.output.LayerNorm", (WIDTH,))


def nodes() -> Iterator[NodeProto]:
    yield from embeddings()
    hidden = "embedded"
    for layer in range(LAYERS):
        yield from attention(f"encoder.layer.{layer}.attention", hidden)
        yield from feed_forward(f"encoder.layer.{layer}", f"encoder.layer.{layer}.attention")
        hidden = f"encoder.layer.{layer}"
    yield helper.make_node("Identity", [hidden], ["hidden"])
    yield helper.make_node("ReduceMean", ["hidden", "first"], ["mean"], keepdims=0)
    yield helper.make_node("LpNormalization", ["mean"], ["pooled"], axis=0, p=2)


def embeddings() -> Iterator[NodeProto]:
    yield helper.make_node("Gather", ["embeddings.word_embeddings.weight", "ids"], ["words"])
    yield helper.make_node("Shape", ["ids"], ["count"])
    yield helper.make_node("Slice", ["embeddings.position_embeddings.weight", "first", "count"], ["places"])
    yield helper.make_node("Slice", ["embeddings.token_type_embeddings.weight", "first", "one"], ["kind"])
    yield helper.make_node("Add", ["words", "places"], ["placed"])
    yield helper.make_node("Add", ["placed", "kind"], ["summed"])
    yield _norm("embeddings.LayerNorm", "summed", "embedded")


def attention(at: str, hidden: str) -> Iterator[NodeProto]:
    """`hidden` and what its tokens say to each other, normed; named `at`."""
    for part, order in (("query", [1, 0, 2]), ("key", [1, 2, 0]), ("value", [1, 0, 2])):
        yield _linear(f"{at}.self.{part}", hidden, f"{at}.{part}")
        yield helper.make_node("Reshape", [f"{at}.{part}", "heads"], [f"{at}.{part}.heads"])
        yield helper.make_node("Transpose", [f"{at}.{part}.heads"], [f"{at}.{part}.split"], perm=order)
    yield helper.make_node("MatMul", [f"{at}.query.split", f"{at}.key.split"], [f"{at}.products"])
    yield helper.make_node("Mul", [f"{at}.products", "scale"], [f"{at}.scores"])
    yield helper.make_node("Softmax", [f"{at}.scores"], [f"{at}.shares"], axis=-1)
    yield helper.make_node("MatMul", [f"{at}.shares", f"{at}.value.split"], [f"{at}.said"])
    yield helper.make_node("Transpose", [f"{at}.said"], [f"{at}.turned"], perm=[1, 0, 2])
    yield helper.make_node("Reshape", [f"{at}.turned", "rows"], [f"{at}.joined"])
    yield _linear(f"{at}.output.dense", f"{at}.joined", f"{at}.dense")
    yield helper.make_node("Add", [hidden, f"{at}.dense"], [f"{at}.added"])
    yield _norm(f"{at}.output.LayerNorm", f"{at}.added", at)


def feed_forward(at: str, hidden: str) -> Iterator[NodeProto]:
    yield _linear(f"{at}.intermediate.dense", hidden, f"{at}.inner")
    yield helper.make_node("Gelu", [f"{at}.inner"], [f"{at}.bent"])
    yield _linear(f"{at}.output.dense", f"{at}.bent", f"{at}.outer")
    yield helper.make_node("Add", [hidden, f"{at}.outer"], [f"{at}.added"])
    yield _norm(f"{at}.output.LayerNorm", f"{at}.added", at)


def make() -> bytes:
    constants = [
        helper.make_tensor("first", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("heads", TensorProto.INT64, [3], [-1, HEADS, WIDTH // HEADS]),
        helper.make_tensor("rows", TensorProto.INT64, [2], [-1, WIDTH]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [(WIDTH / HEADS) ** -0.5]),
    ]
    graph = helper.make_graph(
        list(nodes()),
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["tokens"])],
        [
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["tokens", WIDTH]),
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [WIDTH]),
        ],
        initializer=[*constants, *(_declared(name, shape) for name, shape in weights())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    model.producer_name = model.producer_version = ""
    return bytes(model.SerializeToString())


def _pair(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _declared(name: str, shape: tuple[int, ...]) -> TensorProto:
    tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="handed-over")
    return tensor


def _linear(name: str, taken: str, given: str) -> NodeProto:
    """transB: the weights stay as the file has them."""
    return helper.make_node("Gemm", [taken, f"{name}.weight", f"{name}.bias"], [given], transB=1)


def _norm(name: str, taken: str, given: str) -> NodeProto:
    return helper.make_node(
        "LayerNormalization", [taken, f"{name}.weight", f"{name}.bias"], [given], axis=-1, epsilon=EPSILON
    )


if __name__ == "__main__":
    made = make()
    GRAPH.write_bytes(made)
    print(f"{GRAPH}: {len(made)} bytes")
