"""The restore drill finds what is corrupt or missing, and calls nothing."""

from __future__ import annotations

from typing import Any

import pytest

from agentstate.affairs import restoring
from agentstate.core.ids import parse_id
from agentstate.db import sql
from agentstate.sdk.agents import agent
from agentstate.sdk.executor import Executor
from agentstate.sdk.steps import step, tool
from agentstate.tenants.scope import tenant_scope
from checkpoints.models import Frame
from runs.engine import hosting
from runs.engine.store import LocalStore
from runs.models import Run
from runs.services import workers

CALLS: list[str] = []


@step
def look(n: int) -> int:
    CALLS.append(f"look {n}")
    return n


@tool(effect="destructive", approve="always")
def erase(n: int, *, idempotency_key: str = "") -> str:
    CALLS.append("erase")
    return "erased"


@agent("eraser")
def eraser(n: int) -> str:
    return erase(look(n) + look(n + 1))


@pytest.fixture
def parked(alice: Any, monkeypatch: Any) -> Any:
    monkeypatch.setattr(hosting, "agents", lambda: {"eraser": eraser})
    CALLS.clear()
    store = LocalStore(alice, shared=True, lease_s=5)
    store.register(eraser.spec())
    run = store.admit("eraser", {"n": 1})
    claim = store.claim(workers.this_process(), agents={"eraser": eraser.spec()}, run_id=run.run_id)
    assert claim is not None
    assert Executor(store, claim, eraser).run().status == "waiting"
    return alice.tenant_id, parse_id("run", run.run_id)


def test_a_parked_run_restores_to_the_question_it_waits_for(parked: Any) -> None:
    tenant_id, _ = parked
    calls = list(CALLS)
    (found,) = restoring.drill(tenant_id)
    assert found.problems == []
    assert (found.hydrated, found.replayed, found.next_steps) == (True, 3, ["erase"])
    assert calls == CALLS, "a rehearsal must not call anything"
    with tenant_scope(tenant_id):
        assert Run.objects.get().fence == 1


def test_a_changed_frame_is_named(parked: Any) -> None:
    tenant_id, run_id = parked
    with tenant_scope(tenant_id):
        frame = Frame.objects.filter(run_id=run_id).latest("n")
        body = bytearray(frame.body)
        body[len(body) // 2] ^= 1
        sql.row("SELECT set_config('agentstate.compacting', 'on', true)")
        change = "UPDATE checkpoints_frame SET body = %s WHERE run_id = %s AND n = %s"
        sql.execute(change, [bytes(body), run_id, frame.n])
    (found,) = restoring.drill(tenant_id)
    assert any(f"Frame {frame.n} " in problem for problem in found.problems), found.problems


def test_a_head_that_is_not_the_newest_frame_is_named(parked: Any) -> None:
    tenant_id, run_id = parked
    with tenant_scope(tenant_id):
        Run.objects.filter(id=run_id).update(frame_n=99)
    (found,) = restoring.drill(tenant_id)
    assert any("frames are gone" in problem for problem in found.problems), found.problems


def test_a_step_row_that_was_rewritten_breaks_the_chain(parked: Any) -> None:
    tenant_id, run_id = parked
    with tenant_scope(tenant_id):
        sql.execute("UPDATE runs_step SET end_frame = end_frame + 1 WHERE run_id = %s AND seq = 1", [run_id])
    (found,) = restoring.drill(tenant_id)
    assert found.problems, "a step that moved to another turn must be noticed"
