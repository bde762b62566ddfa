"""An OpenAI-compatible endpoint over real HTTP: what is sent, what is believed, and that the key stays secret."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agentstate.dev.demo.shapes import Reading
from agentstate.llm import chat

KEY = "sk-canary-93f1"
ASKED = [chat.Message("user", "What does this say?")]
GOOD = {"kind": "refund", "order": "4467", "amount": "180.50", "language": "en", "summary": "Asks for a refund."}


@dataclass
class Served:
    """A model's server that answers what the test says and keeps what it was asked."""

    url: str = ""
    status: int = 200
    body: Any = None
    delay: threading.Event = field(default_factory=threading.Event)
    slow: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    authorization: list[str] = field(default_factory=list)

    def say(self, text: str, **message: Any) -> None:
        usage = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}
        self.body = {"choices": [{"message": {"content": text, **message}}], "usage": usage}


@pytest.fixture
def served() -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.authorization.append(self.headers.get("Authorization", ""))
            if state.slow:
                state.delay.wait(10)
            body = state.body if isinstance(state.body, bytes) else json.dumps(state.body).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = threading.Thread(target=server.serve_forever, args=(0.02,))
    running.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    state.delay.set()
    server.shutdown()
    server.server_close()
    running.join()


def endpoint(served: Served, **more: Any) -> chat.Endpoint:
    return chat.Endpoint(name="gpt-4o-mini", url=served.url, key=KEY, **more)


def read(served: Served) -> Reading:
    return chat.ask_for(endpoint(served), Reading, ASKED, purpose="read-message")[0]


def test_an_answer_comes_with_its_tokens_and_its_cost(served: Served) -> None:
    served.say("Hello.")
    reply = endpoint(served).complete(ASKED, purpose="greet")
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("Hello.", 1_000_000, 1_000_000)
    assert reply.cost == pytest.approx(0.75)  # 0.15 + 0.60 dollars a million
    assert served.authorization == [f"Bearer {KEY}"]
    assert served.asked[0]["messages"] == [{"role": "user", "content": "What does this say?"}]


def test_tokens_are_counted_here_when_the_endpoint_does_not_say(served: Served) -> None:
    served.body = {"choices": [{"message": {"content": "Hello there."}}]}
    reply = endpoint(served).complete(ASKED, purpose="greet")
    assert (reply.tokens_in >= 5, reply.tokens_out >= 3) == (True, True)


def test_tool_calls_are_read(served: Served) -> None:
    served.say("", tool_calls=[{"id": "c1", "function": {"name": "look", "arguments": '{"order": "4467"}'}}])
    reply = endpoint(served).complete(ASKED, purpose="act", tools=[{"name": "look", "parameters": {}}])
    assert reply.tool_calls == (chat.ToolCall("c1", "look", {"order": "4467"}),)
    assert served.asked[0]["tools"][0]["function"]["name"] == "look"


@pytest.mark.parametrize("around", ["{}", "Sure!\n```json\n{}\n```\nAnything else?", "Here: {} ok"])
def test_an_object_is_found_among_words(served: Served, around: str) -> None:
    served.say(around.replace("{}", json.dumps(GOOD)))
    assert read(served).amount == "180.50"


@pytest.mark.parametrize(
    "text",
    [
        "I cannot do that.",
        "",
        "[1]",
        "{",
        json.dumps({**GOOD, "kind": "wire-transfer"}),
        json.dumps({**GOOD, "amount": "180.5 EUR; DROP"}),
        json.dumps({**GOOD, "order": "../../admin"}),
        json.dumps({**GOOD, "tool": "refund.create"}),
        "[" * 100_000,
    ],
)
def test_an_answer_that_does_not_fit_is_an_error_that_may_be_tried_again(served: Served, text: str) -> None:
    served.say(text)
    with pytest.raises(chat.BadAnswer):
        read(served)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": {"a": 1}}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": {"name": "x", "arguments": "no"}}]}}]}',
        b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}',
        b"[" * 200_000,
    ],
)
def test_a_body_that_is_no_completion_is_a_bad_answer(served: Served, body: bytes) -> None:
    served.body = body
    with pytest.raises(chat.BadAnswer):
        endpoint(served).complete(ASKED, purpose="greet")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, chat.ModelRefused),
        (404, chat.ModelRefused),
        (400, chat.ModelRefused),
        (302, chat.ModelRefused),
        (429, chat.ModelUnavailable),
        (500, chat.ModelUnavailable),
        (503, chat.ModelUnavailable),
    ],
)
def test_the_status_says_whether_to_try_again(served: Served, status: int, expected: type[Exception]) -> None:
    served.status, served.body = status, {"error": "no"}
    with pytest.raises(expected) as raised:
        endpoint(served).complete(ASKED, purpose="greet")
    assert type(raised.value) is expected
    assert str(status) in str(raised.value)


def test_silence_is_given_up_and_may_be_tried_again(served: Served) -> None:
    served.slow = True
    with pytest.raises(chat.ModelUnavailable, match="ReadTimeout"):
        endpoint(served, reply_s_max=0.2).complete(ASKED, purpose="greet")


def test_an_endless_answer_is_cut(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "REPLY_BYTES_MAX", 1_000)
    served.say("x" * 2_000)
    with pytest.raises(chat.ModelUnavailable):
        endpoint(served).complete(ASKED, purpose="greet")


@pytest.mark.parametrize("url", ["not an address", "ftp://x", "http:///v1", "http://\x00"])
def test_an_address_that_is_none_is_a_sentence(url: str) -> None:
    with pytest.raises(chat.ModelRefused, match="OPENAI_BASE_URL"):
        chat.Endpoint(name="m", url=url, key=KEY).complete(ASKED, purpose="greet")


def test_the_key_is_in_no_error_and_no_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    served.status, served.body = 401, {"error": f"Incorrect API key provided: {KEY} pass-77"}
    found = chat.Endpoint(name="m", url=served.url.replace("//", "//me:pass-77@"), key=KEY)
    with pytest.raises(chat.ModelRefused) as refused:
        found.complete(ASKED, purpose="greet")
    with pytest.raises(chat.ModelUnavailable) as silent:
        chat.Endpoint(name="m", url="http://127.0.0.1:1/v1", key=KEY).complete(ASKED, purpose="greet")
    for error in (refused.value, silent.value):
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None
    shown = f"{refused.value} {silent.value} {found!r} {found} {caplog.text}"
    assert KEY not in shown
    assert "pass-77" not in shown


def test_only_a_chosen_model_is_asked() -> None:
    assert chat.from_environment({}) is None
    assert chat.from_environment({"OPENAI_API_KEY": KEY}) is None
    assert chat.from_environment({"AGENTSTATE_MODEL": "scripted", "OPENAI_BASE_URL": "http://x/v1"}) is None
    found = chat.from_environment({"AGENTSTATE_MODEL": "llama3", "OPENAI_BASE_URL": "http://x/v1"})
    assert found == chat.Endpoint(name="llama3", url="http://x/v1")
    with pytest.raises(chat.ModelRefused, match="set AGENTSTATE_MODEL"):
        chat.from_environment({"OPENAI_BASE_URL": "http://x/v1"})


def test_half_a_surrogate_pair_is_sent_as_a_question_mark(served: Served) -> None:
    served.say("Hello.")
    endpoint(served).complete([chat.Message("user", "broken \ud83d emoji")], purpose="greet")
    assert served.asked[0]["messages"][0]["content"] == "broken ? emoji"
