"""What a step is, and what became of it, does not change in the database, whoever writes."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, transaction

from agentstate.core.ids import parse_id
from agentstate.sdk.store import Claim
from agentstate.tenants.scope import tenant_scope
from runs.models import Run, Step
from tests.runs.conftest import Desk


@pytest.fixture
def done(desk: Desk) -> Claim:
    """A run whose first step is done and whose second has started."""
    claim = desk.start()
    desk.finish(claim, desk.begin(claim, "look").seq, output={"found": 1})
    desk.begin(claim, "read")
    return claim


def write(desk: Desk, claim: Claim, seq: int, **changes: Any) -> None:
    with tenant_scope(desk.tenant_id), transaction.atomic():
        assert Step.objects.filter(run_id=parse_id("run", claim.run_id), seq=seq).update(**changes) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "another#1"},
        {"generation": 7},
        {"name": "another"},
        {"kind": "tool"},
        {"effect": "replayable"},
        {"payload_hash": b"x" * 32},
        {"key": "k" * 64},
        {"fence": 0},
        {"status": "started"},
        {"output": b"forged"},
        {"output_hash": b"x" * 32},
        {"fence": 99},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_step_that_is_over_is_frozen(desk: Desk, done: Claim, changes: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError, match=r"step 1 of run .* is frozen"):
        write(desk, done, 1, **changes)


@pytest.mark.parametrize("changes", [{"identity": "another#1"}, {"payload_hash": b"x" * 32}, {"fence": 0}])
def test_a_started_step_keeps_what_it_is(desk: Desk, done: Claim, changes: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError, match=r"step 2 of run .* is frozen"):
        write(desk, done, 2, **changes)


def test_a_started_step_may_fail_and_pass_to_a_higher_fence(desk: Desk, done: Claim) -> None:
    write(desk, done, 2, status="failed", fence=99)


@pytest.mark.parametrize("changes", [{"fence": 0}, {"agent": "another"}])
def test_the_fence_of_a_run_never_falls_and_its_agent_stays(desk: Desk, done: Claim, changes: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError, match="never falls"), tenant_scope(desk.tenant_id), transaction.atomic():
        Run.objects.filter(id=parse_id("run", done.run_id)).update(**changes)
