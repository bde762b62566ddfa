"""The engine on the real database: plain runs, crashes, and who may go on."""

from __future__ import annotations

from typing import Any

import pytest

from agentstate.sdk.agents import agent
from agentstate.sdk.executor import Executor
from agentstate.sdk.steps import step
from agentstate.tenants.scope import tenant_scope
from runs.engine.store import LocalStore
from runs.models import Run, Step
from runs.services import workers


@step
def double(n: int) -> int:
    return n * 2


@agent("doubler")
def doubler(n: int) -> int:
    total = 0
    for _ in range(3):
        total = double(n + total)
    return total


def drive(store: LocalStore, the_agent: Any, run_id: str) -> Any:
    claim = store.claim(workers.this_process(), agents={the_agent.name: the_agent.spec()}, run_id=run_id)
    assert claim is not None
    return Executor(store, claim, the_agent).run()


@pytest.fixture
def store(alice: Any) -> LocalStore:
    made = LocalStore(alice, shared=True, lease_s=5)
    made.register(doubler.spec())
    return made


def test_a_plain_run_succeeds_with_its_steps_recorded(store: LocalStore) -> None:
    run = store.admit("doubler", {"n": 3})
    driven = drive(store, doubler, run.run_id)
    assert driven.status == "succeeded", driven
    assert store.get(run.run_id).output == 42
    with tenant_scope(store.tenant_id):
        assert [s.status for s in Step.objects.order_by("seq")] == ["done"] * 3
        assert Run.objects.get().frame_n == 4
