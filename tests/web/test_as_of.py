"""As of: the items page of a subject at a moment of the past, and the version that held then."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from agentstate.core.clock import now
from agentstate.tenants.scope import tenant_scope
from memory.models import Item, ItemRevision
from memory.selectors.as_of import items_as_of
from memory.services import editing
from memory.services.drafts import ItemChanges
from tests.web.remembered import Remembered

if TYPE_CHECKING:
    from django.test import Client

    from agentstate.tenants.actors import Actor

pytestmark = pytest.mark.django_db
YEAR = timedelta(days=365)


@pytest.fixture
def memory(alice: Actor) -> Remembered:
    return Remembered(alice)


@pytest.fixture
def subject(memory: Remembered, alice: Actor) -> str:
    """Tea, then coffee; a lamp that was forgotten; and more books than stand on a page."""
    subject = memory.subject()
    drink = memory.item(subject, "Prefers tea.", namespace="drinks")
    lamp = memory.item(subject, "Owns a lamp.")
    with tenant_scope(memory.tenant_id):
        changes = ItemChanges(text="Prefers coffee.")
        editing.edit(UUID(hex=drink[5:]), expected_version=1, changes=changes, reason="said so", actor=alice)
        editing.forget(UUID(hex=lamp[5:]), reason="sold it", actor=alice)
    for number in range(60):
        memory.item(subject, f"Bought book number {number} of room {number + 7}.", attribute=f"book {number}")
    return subject


def test_each_row_says_which_version_held_and_links_to_it(
    memory: Remembered, subject: str, alice: Actor, alice_client: Client, base: str
) -> None:
    with tenant_scope(memory.tenant_id):
        edited = ItemRevision.objects.filter(version=2).earliest("created_at")
        before = edited.created_at - timedelta(microseconds=1)
        item = Item.objects.get(id=edited.item_id)
        expected = {each.item_id for each in items_as_of(UUID(hex=subject[8:]), true_at=before, known_at=before)}
    page = alice_client.get(f"{base}/memories/{subject}/", {"as_of": before.isoformat()}).content.decode()
    assert "Prefers tea." in page and "Prefers coffee." not in page and "Owns a lamp." in page
    old = f"{base}/memories/{subject}/item_{item.id.hex}/?version=1"
    assert old in page and "1 of 2" in page
    assert "Prefers tea." in alice_client.get(old).content.decode()
    shown = alice_client.get(f"{base}/memories/{subject}/", {"as_of": before.isoformat(), "format": "json"}).json()
    assert {UUID(each["item_id"]) for each in shown["items_shown"]} == expected
    held = alice_client.get(f"{base}/memories/{subject}/print/", {"as_of": before.isoformat()}).content.decode()
    assert "Prefers tea." in held and "Prefers coffee." not in held


def test_what_is_known_today_about_then_is_another_question(subject: str, alice_client: Client, base: str) -> None:
    past = (now() - YEAR).isoformat()
    for known, words in (("then", "Nothing held then"), ("now", "Nothing that is known today")):
        page = alice_client.get(f"{base}/memories/{subject}/", {"as_of": past, "known": known}).content.decode()
        assert words in page, known


def test_pages_follow_each_other_and_keep_the_filters(
    memory: Remembered, subject: str, alice_client: Client, base: str
) -> None:
    at = now()
    with tenant_scope(memory.tenant_id):
        expected = [str(each.item_id) for each in items_as_of(UUID(hex=subject[8:]), true_at=at, known_at=at)]
    for known in ("then", "now"):
        query: dict[str, str] = {"as_of": at.isoformat(), "known": known, "kind": "semantic"}
        seen: list[str] = []
        for _ in range(3):
            answer = alice_client.get(f"{base}/memories/{subject}/", {**query, "format": "json"}).json()
            seen += [each["item_id"] for each in answer["items_shown"]]
            page = alice_client.get(f"{base}/memories/{subject}/", query).content.decode()
            if ">More</a>" not in page:
                break
            link = page.rpartition('">More</a>')[0].rpartition('href="')[2].replace("&amp;", "&")
            assert "kind=semantic" in link and f"known={known}" in link
            query["after"] = link.partition("after=")[2].partition("&")[0]
        assert sorted(seen) == sorted(expected) and len(seen) == 61  # the lamp was forgotten
    narrowed = alice_client.get(f"{base}/memories/{subject}/", {**query, "after": "", "namespace": "drinks"})
    assert "Prefers coffee." in narrowed.content.decode() and "Bought book" not in narrowed.content.decode()


def test_a_moment_that_cannot_be_read_is_said(subject: str, alice_client: Client, base: str) -> None:
    for text in ("yesterday", "2026-13-40", "<b>", "9999999999999"):
        page = alice_client.get(f"{base}/memories/{subject}/", {"as_of": text})
        assert page.status_code == 200 and "no moment that can be read" in page.content.decode(), text
        assert "<b>”" not in page.content.decode()
