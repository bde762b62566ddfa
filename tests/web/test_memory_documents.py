"""Progress documents and prompts on their pages: rendered harmlessly, edited by version, compared, restored."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.test import Client

from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.models import ProgressVersion, PromptVersion
from tests.web.forms import form, text
from tests.web.remembered import HOSTILE, Remembered

pytestmark = pytest.mark.django_db

GOAL = "## Goal\n\nNotes on lamps\n\n## Done\n\n- read **one** paper\n"


@pytest.fixture
def memory(alice: Actor) -> Remembered:
    return Remembered(alice)


def test_progress_is_rendered_harmlessly_and_its_secrets_are_hidden(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    hostile = f"{GOAL}\n## Context\n\n{HOSTILE} [x](javascript:alert(1)) sk-abcdefghijklmnopqrstuvwx\n"
    document = memory.progress("<i>task</i>", hostile)
    for address in (f"{base}/progress/{document}/", f"{base}/progress/"):
        page = text(alice_client.get(address))
        assert "<script>" not in page and "<i>task" not in page and "javascript:alert" not in page.replace("(j", "")
        assert "abcdefghijklmnop" not in page
    shown = text(alice_client.get(f"{base}/progress/{document}/"))
    assert "<h2>Goal</h2>" in shown and "<strong>one</strong>" in shown and "U+202E" in shown


def test_an_edit_is_previewed_saved_as_a_version_and_counts_once(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    document = memory.progress("notes", GOAL)
    address = f"{base}/progress/{document}/"
    sent = form(text(alice_client.get(address, {"edit": "1"})), having="body")
    sent |= {"body": sent["body"].replace("**one**", "**two**"), "reason": "counted again"}
    preview = text(alice_client.post(f"{address}preview/", sent))
    assert "<strong>two</strong>" in preview and "<del>one</del> <ins>two</ins>" in preview
    with tenant_scope(memory.tenant_id):
        assert ProgressVersion.objects.count() == 1
    assert alice_client.post(address, sent).status_code == alice_client.post(address, sent).status_code == 303
    with tenant_scope(memory.tenant_id):
        assert ProgressVersion.objects.count() == 2
    page = text(alice_client.get(address, {"version": "2", "with": "1"}))
    assert "From version 1 to version 2" in page and "<ins>two</ins>" in page and "counted again" in page
    bad = alice_client.post(address, {**sent, "client_token": "b", "expected_version": "2", "body": "## Plans\n\nx"})
    assert bad.status_code == 422 and "Plans" in text(bad) and "no heading" in text(bad)
    silent = alice_client.post(address, {**sent, "client_token": "c", "body": GOAL, "reason": ""})
    assert silent.status_code == 422 and "Say why" in text(silent)
    assert alice_client.get(f"{address}preview/").status_code == 302


def test_who_saves_second_sees_both_and_may_put_hers_over_theirs(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    prompt = memory.prompt("support", "Be brief.")
    address = f"{base}/memories/prompts/{prompt}/"
    mine = form(text(alice_client.get(address, {"edit": "1"})), having="body")
    memory.prompt("support", "Be brief and kind.")
    lost = alice_client.post(address, {**mine, "body": "Be brief and exact.", "reason": "errors"})
    assert lost.status_code == 409
    page = text(lost)
    assert "Someone was faster" in page and "<ins> and kind</ins>" in page and "<ins> and exact</ins>" in page
    again = form(page, having="body")
    assert again["body"] == "Be brief and exact." and again["expected_version"] == "2"
    assert alice_client.post(address, {**again, "reason": "errors"}).status_code == 303
    restored = {"version": "1", "expected_version": "3", "reason": "was right", "client_token": "r"}
    assert alice_client.post(f"{address}restore/", restored).status_code == 303
    assert "Be brief." in text(alice_client.get(address)) and "v4" in text(alice_client.get(address))
    stale = alice_client.post(f"{address}restore/", {**restored, "version": "2", "client_token": "s"}, follow=True)
    assert "by now" in text(stale)
    with tenant_scope(memory.tenant_id):
        assert PromptVersion.objects.filter(prompt_id=UUID(hex=prompt[7:])).count() == 4


def test_a_prompt_is_made_once_and_a_viewer_changes_none(
    alice_client: Client, victor_client: Client, memory: Remembered, base: str
) -> None:
    address = f"{base}/memories/prompts/new/"
    sent = {"agent": "triage", "name": "main", "body": "Sort by urgency.", "reason": "new agent"}
    made = alice_client.post(address, sent)
    assert made.status_code == 303
    twice = alice_client.post(address, {**sent, "body": "Sort by age."})
    assert twice.status_code == 409 and "Sort by age." in text(twice)
    assert alice_client.post(address, {**sent, "agent": " "}).status_code == 422
    for post in (address, made["Location"], f"{made['Location']}preview/", f"{made['Location']}restore/"):
        assert victor_client.post(post, sent).status_code == 403, post
    page = text(victor_client.get(made["Location"]))
    assert "Sort by urgency." in page and "Edit</a>" not in page
    assert alice_client.get(f"{base}/memories/prompts/prompt_x/").status_code == 404
    assert alice_client.get(f"{base}/progress/prompt_{'0' * 32}/").status_code == 404
