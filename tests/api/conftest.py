"""Keys of each person on a real server process, and one client per key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from agentstate.sdk.http import HttpStore
from agentstate.sdk.store import AgentSpec, Claim, ToolSpec, WorkerInfo
from agentstate.tenants import api_keys
from agentstate.tenants.actors import VERBS, Actor

AGENT = AgentSpec("cleaner", "1", tools=(ToolSpec("refund", "destructive", approve="always"),))
WORKER = WorkerInfo("tests")


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
