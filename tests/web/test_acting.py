"""Starting, settling, resuming, pausing, stopping: forms with a reason, refused with what was typed kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from agentstate.core.ids import parse_id
from agentstate.tenants.scope import tenant_scope
from runs.models import Run, Step, Stop
from tests.web.forms import form, text
from tests.web.world import World

pytestmark = pytest.mark.django_db


def run_of(world: World, run: str) -> Run:
    with tenant_scope(world.store.tenant_id):
        return Run.objects.get(id=parse_id("run", run))


def count(world: World) -> int:
    with tenant_scope(world.store.tenant_id):
        return Run.objects.count()


def test_the_start_form_sent_twice_starts_one_run(alice_client: Client, world: World, base: str) -> None:
    address = f"{base}/agents/refunds/"
    sent = {**form(text(alice_client.get(address)), having="client_token"), "arg.order": "4411", "tags": "vip, eu"}
    first, second = alice_client.post(address, sent), alice_client.post(address, sent)
    assert first.status_code == second.status_code == 303
    assert first["Location"] == second["Location"]
    assert count(world) == 1
    with tenant_scope(world.store.tenant_id):
        assert sorted(Run.objects.get().tags) == ["eu", "vip"]
    page = text(alice_client.get(first["Location"]))
    assert "started no second one" in page
    assert '"4411"' in page.replace("&quot;", '"')


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("arg.order", "", "Fill this in"), ("arg.depth", "77", "maximum"), ("arg.depth", "x", "Write a number")],
)
def test_a_start_that_breaks_the_schema_starts_nothing_and_keeps_what_was_typed(
    alice_client: Client, world: World, base: str, name: str, value: str, says: str
) -> None:
    address = f"{base}/agents/refunds/"
    sent = {**form(text(alice_client.get(address)), having="client_token"), "arg.order": "4411", name: value}
    refused = alice_client.post(address, {**sent, "external_id": "ticket-9"})
    assert refused.status_code == 422
    assert says in text(refused) and "ticket-9" in text(refused)
    assert count(world) == 0


def test_who_may_not_start_sees_why_and_is_refused(bob_client: Client, world: World, base: str) -> None:
    address = f"{base}/agents/refunds/"
    assert "needs the role operator" in text(bob_client.get(address))
    assert bob_client.post(address, {"arg.order": "1"}).status_code == 403
    assert count(world) == 0


def test_settling_as_happened_lets_the_run_go_on_with_the_result(bob_client: Client, world: World, base: str) -> None:
    run, seq = world.in_doubt()
    address = f"{base}/runs/{run}/steps/{seq}/settle/"
    page = text(bob_client.get(address))
    assert "https://shop.example.test/ledger?key=" in page and "connection reset" in page
    sent = form(page, having="proposal_hash")
    assert bob_client.post(address, {**sent, "reason": "saw it"}).status_code == 422
    no_reason = bob_client.post(address, {**sent, "verdict": "happened", "evidence": "re_8811"})
    assert no_reason.status_code == 422 and "re_8811" in text(no_reason)
    bad = bob_client.post(address, {**sent, "verdict": "happened", "reason": "ledger", "output": "{"})
    assert bad.status_code == 422 and "no valid JSON" in text(bad)
    done = bob_client.post(
        address,
        {**sent, "verdict": "happened", "evidence": "re_8811", "reason": "ledger", "output": '{"id": "re_8811"}'},
    )
    assert done.status_code == 303
    assert run_of(world, run).status == "queued"
    settled = text(bob_client.get(address))
    assert "It happened" in settled and "re_8811" in settled and "Bob" in settled


def test_did_not_happen_is_closed_while_a_late_answer_may_come(bob_client: Client, world: World, base: str) -> None:
    run, seq = world.in_doubt()
    address = f"{base}/runs/{run}/steps/{seq}/settle/"
    page = text(bob_client.get(address))
    assert "until then a late answer may come" in page
    sent = {**form(page, having="proposal_hash"), "verdict": "did_not_happen", "reason": "not in the ledger"}
    early = bob_client.post(address, sent)
    assert early.status_code == 409 and "late answer may still come" in text(early)
    assert "not in the ledger" in text(early)
    with tenant_scope(world.store.tenant_id):
        step = Step.objects.get(run_id=parse_id("run", run), seq=seq)
        assert step.call_by is not None
        Step.objects.filter(run_id=step.run_id, seq=seq).update(call_by=step.call_by - timedelta(minutes=5))
    assert "Open since" in text(bob_client.get(address))
    assert bob_client.post(address, sent).status_code == 303
    assert run_of(world, run).status == "queued"


def test_who_settles_second_gets_409_with_the_winner(
    alice_client: Client, bob_client: Client, world: World, base: str
) -> None:
    run, seq = world.in_doubt()
    address = f"{base}/runs/{run}/steps/{seq}/settle/"
    bobs = form(text(bob_client.get(address)), having="proposal_hash")
    alices = form(text(alice_client.get(address)), having="proposal_hash")
    assert alice_client.post(address, {**alices, "verdict": "give_up", "reason": "old"}).status_code == 303
    lost = bob_client.post(address, {**bobs, "verdict": "happened", "reason": "I saw it there"})
    assert lost.status_code == 409
    assert "Someone was faster" in text(lost) and "Alice" in text(lost) and "I saw it there" in text(lost)
    assert run_of(world, run).status == "failed"


def test_a_resume_is_planned_then_confirmed_with_a_reason(alice_client: Client, world: World, base: str) -> None:
    run = world.failed()
    address = f"{base}/runs/{run}/resume/"
    page = text(alice_client.get(address))
    assert "2 steps" in page and "was never sent; a new key" in page
    assert run_of(world, run).status == "failed", "a plan runs nothing"
    sent = form(page, having="seen")
    assert alice_client.post(address, sent).status_code == 422
    assert alice_client.post(address, {**sent, "reason": "CRM answers again"}).status_code == 303
    assert run_of(world, run).status == "queued"
    audit = text(alice_client.get(f"{base}/runs/{run}/audit/"))
    assert "CRM answers again" in audit


def test_a_plan_that_is_older_than_the_run_is_not_carried_out(alice_client: Client, world: World, base: str) -> None:
    run = world.failed()
    address = f"{base}/runs/{run}/resume/"
    sent = {**form(text(alice_client.get(address)), having="seen"), "seen": "1", "reason": "again"}
    refused = alice_client.post(address, sent)
    assert refused.status_code == 409 and "after this plan was made" in text(refused)
    assert run_of(world, run).status == "failed"


def test_a_plan_names_what_changed_in_the_code_and_what_is_in_doubt(
    alice_client: Client, world: World, base: str
) -> None:
    from dataclasses import replace

    from tests.web.world import SPEC

    failed = world.failed()
    doubted, _ = world.in_doubt()
    world.store.register(replace(SPEC, version="120", fingerprint={"main": "changed", "extra": "new"}))
    page = text(alice_client.get(f"{base}/runs/{failed}/resume/"))
    assert "Code that changed" in page and "other code than at the last claim" in page and "<del>119</del>" in page
    assert "Settle it first" in text(alice_client.get(f"{base}/runs/{doubted}/resume/"))


def test_pause_and_cancel_are_forms_and_say_what_happened(alice_client: Client, world: World, base: str) -> None:
    queued, running = world.admit("1"), world.running("2")
    assert alice_client.get(f"{base}/runs/{queued}/pause/").status_code == 405
    assert alice_client.post(f"{base}/runs/{queued}/pause/").status_code == 303
    assert run_of(world, queued).status == "paused"
    alice_client.post(f"{base}/runs/{running}/pause/")
    assert "pausing" in text(alice_client.get(f"{base}/runs/{running}/"))
    alice_client.post(f"{base}/runs/{queued}/cancel/", {"reason": "wrong customer"})
    assert run_of(world, queued).status == "cancelled"
    twice = alice_client.post(f"{base}/runs/{queued}/pause/", follow=True)
    assert "cannot be paused" in text(twice)


def test_a_viewer_can_change_nothing(victor_client: Client, world: World, base: str) -> None:
    run = world.running("1")
    page = text(victor_client.get(f"{base}/runs/{run}/"))
    assert "/pause/" not in page and "/cancel/" not in page
    for act in ("pause", "cancel", "resume"):
        assert victor_client.post(f"{base}/runs/{run}/{act}/", {"reason": "x", "seen": "1"}).status_code == 403
    assert victor_client.post(f"{base}/health/", {"act": "stop", "reason": "x"}).status_code == 403
    assert run_of(world, run).control == ""


def test_an_emergency_stop_stands_on_every_page_until_it_is_lifted(
    alice_client: Client, world: World, base: str
) -> None:
    run = world.done("1")
    alice_client.post(f"{base}/health/", {"act": "stop", "agent": "refunds", "reason": "double letters"})
    for address in (f"{base}/", f"{base}/runs/{run}/", f"{base}/approvals/"):
        assert "Emergency stop of refunds" in text(alice_client.get(address))
    alice_client.post(f"{base}/health/", {"act": "lift", "agent": "refunds", "reason": "mended"})
    assert "Emergency stop of" not in text(alice_client.get(f"{base}/"))
    with tenant_scope(world.store.tenant_id):
        assert Stop.objects.get().status == "lifted"
