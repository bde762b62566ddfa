"""A chat endpoint that says what the test wants, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pytest_django import Settings


class Served:
    """An endpoint that says what the test wants."""

    def __init__(self) -> None:
        self.status, self.said, self.body = 200, "", b""
        self.asked: list[dict[str, Any]] = []

    def answer(self) -> bytes:
        message = {"role": "assistant", "content": self.said}
        whole = {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": "small",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }
        return self.body or json.dumps(whole).encode()


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = state.answer()
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = threading.Thread(target=server.serve_forever, args=(0.02,))
    running.start()
    settings.SUMMARY_MODEL, settings.OPENAI_BASE_URL = "small", f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    server.server_close()
    running.join()
