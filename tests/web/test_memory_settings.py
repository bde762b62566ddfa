"""The settings of memory on their pages: set and cleared, rehearsed, overtaken, restored; in one tenant, by admins."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from agentstate.audit.models import AuditEntry
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Membership, Tenant, TenantSetting, User
from agentstate.tenants.scope import tenant_scope
from memory.models import Item
from memory.selectors import policies as reads
from memory.selectors.policies import TENANT, Whose
from memory.services import policies
from memory.services.policies import ANY_AGENT
from tests.web.forms import form, text
from tests.web.remembered import HOSTILE, Remembered

pytestmark = pytest.mark.django_db

DESK = "desk & counter/2"  # a name may hold what an address may not
OF_DESK = "?agent=desk+%26+counter%2F2"


@pytest.fixture
def memory(alice: Actor) -> Remembered:
    return Remembered(alice)


@pytest.fixture
def pages(base: str) -> str:
    return f"{base}/memories/settings/"


@pytest.fixture
def anna_client(tenant: Tenant, signed_in: Callable[[User], Client]) -> Client:
    """A second admin."""
    user = User.objects.create_user("anna@example.test", name="Anna")
    with tenant_scope(tenant.id):
        Membership.objects.create(user=user, role="admin")
    return signed_in(user)


def fields_of(tenant: Tenant, whose: Whose) -> dict[str, Any]:
    with tenant_scope(tenant.id):
        return dict(reads.held(whose).fields)


def opened(client: Client, address: str) -> dict[str, str]:
    return form(text(client.get(address)), having="expected_version")


def test_a_field_is_set_and_cleared_and_says_where_it_is_from(
    alice_client: Client, tenant: Tenant, pages: str, alice: Actor
) -> None:
    with tenant_scope(tenant.id):
        policies.set_for_agent(ANY_AGENT, {"recall_k": 7}, actor=alice)
    address = f"{pages}agent/{OF_DESK}"
    page = text(alice_client.get(address))
    assert "7, every agent" in page and "Inherited: 86,400, the default." in page
    assert ">Inherited: summary</option>" in page, "short enough for the control"
    sent = form(page, having="expected_version")
    assert sent["arg.recall_k"] == sent["arg.strategy"] == sent["arg.idle_s"] == ""
    typed = {**sent, "arg.strategy": '"window"', "arg.idle_s": " Never ", "arg.batch_s": "2.5", "arg.reopen": "false"}
    for _ in range(2):  # a double click counts once
        assert alice_client.post(address, {**typed, "reason": "long mails"}).status_code == 303
    stored = {"strategy": "window", "idle_s": None, "batch_s": 2.5, "reopen": False}
    assert fields_of(tenant, Whose(DESK)) == stored
    page = text(alice_client.get(address))
    assert "Version 1 stands" in page and "long mails" in page and "never" in page and "v1" in page
    again = form(page, having="expected_version")
    assert (again["arg.idle_s"], again["arg.strategy"], again["arg.batch_s"]) == ("never", '"window"', "2.5")
    cleared = {**again, "arg.idle_s": "", "arg.strategy": "", "reason": "as everybody"}
    assert alice_client.post(address, cleared).status_code == 303
    assert fields_of(tenant, Whose(DESK)) == {"batch_s": 2.5, "reopen": False}
    listed = text(alice_client.get(pages))
    assert (
        "desk &amp; counter/2" in listed and "Batch, seconds <b>2.5</b>" in listed and "Units recalled <b>7" in listed
    )
    assert fields_of(tenant, Whose(ANY_AGENT)) == {"recall_k": 7}


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("recall_k", "0", "less than the minimum"),
        ("recall_k", "9" * 19, "too large"),
        ("recall_k", "1e3", "whole number"),
        ("recall_k", "never", "Write a number"),
        ("recall_k", "7\0", "Write a number"),
        ("budget_tokens", "many", "Write a number"),
        ("batch_s", "nan", "too large"),
        ("idle_s", "-1", "less than the minimum"),
        ("strategy", '"magic"', "Choose one of the list"),
        ("strategy", "window", "Choose one of the list"),
        ("reopen", "perhaps", "Choose yes or no"),
    ],
)
def test_a_bad_value_is_said_beside_its_field_and_what_was_typed_is_kept(
    alice_client: Client, tenant: Tenant, pages: str, field: str, typed: str, said: str
) -> None:
    address = f"{pages}agent/{OF_DESK}"
    sent = {**opened(alice_client, address), f"arg.{field}": typed, "arg.summary_tokens": "77", "reason": "r"}
    for to in (address, address.replace("agent/", "agent/preview/")):
        refused = alice_client.post(to, sent)
        page = text(refused)
        assert refused.status_code == 422 and said in page and 'role="alert"' in page and 'aria-invalid="true"' in page
        assert form(page, having="expected_version")["arg.summary_tokens"] == "77"
    assert fields_of(tenant, Whose(DESK)) == {}


def test_why_is_asked_and_a_name_is_checked(alice_client: Client, tenant: Tenant, pages: str) -> None:
    address = f"{pages}agent/{OF_DESK}"
    sent = {**opened(alice_client, address), "arg.recall_k": "3"}
    assert "Say why" in text(alice_client.post(address, sent))
    assert fields_of(tenant, Whose(DESK)) == {}
    for name in ("a%00", "n" * 200):
        assert alice_client.get(f"{pages}agent/?agent={name}").status_code == 422
    assert alice_client.get(f"{pages}?agent=desk").headers["Location"].endswith("settings/agent/?agent=desk")


def test_who_saves_second_sees_three_versions_of_each_field(
    alice_client: Client, anna_client: Client, tenant: Tenant, pages: str
) -> None:
    address = f"{pages}tenant/"
    alice_client.post(address, {**opened(alice_client, address), "arg.expiry_days": "80", "reason": "r"})
    annas, alices = opened(anna_client, address), opened(alice_client, address)
    won = alice_client.post(address, {**alices, "arg.expiry_days": "60", "arg.cap_bytes": "5000", "reason": "less"})
    assert won.status_code == 303
    lost = anna_client.post(address, {**annas, "arg.expiry_days": "70", "arg.language": '"simple"', "reason": "mine"})
    page = text(lost)
    assert lost.status_code == 409 and "Someone was faster" in page and "Alice made it" in page
    rows = re.findall(
        r'<th scope="row" class="main">([^<]+)</th>\s*<td[^>]*>(.*?)</td>\s*<td[^>]*>(.*?)</td>\s*<td[^>]*>(.*?)</td>',
        page,
    )
    assert rows == [
        ("Language", "not set", "not set", "simple"),
        ("Cap, bytes", "not set", "5,000", "not set"),
        ("Expiry, days", "80", "60", "70"),
    ]
    assert fields_of(tenant, TENANT) == {"expiry_days": 60, "cap_bytes": 5000}
    again = form(page, having="expected_version")
    assert (again["expected_version"], again["arg.expiry_days"], again["reason"]) == ("2", "70", "mine")
    assert anna_client.post(address, again).status_code == 303
    assert fields_of(tenant, TENANT) == {"expiry_days": 70, "language": "simple"}


def test_a_rehearsal_counts_what_the_save_then_does_and_writes_nothing(
    alice_client: Client, tenant: Tenant, pages: str, memory: Remembered
) -> None:
    full = memory.subject("u_1", name="Full")
    for number in range(6):
        memory.item(full, f"Old story number {number}: " + "long ago " * 100, importance=0.1)
    memory.item(memory.subject("u_2", name="Small"), "Short")
    pinned = memory.subject("u_3", name="Pinned")
    for number in range(4):
        memory.item(pinned, f"Rule {number}: " + "always " * 200, pinned=True)
    address = f"{pages}tenant/"
    sent = {**opened(alice_client, address), "arg.cap_bytes": "4096", "arg.fulltext": '"blind"', "reason": "less"}
    sent |= {"arg.expiry_days": "30", "arg.session_keep_days": "9", "arg.ledger_keep_days": "9"}
    page = text(alice_client.post(f"{pages}tenant/preview/", sent))
    assert "2 subjects are over this cap" in page and "1 subject has" in page and "2 items leave" in page
    assert "<b>11 units</b>" in page and "none of 7 expires sooner" in page
    assert fields_of(tenant, TENANT) == {} and form(page, having="expected_version")["arg.cap_bytes"] == "4096"
    assert alice_client.post(address, sent).status_code == 303
    memory.item(full, "Short too")
    with tenant_scope(tenant.id):
        left = Item.objects.filter(status="over_cap").count()
    assert left == 2
    alice_client.post(address, {**opened(alice_client, address), "arg.cap_bytes": "8000", "reason": "more"})
    page = text(alice_client.post(f"{pages}tenant/preview/", opened(alice_client, address)))
    assert "Nothing changes." in page and "touched" not in page


def test_a_strategy_is_tried_on_a_session_before_it_counts(
    alice_client: Client, tenant: Tenant, pages: str, memory: Remembered
) -> None:
    session = memory.session(memory.subject(), said=40, title="Broken lamps")
    address = f"{pages}agent/?agent=support"
    sent = {**opened(alice_client, address), "arg.strategy": '"window"', "arg.budget_tokens": "300"}
    page = text(
        alice_client.post(f"{pages}agent/preview/?agent=support", {**sent, "session": session, "question": "lamp?"})
    )
    assert "summary, the default" in page and "window, set here" in page
    assert "Context of “Broken lamps”" in page and "of 300 tokens" in page
    assert fields_of(tenant, Whose("support")) == {}
    gone = {**sent, "session": "session_" + "0" * 32}
    assert alice_client.post(f"{pages}agent/preview/?agent=support", gone).status_code == 404


def test_an_earlier_version_is_restored_as_a_new_one(alice_client: Client, tenant: Tenant, pages: str) -> None:
    address = f"{pages}agent/{OF_DESK}"
    for k, reason in (("3", "first"), ("4", "second")):
        alice_client.post(address, {**opened(alice_client, address), "arg.recall_k": k, "reason": reason})
    page = text(alice_client.get(address))
    assert "Units recalled: 3 → <b>4</b>" in page and "Units recalled: not set → <b>3</b>" in page and "second" in page
    sent = form(page, having="version")
    assert alice_client.post(f"{pages}agent/restore/{OF_DESK}", sent).status_code == 303
    assert fields_of(tenant, Whose(DESK)) == {"recall_k": 4}, "without a reason nothing is restored"
    for _ in range(2):
        alice_client.post(f"{pages}agent/restore/{OF_DESK}", {**sent, "reason": "was better"})
    assert fields_of(tenant, Whose(DESK)) == {"recall_k": 3}
    stale = {**sent, "version": "2", "reason": "late", "client_token": "x"}
    said = text(alice_client.post(f"{pages}agent/restore/{OF_DESK}", stale, follow=True))
    assert "are at version 3 by now" in said
    with tenant_scope(tenant.id):
        entries = AuditEntry.objects.filter(object_type="tenantsetting").order_by("object_seq")
        told = [(each.action, each.detail["was"], each.detail["now"]) for each in entries]
    assert told == [
        ("set", {}, {"recall_k": 3}),
        ("changed", {"recall_k": 3}, {"recall_k": 4}),
        ("changed", {"recall_k": 4}, {"recall_k": 3}),
    ]


def test_others_read_and_change_nothing(
    victor_client: Client, bob_client: Client, charlie_client: Client, tenant: Tenant, pages: str, alice: Actor
) -> None:
    with tenant_scope(tenant.id):
        policies.set_for_agent("desk", {"recall_k": 3}, actor=alice, reason=HOSTILE)
    for address in (f"{pages}tenant/", f"{pages}agent/?agent=desk"):
        for client in (victor_client, bob_client):
            answer = client.get(address)
            assert answer.status_code == 200 and "Only an admin" in text(answer) and "Save as" not in text(answer)
            for act in ("", "preview/", "restore/"):
                to = address.replace("tenant/", f"tenant/{act}").replace("agent/", f"agent/{act}")
                assert client.post(to, {"arg.recall_k": "9", "reason": "r", "version": "1"}).status_code == 403
        for act in ("", "preview/", "restore/"):
            to = address.replace("tenant/", f"tenant/{act}").replace("agent/", f"agent/{act}")
            assert charlie_client.post(to, {"arg.recall_k": "9", "reason": "r"}).status_code == 404
    page = text(victor_client.get(f"{pages}agent/?agent=desk"))
    assert "<script>alert" not in page and "&lt;script&gt;" in page
    assert fields_of(tenant, Whose("desk")) == {"recall_k": 3} and fields_of(tenant, TENANT) == {}


def test_another_tenants_settings_stay(
    alice_client: Client, charlie_client: Client, tenant: Tenant, other_tenant: Tenant, pages: str
) -> None:
    theirs = pages.replace(tenant.slug, other_tenant.slug)
    for client, address, k in ((charlie_client, theirs, "11"), (alice_client, pages, "22")):
        for of in ("tenant/", "agent/?agent=canary"):
            sent = opened(client, f"{address}{of}")
            field = {"tenant/": "arg.expiry_days"}.get(of, "arg.recall_k")
            assert client.post(f"{address}{of}", {**sent, field: k, "reason": f"canary{k}"}).status_code == 303
    assert fields_of(tenant, Whose("canary")) == {"recall_k": 22} and fields_of(tenant, TENANT) == {"expiry_days": 22}
    assert fields_of(other_tenant, Whose("canary")) == {"recall_k": 11}
    for of in ("", "tenant/", "agent/?agent=canary", "agent/?agent=canary&format=json", "?format=json"):
        assert "canary11" not in text(alice_client.get(f"{pages}{of}"))


def test_what_cannot_be_used_is_named_and_the_next_save_drops_it(
    alice_client: Client, tenant: Tenant, pages: str, base: str
) -> None:
    with tenant_scope(tenant.id):
        stored = {"strategy": HOSTILE, "of_another_version": 1, "recall_k": 5}
        TenantSetting.objects.create(key="memory.agent:desk", value=stored)
    for address in (pages, f"{pages}agent/?agent=desk", f"{base}/health/"):
        page = text(alice_client.get(address))
        assert "of_another_version" in page and "<script>alert" not in page, address
    sent = opened(alice_client, f"{pages}agent/?agent=desk")
    assert sent["arg.recall_k"] == "5"
    assert alice_client.post(f"{pages}agent/?agent=desk", {**sent, "reason": "mended"}).status_code == 303
    assert fields_of(tenant, Whose("desk")) == {"recall_k": 5}
    assert "of_another_version" not in text(alice_client.get(f"{base}/health/"))
