"""Vectors from an endpoint over real HTTP: what is sent, what is believed, and that the key stays secret."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from pytest_django import Settings

from agentstate.core import tokens
from agentstate.llm import embedding, embedding_endpoint
from agentstate.llm.embedding_endpoint import EndpointEmbedder
from agentstate.llm.endpoint import Address, BadAnswer, ModelRefused, ModelUnavailable

KEY = "sk-canary-41ce"
Rows = Callable[[list[str]], Any]


def rows(texts: list[str]) -> list[dict[str, Any]]:
    """A vector that tells the text: its length and its first character."""
    return [{"index": at, "embedding": [float(len(text)), ord(text[0]), 3]} for at, text in enumerate(texts)]


@dataclass
class Served:
    """An endpoint that answers what the test says and keeps what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    rows: Rows = rows
    waits: bool = False
    drips: bool = False
    may_go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)

    def answer(self) -> bytes:
        return self.body or json.dumps({"data": self.rows(self.asked[-1]["input"])}).encode()


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.headers.append((self.path, self.headers.get("Authorization")))
            if state.waits:
                state.may_go_on.wait(10)
            body = state.answer()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                for at in range(0, len(body), 1 if state.drips else len(body)):
                    self.wfile.write(body[at : at + (1 if state.drips else len(body))])
                    if state.drips and state.may_go_on.wait(0.02):
                        return
            except OSError:
                return  # the caller has hung up

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = threading.Thread(target=server.serve_forever, args=(0.02,))
    running.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    settings.EMBED_BASE_URL, settings.EMBED_MODEL, settings.EMBED_API_KEY = state.url, "small-3", KEY
    yield state
    state.may_go_on.set()
    server.shutdown()
    server.server_close()
    running.join()


def embedder(served: Served, **more: Any) -> EndpointEmbedder:
    address = Address("small-3", served.url, KEY, setting="EMBED_BASE_URL")
    return EndpointEmbedder(address, **{"tokens_max": 100, **more})


def test_the_settings_choose_it_and_texts_get_their_own_vectors(served: Served) -> None:
    found = embedding.embedder()
    assert found is embedding.embedder()
    assert found is not None
    assert (found.model_id, found.has_tokens, found.dimensions) == ("endpoint:small-3", False, 3)
    vectors = [each.vector for each in found.embed(["aa", "b"])]
    for vector, expected in zip(vectors, ([2, 97, 3], [1, 98, 3]), strict=True):
        assert vector.dtype == np.float32
        assert vector == pytest.approx(np.array(expected) / np.linalg.norm(expected), abs=1e-6)
    assert found.embed([]) == []
    asked = found.ask("aa")
    assert asked.vector.tobytes() == vectors[0].tobytes()
    assert (asked.token_vectors, asked.token_ids) == (None, None)
    assert served.headers[0] == ("/v1/embeddings", f"Bearer {KEY}")
    assert served.asked[1] == {"model": "small-3", "input": ["aa", "b"]}


def test_vectors_are_put_where_they_belong_whatever_their_order(served: Served) -> None:
    served.rows = lambda texts: rows(texts)[::-1]
    first, second = embedder(served).embed(["aa", "b"])
    assert first.vector[0] > second.vector[0]


def test_many_texts_are_sent_in_bounded_batches(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    found = embedder(served).embed([f"{n} text" for n in range(150)])
    assert [len(asked["input"]) for asked in served.asked] == [64, 64, 22]
    assert len(found) == 150
    served.asked.clear()
    monkeypatch.setattr(embedding_endpoint, "BATCH_TOKENS_MAX", 50)
    texts = ["word " * 20] * 7
    assert len(embedder(served).embed(texts)) == 7
    assert len(served.asked) > 2
    assert all(sum(map(tokens.count, asked["input"])) <= 50 for asked in served.asked)


@given(text=some.text(alphabet=some.characters(codec=None), max_size=300))
def test_any_text_can_be_sent(text: str) -> None:
    cut = embedding_endpoint._shortened(text, tokens_max=40)
    assert cut.strip()
    assert tokens.count(cut) <= 40
    json.dumps(cut, ensure_ascii=False).encode()


@pytest.mark.parametrize("text", ["", "  \n", "\x00", "\ud800", "猫" * 5_000, "x" * 3_000_000, "a\x00b"])
def test_texts_that_endpoints_refuse_are_not_sent_as_they_are(served: Served, text: str) -> None:
    assert len(embedder(served).embed([text])) == 1
    sent = served.asked[0]["input"][0]
    assert sent.strip()
    assert "\x00" not in sent
    assert tokens.count(sent) <= 100


GOOD = [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Sign in</body></html>",
        b"[]",
        b"null",
        b"{}",
        b'{"data": null}',
        b'{"data": []}',
        b'{"data": [{"embedding": [1, 2]}]}',
        b'{"data": [{"index": 1, "embedding": [1, 2]}]}',
        b'{"data": [{"index": 0, "embedding": []}]}',
        b'{"data": [{"index": 0, "embedding": [NaN, 1]}]}',
        b'{"data": [{"index": 0, "embedding": [Infinity, 1]}]}',
        b'{"data": [{"index": 0, "embedding": [1e999, 1]}]}',
        b'{"data": [{"index": 0, "embedding": [1e200, 1e200]}]}',
        b'{"data": [{"index": 0, "embedding": [0, 0]}]}',
        b'{"data": [{"index": 0, "embedding": ["1", "2"]}]}',
        b'{"data": [{"index": 0, "embedding": [true, false]}]}',
        b'{"data": [{"index": 0, "embedding": [[1, 2]]}]}',
        b'{"data": [{"index": 0, "embedding": "AACAPw=="}]}',
        b'{"data": [{"index": 0, "embedding": {"0": 1}}]}',
        b'{"data": [{"index": 0, "embedding": null}]}',
        b'{"data": [{"index": {}, "embedding": [1]}]}',
        b'{"data": [{"index": 0, "embedding": [1' + b"0" * 400 + b"]}]}",
        b'{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 0, "embedding": [1, 2]}]}',
        json.dumps({"data": [{"index": at, "embedding": GOOD} for at in range(2)]}).encode(),
        json.dumps({"data": [{"index": 0, "embedding": [0.5] * 16_001}]}).encode(),
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_nonsense_is_a_bad_answer(served: Served, body: bytes) -> None:
    served.body = body
    with pytest.raises(BadAnswer):
        embedder(served).embed(["x"])


def test_fewer_vectors_than_texts_are_a_bad_answer(served: Served) -> None:
    served.rows = lambda texts: rows(texts)[:-1]
    with pytest.raises(BadAnswer, match="one vector for each of 3 texts"):
        embedder(served).embed(["a", "b", "c"])
    served.rows = lambda texts: [*rows(texts)[:-1], {"index": len(texts) - 1, "embedding": [1.0]}]
    with pytest.raises(BadAnswer):
        embedder(served).embed(["a", "b", "c"])


def test_another_number_of_dimensions_than_before_is_a_bad_answer(served: Served) -> None:
    found = embedder(served)
    found.embed(["a"])
    served.rows = lambda texts: [{"index": at, "embedding": [1, 2, 3, 4]} for at, _ in enumerate(texts)]
    with pytest.raises(BadAnswer, match="4 dimensions, before of 3"):
        found.embed(["a"])
    served.rows = rows
    assert found.embed(["a"])[0].vector.shape == (3,)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, ModelRefused), (401, ModelRefused), (302, ModelRefused), (429, ModelUnavailable), (500, ModelUnavailable)],
)
def test_the_status_says_whether_to_try_again(served: Served, status: int, expected: type[Exception]) -> None:
    served.status, served.body = status, b'{"error": "no"}'
    with pytest.raises(expected) as raised:
        embedder(served).embed(["x"])
    assert type(raised.value) is expected


def test_silence_is_given_up(served: Served) -> None:
    served.waits = True
    with pytest.raises(ModelUnavailable, match="ReadTimeout"):
        embedder(served, silent_s_max=0.2).embed(["x"])


def test_a_byte_now_and_then_is_given_up_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_endpoint, "REPLY_S_MAX", 0.3)
    served.drips, served.body = True, b" " * 1_000
    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match="ReadTimeout"):
        embedder(served, silent_s_max=0.3).embed(["x"])
    assert time.monotonic() - started < 10  # all of it would take 20 s


def test_an_endless_answer_is_cut(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_endpoint, "REPLY_BYTES_MAX", 1_000)
    served.body = b" " * 5_000
    with pytest.raises(ModelUnavailable):
        embedder(served).embed(["x"])


def test_the_key_is_in_no_error_and_no_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    served.status, served.body = 401, f"Incorrect API key {KEY} pass-52".encode()
    address = Address("small-3", served.url.replace("//", "//me:pass-52@"), KEY, setting="EMBED_BASE_URL")
    found = EndpointEmbedder(address, tokens_max=100)
    with pytest.raises(ModelRefused) as refused:
        found.embed(["customer's words"])
    assert refused.value.__cause__ is None
    shown = f"{refused.value} {refused.value.data} {found!r} {address} {caplog.text}"
    for secret in (KEY, "pass-52", "customer's words"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("url", "model", "told"),
    [("", "m", "EMBED_BASE_URL is not set"), ("http://x/v1", "", "EMBED_MODEL is not set"), ("x", "m", "no address")],
)
def test_half_of_the_settings_is_said_and_nothing_is_used(settings: Settings, url: str, model: str, told: str) -> None:
    settings.EMBED_PROVIDER, settings.EMBED_BASE_URL, settings.EMBED_MODEL = "endpoint", url, model
    assert embedding.embedder() is None
    assert (embedding.status().level, told in embedding.status().words) == ("bad", True)


def test_the_provider_can_be_named_or_left_to_what_is_there(served: Served, settings: Settings) -> None:
    assert "small-3" in embedding.status().words, "auto takes the endpoint when both its settings are there"
    settings.EMBED_PROVIDER = "minilm"
    assert "MiniLM" in embedding.status().words
    settings.EMBED_PROVIDER = "none"
    assert embedding.embedder() is None
    assert embedding.status().level == "ok"
    settings.EMBED_PROVIDER, settings.EMBED_MODEL = "auto", ""
    assert "MiniLM" in embedding.status().words
    assert "go together and one is missing" in embedding.status().words
    assert served.asked == [], "a look asks nobody"
