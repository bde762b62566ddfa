"""A real server process for the API's tests, keys of each person, and one client per key."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentstate.dev.children import dying_with_parent
from agentstate.sdk.http import HttpStore
from agentstate.sdk.store import AgentSpec, Claim, ToolSpec, WorkerInfo
from agentstate.tenants import api_keys
from agentstate.tenants.actors import VERBS, Actor

START_S_MAX = 40
LEASE_S = "5"
AGENT = AgentSpec("cleaner", "1", tools=(ToolSpec("refund", "destructive", approve="always"),))
WORKER = WorkerInfo("tests")


@pytest.fixture(scope="session")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base address of a uvicorn process on the test's database."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    environment = {**os.environ, "DATABASE_POOL": "1", "AGENTSTATE_LEASE_S": LEASE_S}
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "agentstate.asgi:application",
        "--host",
        "127.0.0.1",
    ]
    command += ["--port", str(port), "--no-access-log"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, preexec_fn=dying_with_parent(signal.SIGKILL)
        )
    try:
        _wait_until_answering(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def _wait_until_answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends_at = time.monotonic() + START_S_MAX
    while time.monotonic() < ends_at and process.poll() is None:
        try:
            if httpx.get(f"{url}/api/v1/openapi.json").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"The server did not start:\n{log.read_text()[-3000:]}", pytrace=False)


@dataclass
class Caller:
    """One API key and its client."""

    token: str
    client: httpx.Client
    actor: Actor
    url: str

    def __call__(self, method: str, path: str, json: Any = None, **given: Any) -> httpx.Response:
        return self.client.request(method, f"/api/v1{path}", json=json, **given)

    def store(self) -> HttpStore:
        return HttpStore(self.url, self.token)


@pytest.fixture
def caller(committed_db: None, server: str) -> Iterator[Callable[..., Caller]]:
    """Make a client: `caller(alice)` may do all that a key can, `caller(alice, "runs.read")` only that."""
    clients: list[httpx.Client] = []

    def make(issuer: Actor, *scopes: str) -> Caller:
        token, _ = api_keys.issue(name="tests", scopes=scopes or VERBS, actor=issuer)
        client = httpx.Client(base_url=server, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        clients.append(client)
        return Caller(token, client, api_keys.resolve(token), server)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def api(caller: Callable[..., Caller], alice: Actor) -> Caller:
    """Alice's key with every scope, and the agent `cleaner` registered."""
    made = caller(alice)
    made.store().register(AGENT)
    return made


@pytest.fixture
def claimed(api: Caller) -> tuple[Caller, Claim]:
    """A run that this caller drives."""
    store = api.store()
    run = store.admit("cleaner", {"canary": "CANARY-7f3a"}, external_id="t-1")
    claim = store.claim(WORKER, agents={"cleaner": AGENT}, run_id=run.run_id)
    assert claim is not None
    return api, claim
