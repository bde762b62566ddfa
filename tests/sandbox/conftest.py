from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from agentstate.dev.sandbox.client import Sandbox
from agentstate.dev.sandbox.ledger import Json

REPLY_S_MAX = 10.0


class Caller:
    """Calls the way an agent's tool would: its own connection, a key, a time-out."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._pool = ThreadPoolExecutor(4)
        self._http = httpx.Client(trust_env=False, timeout=REPLY_S_MAX)

    def call(self, tool: str, key: str, payload: Json = None, *, s: float = REPLY_S_MAX) -> httpx.Response:
        headers = {"Idempotency-Key": key, "Caller-Pid": "4711"}
        url = f"{self.sandbox.url}/acts/{tool}"
        return self._http.post(url, json=payload or {}, headers=headers, timeout=s)

    def refund(self, key: str, order_id: str, amount: Json) -> httpx.Response:
        payload = {"order_id": order_id, "amount": amount}
        url = f"{self.sandbox.url}/refunds"
        return self._http.post(url, json=payload, headers={"Idempotency-Key": key})

    def later(self, tool: str, key: str) -> Future[httpx.Response]:
        return self._pool.submit(self.call, tool, key)

    def probe(self, tool: str, key: str) -> int:
        return self._http.get(f"{self.sandbox.url}/acts/{tool}/by-key/{key}").status_code

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()


@pytest.fixture(scope="module")
def one_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def sandbox(one_sandbox: Sandbox) -> Sandbox:
    one_sandbox.reset()
    return one_sandbox


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox of its own, to be killed."""
    with Sandbox.start(tmp_path / "sandbox") as running:
        yield running


@pytest.fixture
def caller(sandbox: Sandbox) -> Iterator[Caller]:
    made = Caller(sandbox)
    yield made
    made.close()
