"""The approval page: what was shown is what is decided, an edit counts only after it was shown, one person wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from django.conf import settings
from django.test import Client

from agentstate.core.ids import parse_id
from agentstate.db import sql
from agentstate.dev.testing import superuser_url
from agentstate.tenants.scope import tenant_scope
from runs.selectors import approvals
from tests.web.forms import form, text
from tests.web.world import ARGS, World

if TYPE_CHECKING:
    from runs.selectors.approvals import ApprovalRow

pytestmark = pytest.mark.django_db


def opened(client: Client, address: str) -> dict[str, str]:
    return form(client.get(address).content.decode(), having="proposal_hash")


def stored(world: World, approval: str) -> ApprovalRow:
    with tenant_scope(world.store.tenant_id):
        return approvals.find(approval)


def test_approving_unchanged_needs_the_amount_typed_when_the_risk_is_high(
    bob_client: Client, world: World, base: str
) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    refused = bob_client.post(address, {**opened(bob_client, address), "decision": "approve"})
    assert refused.status_code == 422
    assert "Type 180.50" in text(refused)
    assert stored(world, approval).pending
    done = bob_client.post(address, {**opened(bob_client, address), "decision": "approve", "typed": "180.5"})
    assert (done.status_code, done["Location"]) == (303, address)
    assert stored(world, approval).status == "approved"
    assert "Approved. The run goes on." in text(bob_client.get(address))


def test_an_edit_is_shown_as_a_difference_before_it_counts(bob_client: Client, world: World, base: str) -> None:
    run, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    typed = {**opened(bob_client, address), "arg.amount": "150.25", "message": "invoice says 150.25"}
    shown = bob_client.post(address, {**typed, "decision": "approve", "typed": "180.50"})
    assert shown.status_code == 200
    assert "Your edits, before they count" in text(shown)
    assert stored(world, approval).pending, "an edit never counts at once"
    again = form(text(shown), having="previewed")
    assert again["message"] == "invoice says 150.25"
    done = bob_client.post(address, {**again, "decision": "edit", "typed": "150.25"})
    assert done.status_code == 303
    decided = stored(world, approval)
    assert decided.status == "edited"
    assert decided.decision["args"] == {**ARGS, "amount": 150.25}
    page = text(bob_client.get(f"{base}/runs/{run}/"))
    assert "queued" in page


def test_other_edits_than_those_shown_are_shown_again(bob_client: Client, world: World, base: str) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    first = bob_client.post(address, {**opened(bob_client, address), "arg.amount": "10", "decision": "preview"})
    changed = {**form(text(first), having="previewed"), "arg.amount": "20", "decision": "edit", "typed": "20"}
    second = bob_client.post(address, changed)
    assert "Your edits, before they count" in text(second)
    assert stored(world, approval).pending


def test_a_locked_field_cannot_be_edited_by_sending_it(bob_client: Client, world: World, base: str) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    sent = {**opened(bob_client, address), "arg.order": "9999", "decision": "approve", "typed": "180.5"}
    assert bob_client.post(address, sent).status_code == 303
    assert stored(world, approval).status == "approved"


@pytest.mark.parametrize(("name", "value"), [("arg.amount", "lots"), ("arg.amount", "501"), ("arg.currency", '"GBP"')])
def test_arguments_that_break_the_schema_stay_in_the_form_with_what_is_wrong(
    bob_client: Client, world: World, base: str, name: str, value: str
) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    sent = {**opened(bob_client, address), name: value, "message": "kept", "decision": "preview"}
    refused = bob_client.post(address, sent)
    assert refused.status_code == 422
    assert 'aria-invalid="true"' in text(refused) and ">kept<" in text(refused)
    assert stored(world, approval).pending


def test_a_rejection_needs_a_reason(bob_client: Client, world: World, base: str) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    refused = bob_client.post(address, {**opened(bob_client, address), "decision": "reject"})
    assert refused.status_code == 422 and "Say why" in text(refused)
    done = bob_client.post(address, {**opened(bob_client, address), "decision": "reject", "message": "over invoice"})
    assert done.status_code == 303
    assert stored(world, approval).status == "rejected"


def test_answering_instead_of_running_is_told_to_the_agent(bob_client: Client, world: World, base: str) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    sent = {**opened(bob_client, address), "decision": "respond", "message": "Ask for the invoice first."}
    assert bob_client.post(address, sent).status_code == 303
    assert stored(world, approval).decision["answer"] == "Ask for the invoice first."


def test_a_free_question_is_answered_by_a_form_of_its_schema(bob_client: Client, world: World, base: str) -> None:
    _, approval = world.asking_freely()
    address = f"{base}/approvals/{approval}/"
    sent = {**opened(bob_client, address), "arg.colour": '"blue"', "decision": "respond"}
    assert bob_client.post(address, sent).status_code == 303
    assert stored(world, approval).decision["answer"] == {"colour": "blue"}


def test_who_comes_second_gets_409_with_the_winner_and_keeps_what_was_typed(
    alice_client: Client, bob_client: Client, world: World, base: str
) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    alices, bobs = opened(alice_client, address), opened(bob_client, address)
    alice_client.post(address, {**alices, "decision": "reject", "message": "over invoice"})
    lost = bob_client.post(
        address, {**bobs, "decision": "approve", "typed": "180.5", "message": "I called the customer"}
    )
    assert lost.status_code == 409
    page = text(lost)
    assert "Someone was faster" in page and "Alice" in page and "I called the customer" in page
    assert stored(world, approval).status == "rejected"


def test_the_same_press_twice_is_one_decision(bob_client: Client, world: World, base: str) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    sent = {**opened(bob_client, address), "decision": "approve", "typed": "180.5"}
    assert [bob_client.post(address, sent).status_code for _ in range(2)] == [303, 303]


def test_a_proposal_that_changed_meanwhile_is_not_decided(bob_client: Client, world: World, base: str) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    sent = {**opened(bob_client, address), "proposal_hash": "00" * 32, "decision": "approve", "typed": "180.5"}
    answer = bob_client.post(address, sent)
    assert answer.status_code == 409 and "changed while you were looking" in text(answer)
    assert stored(world, approval).pending


def test_a_viewer_sees_the_question_but_no_buttons_and_is_refused(
    victor_client: Client, world: World, base: str
) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    page = text(victor_client.get(address))
    assert "needs the role approver" in page and 'name="decision"' not in page
    assert victor_client.post(address, {"decision": "approve"}).status_code == 403


def test_who_started_a_run_of_a_production_tenant_does_not_decide_over_it(
    alice_client: Client, world: World, base: str, tenant: object
) -> None:
    from agentstate.tenants.models import Tenant

    Tenant.objects.filter(id=world.store.tenant_id).update(production=True)
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    assert "You started this run" in text(alice_client.get(address))
    with tenant_scope(world.store.tenant_id):
        seen = approvals.find(approval)
    sent = {"decision": "reject", "message": "x", "version": seen.version, "proposal_hash": seen.proposal_hash}
    assert alice_client.post(address, sent).status_code == 422
    assert stored(world, approval).pending


def test_a_long_value_is_whole_and_has_to_be_confirmed_as_read(bob_client: Client, world: World, base: str) -> None:
    letter = "Dear customer,\n" + "we have looked into it. " * 40 + "P.S. send everything to me"
    _, approval = world.asking(risk="low", args={"to": "u_312", "body": letter}, schema={})
    address = f"{base}/approvals/{approval}/"
    page = text(bob_client.get(address))
    assert "P.S. send everything to me" in page
    sent = opened(bob_client, address)
    refused = bob_client.post(address, {**sent, "decision": "approve"})
    assert refused.status_code == 422 and "to its end" in text(refused)
    assert bob_client.post(address, {**sent, "decision": "approve", "ack.arg.body": "1"}).status_code == 303


def test_hostile_text_is_shown_as_text_with_its_invisible_signs(bob_client: Client, world: World, base: str) -> None:
    hostile = "<script>alert(1)</script> pay \u202e05.1\u202c now\u200b"
    _, approval = world.asking(reason=hostile, args={"to": hostile, "api_key": "sk-0123456789abcdef012345"}, schema={})
    page = text(bob_client.get(f"{base}/approvals/{approval}/"))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert page.count("U+202E") >= 2 and "U+200B" in page
    assert "sk-0123456789abcdef" not in page


def test_a_decision_without_a_form_token_is_refused(bob_user: object, world: World, base: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(bob_user)  # type: ignore[arg-type]
    _, approval = world.asking()
    assert client.post(f"{base}/approvals/{approval}/", {"decision": "approve"}).status_code == 403


def test_the_loser_is_told_over_htmx_too_in_the_same_part_of_the_page(
    alice_client: Client, bob_client: Client, world: World, base: str
) -> None:
    _, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    bobs = opened(bob_client, address)
    alice_client.post(address, {**opened(alice_client, address), "decision": "reject", "message": "no"})
    lost = bob_client.post(address, {**bobs, "decision": "approve", "typed": "180.5"}, headers={"HX-Request": "true"})
    assert lost.status_code == 409
    assert text(lost).lstrip().startswith('<div id="approval-form">') and "<html" not in text(lost)


@pytest.mark.django_db(transaction=True, databases=["default", "owner"])
def test_whoever_waits_for_a_held_run_is_told_so_and_keeps_what_was_typed(
    bob_client: Client, world: World, base: str
) -> None:
    run, approval = world.asking()
    address = f"{base}/approvals/{approval}/"
    sent = {**opened(bob_client, address), "decision": "reject", "message": "over invoice"}
    sql.execute("SET lock_timeout = '20ms'")
    with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"]))) as frozen:
        frozen.execute("SELECT FROM runs_run WHERE id = %s FOR UPDATE", [parse_id("run", run)])
        held = bob_client.post(address, sent)
    sql.execute("RESET lock_timeout")
    assert (held.status_code, held["Retry-After"]) == (503, "1")
    assert "Another transaction holds this row" in text(held) and "Nothing was half-written" in text(held)
    assert bob_client.post(address, form(text(held), having="message")).status_code == 303
    assert stored(world, approval).status == "rejected"
