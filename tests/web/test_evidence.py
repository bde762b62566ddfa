"""What a page shows of trouble: takeovers, every attempt with its error, late answers, erased keys."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from django.test import Client

from agentstate.core.ids import parse_id
from agentstate.sdk.store import Claim, Failure, StepFinish, StepStart, Turn
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys
from runs.models import Run, Step
from runs.services import clock
from tests.web.forms import text
from tests.web.world import World

pytestmark = pytest.mark.django_db


def lose(world: World, run: str) -> None:
    """The lease of its worker is over."""
    with tenant_scope(world.store.tenant_id):
        past = clock.database_now() - timedelta(seconds=1)
        Run.objects.filter(id=parse_id("run", run)).update(lease_until=past)


def test_a_takeover_is_told_on_the_runs_page(alice_client: Client, world: World, base: str) -> None:
    run = world.running("1")
    assert "Taken over" not in text(alice_client.get(f"{base}/runs/{run}/"))
    for _ in range(2):
        lose(world, run)
        world.claim(run)
    assert "Taken over 2 times" in text(alice_client.get(f"{base}/runs/{run}/"))


def test_every_attempt_keeps_its_error_key_and_time(alice_client: Client, world: World, base: str) -> None:
    run = world.admit("1")
    claim = world.claim(run)
    for number in range(3):
        start = StepStart(
            "crm#1", "crm.update", "tool", "keyed", payload={"u": 1}, window_s=86400.0, attempt=number + 1
        )
        begun = world.store.turn(claim, Turn(start=[start])).begun[0]
        assert begun.attempt == number + 1
        failure = Failure("PoolTimeout", f"no connection, try {number}", retryable=True)
        world.store.turn(claim, Turn(finish=[StepFinish(begun.seq, "not_sent", failure=failure, retry_in_s=0.0)]))
    page = text(alice_client.get(f"{base}/runs/{run}/steps/1/"))
    assert [f"no connection, try {number}" in page for number in range(3)] == [True, True, True]
    assert page.count("not sent") >= 3
    timeline = text(alice_client.get(f"{base}/runs/{run}/"))
    assert timeline.count('class="bad past"') == 2 and "attempt 3" in timeline


def test_a_late_answer_stands_as_evidence_on_the_step_and_the_settle_page(
    alice_client: Client, bob_client: Client, world: World, base: str
) -> None:
    run, seq = world.in_doubt()
    world.store.late(Claim(run, "refunds", 1, 1.0), StepFinish(seq, "done", output={"refund_id": "rf-late"}))
    for address in (f"{base}/runs/{run}/steps/{seq}/", f"{base}/runs/{run}/steps/{seq}/settle/"):
        page = text(bob_client.get(address))
        assert "rf-late" in page and "ate answer" in page
    assert "May have happened twice" not in text(alice_client.get(f"{base}/"))


def test_a_late_answer_after_did_not_happen_turns_every_page_red(bob_client: Client, world: World, base: str) -> None:
    run, seq = world.in_doubt()
    with tenant_scope(world.store.tenant_id):
        Step.objects.filter(run_id=parse_id("run", run), seq=seq).update(authorised=1)
    world.store.late(Claim(run, "refunds", 1, 1.0), StepFinish(seq, "done", output={"id": 1}))
    for address in (f"{base}/", f"{base}/runs/{run}/steps/{seq}/"):
        assert "May have happened twice" in text(bob_client.get(address))


def test_a_run_whose_key_was_destroyed_still_shows_what_is_not_sealed(
    alice_client: Client, world: World, base: str
) -> None:
    run, approval = world.asking()
    with tenant_scope(world.store.tenant_id), transaction.atomic():
        keys.destroy(parse_id("run", run))
    for address in (f"{base}/runs/{run}/", f"{base}/runs/{run}/steps/1/", f"{base}/approvals/{approval}/"):
        page = text(alice_client.get(address))
        assert "key of this run was destroyed" in page or "key of this run is gone" in page, address
    for address in (f"{base}/", f"{base}/approvals/", f"{base}/runs/", f"{base}/runs/{run}/state/"):
        assert alice_client.get(address).status_code == 200


def test_health_checks_the_invariants_and_names_what_is_broken(alice_client: Client, world: World, base: str) -> None:
    world.done("1")
    assert "all hold" in text(alice_client.get(f"{base}/health/?check=1"))
    run = world.running("2")
    with tenant_scope(world.store.tenant_id):
        Run.objects.filter(id=parse_id("run", run)).update(lease_until=None, worker=None)
    page = text(alice_client.get(f"{base}/health/?check=1"))
    assert "violation" in page and parse_id("run", run).hex in page.replace("-", "")
