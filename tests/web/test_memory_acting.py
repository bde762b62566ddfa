"""Changing memory from its pages: reasons, versions, locks, previews; refused with what was typed kept."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from agentstate.db import sql
from agentstate.dev.testing import superuser_url
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Membership, Tenant, User
from agentstate.tenants.scope import tenant_scope
from memory.models import Alias, Item, ItemRevision, Message, Proposal, Session, Subject
from tests.web.forms import form, text
from tests.web.remembered import HOSTILE, Remembered

pytestmark = pytest.mark.django_db

HOURS = "Never phone before 10:00"


@pytest.fixture
def memory(alice: Actor) -> Remembered:
    return Remembered(alice)


@pytest.fixture
def anna_client(tenant: Tenant, signed_in: Callable[[User], Client]) -> Client:
    """A second admin."""
    user = User.objects.create_user("anna@example.test", name="Anna")
    with tenant_scope(tenant.id):
        Membership.objects.create(user=user, role="admin")
    return signed_in(user)


def bare(public: str) -> UUID:
    return UUID(hex=public.partition("_")[2])


def item_of(memory: Remembered, item: str) -> Item:
    with tenant_scope(memory.tenant_id):
        return Item.objects.get(id=bare(item))


def count(memory: Remembered, model: type[Item] | type[ItemRevision] | type[Subject] | type[Alias]) -> int:
    with tenant_scope(memory.tenant_id):
        return model.objects.count()


def test_an_edit_is_a_version_with_its_reason_and_counts_once(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS, importance=0.5)
    address = f"{base}/memories/{subject}/{item}/"
    sent = {
        **form(text(alice_client.get(address)), having="text"),
        "text": "Never phone before 11:00",
        "reason": "her mail of 20 Nov",
        "importance": "0.8",
        "pinned": "1",
    }
    first, second = alice_client.post(address, sent), alice_client.post(address, sent)
    assert first.status_code == second.status_code == 303
    kept = item_of(memory, item)
    assert kept.pinned and kept.importance == 0.8 and kept.expires_at is None
    assert kept.version == count(memory, ItemRevision) == 3, "the edit, then the pin; nothing by the second sending"
    page = text(alice_client.get(address))
    assert "her mail of 20 Nov" in page and "Alice" in page and "Saved as version 3" in page


def test_an_edit_without_a_reason_is_refused_and_keeps_the_text(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    address = f"{base}/memories/{subject}/{item}/"
    sent = form(text(alice_client.get(address)), having="text")
    refused = alice_client.post(address, {**sent, "text": "Call at noon"})
    assert refused.status_code == 422
    assert "Say why" in text(refused) and "Call at noon" in text(refused)
    huge = alice_client.post(address, {**sent, "text": "x" * 3_000, "reason": "y"})
    assert huge.status_code == 413 and "3,000 bytes" in text(huge)
    for field, value in (("importance", "much"), ("importance", "7"), ("expires", "2020-01-01"), ("expires", "soon")):
        answer = alice_client.post(address, {**sent, field: value, "reason": "y"})
        assert answer.status_code == 422 and 'role="alert"' in text(answer), (field, value)
    assert item_of(memory, item).version == 1


def test_who_saves_second_sees_three_versions_and_may_put_hers_over_theirs(
    alice_client: Client, anna_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    address = f"{base}/memories/{subject}/{item}/"
    annas = form(text(anna_client.get(address)), having="text")
    alices = form(text(alice_client.get(address)), having="text")
    won = alice_client.post(address, {**alices, "text": "Never phone before 11:00", "reason": "mail"})
    assert won.status_code == 303
    lost = anna_client.post(address, {**annas, "text": "Never phone at all", "reason": "she said so"})
    assert lost.status_code == 409
    page = text(lost)
    assert "Someone was faster" in page and "Alice made it" in page and "You both began with" in page
    assert "<ins>11</ins>" in page and "Never phone at all" in page and "she said so" in page
    assert item_of(memory, item).version == 2
    again = form(page, having="text")
    assert again["expected_version"] == "2" and again["text"] == "Never phone at all"
    assert anna_client.post(address, again).status_code == 303
    assert item_of(memory, item).version == 3


def test_a_lock_tells_others_and_keeps_them_from_saving(
    alice_client: Client, anna_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    address = f"{base}/memories/{subject}/{item}/"
    annas = form(text(anna_client.get(address)), having="text")
    assert alice_client.post(f"{address}lock/").status_code == 303
    assert "You are editing this" in text(alice_client.get(address))
    assert "Alice is editing this" in text(anna_client.get(address))
    refused = anna_client.post(address, {**annas, "text": "Call at noon", "reason": "r"})
    assert refused.status_code == 409 and "Alice is editing" in text(refused) and "Call at noon" in text(refused)
    assert "Alice is editing" in text(anna_client.post(f"{address}lock/", follow=True))
    alice_client.post(f"{address}lock/", {"act": "unlock"})
    assert anna_client.post(address, {**annas, "text": "Call at noon", "reason": "r"}).status_code == 303


def test_a_preview_tells_what_leaves_and_what_contradicts_and_writes_nothing(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    for number in range(5):
        memory.item(subject, f"Old story number {number}: " + "long ago " * 160, importance=0.1)
    memory.item(subject, "Phone at 10:00", attribute="hours", importance=0.9)
    item = memory.item(subject, "Phone at 12:00", attribute="hours", importance=0.9)
    address = f"{base}/memories/{subject}/{item}/"
    sent = {**form(text(alice_client.get(address)), having="text"), "text": "New words " * 190, "pinned": "1"}
    before = count(memory, ItemRevision)
    page = text(alice_client.post(f"{address}preview/", sent))
    assert "recall</b> to stay under the cap" in page and "Old story number 0" in page
    assert "May contradict" in page and "Phone at 10:00" in page and "the same attribute" in page
    assert "New words New words" in page, "what was typed is kept"
    assert count(memory, ItemRevision) == before and item_of(memory, item).pinned is False
    assert alice_client.get(f"{address}preview/").status_code == 302


def test_a_preview_is_of_the_session_that_is_chosen(alice_client: Client, memory: Remembered, base: str) -> None:
    subject, other = memory.subject(), memory.subject("u_300", name="Ben")
    item = memory.item(subject, "Wants mail in German.", pinned=True)
    old, new = (
        memory.session(subject, key, title=title) for key, title in (("a", "The old one"), ("b", "The new one"))
    )
    for session, line in ((old, "The lamp was blue."), (new, "The chair is red."), (new, "And it is late.")):
        memory.say(session, line)
    strangers = memory.session(other, "c", title="Of Ben")
    address = f"{base}/memories/{subject}/{item}/"
    page = text(alice_client.get(address))
    assert "The old one" in page and "The new one</option>" in page and "Of Ben" not in page
    sent = {**form(page, having="text"), "text": "Wants mail in French.", "asked": "Which language?"}
    assert sent["session"] == new, "the newest unless another one is chosen"
    assert "Context of “The new one”" in (shown := text(alice_client.post(f"{address}preview/", sent)))
    assert "with 2 newest messages" in shown
    shown = text(alice_client.post(f"{address}preview/", {**sent, "session": old}))
    assert "Context of “The old one”" in shown and "with 1 newest message." in shown
    assert form(shown, having="text")["session"] == old, "the choice is kept"
    assert form(text(alice_client.get(f"{address}?session={old}")), having="text")["session"] == old
    for bad in (strangers, "session_" + "0" * 32, "x\0"):
        refused = alice_client.post(f"{address}preview/", {**sent, "session": bad})
        assert refused.status_code == 422 and "no such session of this subject" in text(refused)
        assert "Of Ben" not in text(refused)


def test_the_byte_meter_is_reckoned_on_the_server(alice_client: Client, memory: Remembered, base: str) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    address = f"{base}/memories/{subject}/{item}/"
    sent = {**form(text(alice_client.get(address)), having="text"), "text": "é" * 500}
    answer = alice_client.post(f"{address}preview/", sent, headers={"HX-Request": "true", "HX-Target": "item-bytes"})
    assert "This item 1,000 of 2,048 bytes" in text(answer) and "<html" not in text(answer)


def test_facts_are_edited_as_fields_that_keep_their_types(alice_client: Client, memory: Remembered, base: str) -> None:
    subject = memory.subject()
    facts = {"what": "inspect the lamps", "by": "us", "due_on": "2026-12-01", "done": False}
    item = memory.item(subject, "We inspect the lamps.", fact_kind="commitment", facts=facts)
    address = f"{base}/memories/{subject}/{item}/"
    page = text(alice_client.get(address))
    assert 'type="date"' in page and 'value="2026-12-01"' in page
    sent = {**form(page, having="text"), "reason": "done today"}
    bad = alice_client.post(address, {**sent, "arg.due_on": "tomorrow", "arg.what": "check the lamps"})
    assert bad.status_code == 422 and "check the lamps" in text(bad) and "due_on" in text(bad)
    assert alice_client.post(address, {**sent, "arg.done": "true", "arg.due_on": ""}).status_code == 303
    found = alice_client.get(address, {"format": "json"}).json()
    assert found["facts"] == {"what": "inspect the lamps", "by": "us", "due_on": None, "done": True}


def test_a_version_is_restored_and_a_memory_forgotten_and_brought_back(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    address = f"{base}/memories/{subject}/{item}/"
    sent = {**form(text(alice_client.get(address)), having="text"), "text": "Call at noon", "reason": "r"}
    alice_client.post(address, sent)
    page = text(alice_client.get(f"{address}compare/", {"a": "1", "b": "2"}))
    assert f"<del>{HOURS}</del>" in page and "<ins>Call at noon</ins>" in page
    restored = alice_client.post(f"{address}restore/", {**form(page, having="version"), "reason": "was right"})
    assert restored.status_code == 303
    assert item_of(memory, item).version == 3
    page = text(alice_client.get(address))
    assert "Restored from v1" in page and HOURS in page
    form_of_it = {"expected_version": "3", "client_token": "t1", "reason": "she asked"}
    assert alice_client.post(f"{address}forget/", form_of_it).status_code == 303
    assert item_of(memory, item).status == "forgotten"
    page = text(alice_client.get(address))
    assert "forgotten" in page and "Save as version" not in page, "what is not used is restored, not edited"
    back = form(text(alice_client.get(f"{address}compare/", {"a": "3"})), having="version")
    alice_client.post(f"{address}restore/", {**back, "reason": "a mistake"})
    assert item_of(memory, item).status == "active"


def test_who_may_not_write_sees_no_form_and_is_refused(
    bob_client: Client, victor_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    session = memory.session(subject, said=2)
    address = f"{base}/memories/{subject}/{item}/"
    for client in (bob_client, victor_client):
        page = text(client.get(address))
        assert HOURS in page and "Save as version" not in page and "Forget it" not in page
        posts = [address, f"{address}preview/", f"{address}lock/", f"{address}forget/", f"{address}restore/"]
        posts += [f"{base}/memories/new/", f"{base}/memories/{subject}/settings/", f"{base}/sessions/{session}/undo/"]
        posts += [f"{base}/memories/{subject}/remember/", f"{base}/sessions/{session}/close/"]
        for each in posts:
            assert client.post(each, {"reason": "x", "text": "x"}).status_code == 403, each
        assert "Take back" not in text(client.get(f"{base}/sessions/{session}/"))
    assert item_of(memory, item).version == 1


def test_an_item_of_another_subject_is_not_found_below_this_one(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    one, other = memory.subject("one"), memory.subject("other")
    item = memory.item(one, HOURS)
    assert alice_client.get(f"{base}/memories/{other}/{item}/").status_code == 404
    assert alice_client.post(f"{base}/memories/{other}/{item}/forget/", {"reason": "x"}).status_code == 404
    for nothing in ("subject_x", "subject_" + "0" * 32, "%00", "review/proposal_1"):
        assert alice_client.get(f"{base}/memories/{nothing}/").status_code == 404, nothing


def test_remembering_by_hand_merges_rehearses_and_counts_once(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    address = f"{base}/memories/{subject}/remember/"
    sent = form(text(alice_client.get(address)), having="attribute")
    sent |= {"text": "Wants answers by e-mail.", "reason": "asked for it"}
    rehearsed = alice_client.post(address, {**sent, "act": "preview"})
    assert rehearsed.status_code == 200 and "Nothing leaves recall" in text(rehearsed)
    assert count(memory, Item) == 0
    first, second = (alice_client.post(address, {**sent, "act": "save"}) for _ in range(2))
    assert first.status_code == 303 and first["Location"] == second["Location"]
    assert count(memory, Item) == 1
    fresh = {**sent, "client_token": "another", "act": "save"}
    assert "known already" in text(alice_client.post(address, fresh, follow=True))
    shown = alice_client.post(address, {**sent, "fact_kind": "contact", "act": "facts"})
    assert shown.status_code == 200 and 'name="arg.channel"' in text(shown) and "by e-mail" in text(shown)
    refused = alice_client.post(address, {**fresh, "client_token": "third", "reason": "", "text": "Other words"})
    assert refused.status_code == 422 and "Other words" in text(refused)


def test_a_subject_is_made_once_and_found_by_each_of_its_names(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    address = f"{base}/memories/new/"
    sent = form(text(alice_client.get(address)), having="external_id")
    sent |= {"name": "Mara Lind", "external_id": "u_209", "alias_kind": "email", "alias": "Mara@Example.test"}
    made = alice_client.post(address, sent)
    assert made.status_code == 303
    assert alice_client.post(address, sent)["Location"] == made["Location"]
    assert count(memory, Subject) == 1
    subject = made["Location"].rstrip("/").rpartition("/")[2]
    for asked in ("u_209", "mara@example.test", "email:MARA@example.test", subject):
        found = alice_client.get(f"{base}/memories/", {"q": asked})
        assert found.status_code == 302 and found["Location"] == made["Location"], asked
    nobody = text(alice_client.get(f"{base}/memories/", {"q": "Mara Lind"}))
    assert "No subject has exactly" in nobody, "names are sealed"
    assert alice_client.post(address, {**sent, "external_id": "", "alias": ""}).status_code == 422
    elsewhere = alice_client.post(address, {**sent, "external_id": "u_210"})
    assert elsewhere.status_code == 409 and "u_210" in text(elsewhere)


def test_names_and_cap_are_set_with_their_bounds(alice_client: Client, memory: Remembered, base: str) -> None:
    subject, other = memory.subject("a"), memory.subject("b", email="b@example.test")
    address = f"{base}/memories/{subject}/settings/"
    named = form(text(alice_client.get(address)), having="seen_name")
    assert alice_client.post(address, {**named, "name": "Dr. Lind"}).status_code == 303
    assert "Dr. Lind" in text(alice_client.get(f"{base}/memories/{subject}/"))
    for cap, status in (("6,000", 303), ("100", 422), ("many", 422), ("", 303)):
        sent = form(text(alice_client.get(address)), having="seen_cap")
        answer = alice_client.post(address, {**sent, "act": "cap", "cap": cap, "reason": "r"})
        assert answer.status_code == status, cap
    taken = alice_client.post(address, {"act": "alias", "alias_kind": "email", "alias": "b@example.test"})
    assert taken.status_code == 409 and other in text(taken) and "b@example.test" in text(taken)
    assert alice_client.post(address, {"act": "alias", "alias_kind": "phone", "alias": "0100"}).status_code == 303
    page = text(alice_client.get(address))
    assert "0100" in page
    gone = {"act": "unalias", "alias_id": form(page, having="alias_id")["alias_id"]}
    assert alice_client.post(address, gone).status_code == 303
    assert "0100" not in text(alice_client.get(address))
    assert alice_client.post(address, {"act": "unalias", "alias_id": "zz"}).status_code == 422


def test_who_sets_a_name_or_a_cap_second_sees_both_sides_and_loses_nothing(
    alice_client: Client, anna_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    address = f"{base}/memories/{subject}/settings/"
    for having, field, theirs, mine, act in (
        ("seen_name", "name", "Dr. Lind", "Mara L.", "rename"),
        ("seen_cap", "cap", "6000", "7000", "cap"),
    ):
        annas, alices = (form(text(each.get(address)), having=having) for each in (anna_client, alice_client))
        sent = {"act": act, "reason": "her letter"}
        assert alice_client.post(address, {**alices, **sent, field: theirs}).status_code == 303
        lost = anna_client.post(address, {**annas, **sent, field: mine})
        page = text(lost)
        assert lost.status_code == 409 and "Someone was faster" in page and "Alice made it" in page
        assert page.count(theirs) >= 1 and mine in page
        again = form(page, having=having)
        assert again[field] == mine and again[having] == theirs
        assert anna_client.post(address, {**again, **sent}).status_code == 303
        assert form(text(alice_client.get(address)), having=having)[field] == mine


def test_what_others_do_beside_it_is_no_conflict(
    alice_client: Client, anna_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    address = f"{base}/memories/{subject}/settings/"
    name = form(text(anna_client.get(address)), having="seen_name")
    cap = form(text(anna_client.get(address)), having="seen_cap")
    alias = {"act": "alias", "alias_kind": "phone", "alias": "0100"}
    assert alice_client.post(address, alias).status_code == 303
    assert anna_client.post(address, {**name, "name": "Dr. Lind"}).status_code == 303
    assert anna_client.post(address, {**cap, "act": "cap", "cap": "6000", "reason": "r"}).status_code == 303
    page = text(alice_client.get(address))
    assert "Dr. Lind" in page and 'value="6000"' in page and "0100" in page


def test_a_cap_is_rehearsed_before_it_is_set(alice_client: Client, memory: Remembered, base: str) -> None:
    subject = memory.subject()
    for number in range(4):
        memory.item(subject, f"Old story number {number}: " + "long ago " * 160, importance=0.1)
    address = f"{base}/memories/{subject}/settings/"
    rehearsed = text(alice_client.post(address, {"act": "rehearse_cap", "cap": "4096"}))
    assert "memories would leave</b>" in rehearsed.replace(" recall:", "") and "Old story number 0" in rehearsed
    assert 'value="4096"' in rehearsed and 'value="Mara Lind"' in rehearsed
    assert "Nothing would leave" in text(alice_client.post(address, {"act": "rehearse_cap", "cap": "8192"}))
    assert alice_client.post(address, {"act": "rehearse_cap", "cap": "1"}).status_code == 422
    with tenant_scope(memory.tenant_id):
        assert Subject.objects.get().cap_bytes is None
        assert Item.objects.filter(status="active").count() == 4
    assert "left recall" in text(alice_client.post(address, {"act": "cap", "cap": "4096", "reason": "r"}, follow=True))


def test_taking_back_is_planned_confirmed_and_done_once(alice_client: Client, memory: Remembered, base: str) -> None:
    subject = memory.subject()
    session = memory.session(subject, said=3)
    address = f"{base}/sessions/{session}/undo/"
    page = text(alice_client.get(address, {"n": "2"}))
    assert "Question 2" in page and "Answer 2" in page and "Question 1" not in page
    sent = {**form(page, having="last_n"), "reason": "said to the wrong customer"}
    memory.say(session, "One more")
    # What was planned on is not what stands now, but the version is: it counts undos. The newest are taken.
    assert alice_client.post(address, sent).status_code == alice_client.post(address, sent).status_code == 303
    with tenant_scope(memory.tenant_id):
        undone = Message.objects.filter(session_id=bare(session)).exclude(undone_in=None)
        assert sorted(undone.values_list("seq", flat=True)) == [6, 7]
        assert Session.objects.get(id=bare(session)).version == 2
    shown = text(alice_client.get(f"{base}/sessions/{session}/"))
    assert shown.count("taken back</span>") == 2 and "Answer 2" in shown
    stale = alice_client.post(address, {**sent, "client_token": "other"})
    assert stale.status_code == 409 and "said to the wrong customer" in text(stale)
    many = alice_client.post(address, {**sent, "client_token": "more", "expected_version": "2", "last_n": "900"})
    assert many.status_code == 422 and "Only 5 messages" in text(many)
    assert alice_client.post(f"{base}/sessions/{session}/close/").status_code == 303
    assert "closed" in text(alice_client.get(f"{base}/sessions/{session}/"))


def test_a_proposal_is_accepted_in_other_words_or_loses_to_who_was_first(
    alice_client: Client, anna_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    address = f"{base}/memories/review/{memory.propose(subject, item)}/"
    assert "Never phone before <del>10</del> <ins>8</ins>:00" in text(alice_client.get(f"{base}/memories/review/"))
    page = text(anna_client.get(address))
    assert "she said so" in page and "not checked by us" in page
    annas = form(page, having="text")
    alices = form(text(alice_client.get(address)), having="text")
    silent = alice_client.post(address, {**alices, "decision": "reject"})
    assert silent.status_code == 422 and "Say why" in text(silent)
    done = alice_client.post(address, {**alices, "text": "Phone from 8:30 on", "decision": "accept"})
    assert done.status_code == 303
    with tenant_scope(memory.tenant_id):
        assert Proposal.objects.get().status == "accepted"
    assert "Phone from 8:30 on" in text(alice_client.get(f"{base}/memories/{subject}/{item}/"))
    lost = anna_client.post(address, {**annas, "decision": "reject", "reason": "too early"})
    assert lost.status_code == 409
    assert "Someone was faster" in text(lost) and "Alice" in text(lost) and "too early" in text(lost)


def test_a_proposal_about_what_has_changed_is_withdrawn(alice_client: Client, memory: Remembered, base: str) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    address = f"{base}/memories/review/{memory.propose(subject, item)}/"
    sent = form(text(alice_client.get(address)), having="text")
    edit = f"{base}/memories/{subject}/{item}/"
    changed = {**form(text(alice_client.get(edit)), having="text"), "text": "Never phone", "reason": "r"}
    alice_client.post(edit, changed)
    assert "Out of date" in text(alice_client.get(address))
    answer = alice_client.post(address, {**sent, "decision": "accept"}, follow=True)
    assert "Withdrawn, nothing was changed" in text(answer)
    with tenant_scope(memory.tenant_id):
        assert Proposal.objects.get().status == "withdrawn"
    assert "Never phone" in text(alice_client.get(edit))


def test_hostile_text_is_shown_as_text_everywhere(alice_client: Client, memory: Remembered, base: str) -> None:
    subject = memory.subject(name=HOSTILE)
    item = memory.item(subject, f"Says {HOSTILE}", namespace="<i>x</i>")
    session = memory.session(subject, key="<b>key</b>", title=HOSTILE)
    memory.say(session, f"Wants {HOSTILE} and token sk-abcdefghijklmnopqrstuvwx", author="<u>Mallory</u>")
    proposal = memory.propose(subject, item)
    pages = [f"{base}/memories/", f"{base}/memories/{subject}/", f"{base}/memories/{subject}/{item}/"]
    pages += [f"{base}/memories/{subject}/{item}/compare/", f"{base}/memories/{subject}/print/", f"{base}/sessions/"]
    pages += [f"{base}/sessions/{session}/", f"{base}/sessions/{session}/undo/", f"{base}/memories/review/{proposal}/"]
    pages += [f"{base}/memories/{subject}/settings/", f"{base}/memories/review/"]
    for address in pages:
        page = text(alice_client.get(address))
        assert "<script>" not in page and "<b>key" not in page and "<u>" not in page and "<i>x" not in page, address
        body = page.partition("<main")[2]
        shown = re.sub(r'(?s)<textarea.*?</textarea>| value="[^"]*"', "", body)  # fields hold the signs themselves
        assert not [sign for sign in "\u202e\u200b" if sign in shown], address
        assert "abcdefghijklmnop" not in page, address
    assert "U+202E" in text(alice_client.get(f"{base}/sessions/{session}/"))
    assert "abcdefghijklmnop" not in text(alice_client.get(f"{base}/sessions/{session}/", {"format": "json"}))


def test_strange_questions_are_answered_without_a_fault(alice_client: Client, memory: Remembered, base: str) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    session = memory.session(subject, said=2)
    prompt, document = memory.prompt("a", "b"), memory.progress("c", "## Goal\n\nd\n")
    pages = [f"{base}/memories/", f"{base}/memories/{subject}/", f"{base}/memories/{subject}/{item}/"]
    pages += [f"{base}/memories/{subject}/{item}/compare/", f"{base}/memories/{subject}/recall/", f"{base}/sessions/"]
    pages += [f"{base}/sessions/{session}/", f"{base}/sessions/{session}/undo/", f"{base}/memories/review/"]
    pages += [f"{base}/progress/", f"{base}/progress/{document}/", f"{base}/memories/prompts/{prompt}/"]
    names = [
        "q",
        "after",
        "from",
        "since",
        "until",
        "version",
        "a",
        "b",
        "with",
        "n",
        "k",
        "state",
        "kind",
        "at",
        "subject",
        "namespace",
        "agent",
        "session",
    ]
    names += ["authors", "before", "decided", "edit"]
    for value in ("\0", "-1", "99999999999999999999", "x" * 5_000, "\u202e", "²", "2026-13-45T99:00", "'; --"):
        for address, stops in (
            (page, stops) for page in pages for stops in ((), ("after",), ("after", "q", "subject"))
        ):
            answer = alice_client.get(address, dict.fromkeys([name for name in names if name not in stops], value))
            assert answer.status_code in (200, 302, 404, 422), (address, stops, value, answer.status_code)
    for field in ("reason", "text", "expected_version", "n", "last_n", "act", "cap", "alias", "alias_id", "version"):
        for address in (f"{base}/memories/{subject}/settings/", f"{base}/sessions/{session}/undo/"):
            answer = alice_client.post(address, {field: "\0", "reason": "\0r", "client_token": "\0"})
            assert answer.status_code in (200, 303, 409, 413, 422), (address, field, answer.status_code)


@contextmanager
def losing(statement: str, end: str) -> Iterator[None]:
    """The next statement with these words finds its connection ended: by the server, for idling, or by somebody."""
    left = [1]

    def lose(execute: Any, asked: str, params: Any, many: bool, context: Any) -> Any:
        if statement in asked and left and left.pop():
            cut(end)
        return execute(asked, params, many, context)

    with connection.execute_wrapper(lose):
        yield
    assert not left, f"nothing was asked with {statement}"


def cut(end: str) -> None:
    connection.ensure_connection()
    assert connection.connection is not None
    pid, ends_at = connection.connection.info.backend_pid, time.monotonic() + 30
    with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"])), autocommit=True) as superuser:
        if end == "idle":
            sql.row("SELECT set_config('idle_in_transaction_session_timeout', '20ms', false)")
        else:
            superuser.execute("SELECT pg_terminate_backend(%s)", [pid])
        while superuser.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
            assert time.monotonic() < ends_at
            time.sleep(0.005)


@pytest.mark.django_db(transaction=True, databases=["default", "owner"])
def test_a_page_whose_connection_is_lost_says_so_and_keeps_what_was_typed(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS)
    address = f"{base}/memories/{subject}/{item}/"
    for end in ("idle", "ended"):
        with losing('FROM "memory_item"', end):
            lost = alice_client.get(address)
        assert lost.status_code == 503 and lost["Retry-After"] == "1", end
        assert "<html" in text(lost) and "database does not answer" in text(lost) and ">Reload</a>" in text(lost)
    with losing('FROM "memory_item"', "ended"):
        fragment = alice_client.get(address, headers={"HX-Request": "true"})
    assert fragment.status_code == 503 and "<html" not in text(fragment)
    sent = {
        **form(text(alice_client.get(address)), having="text"),
        "text": 'Never phone\n"before" 11',
        "reason": "mail",
    }
    with losing('INSERT INTO "memory_itemrevision"', "idle"):
        lost = alice_client.post(address, sent)
    assert lost.status_code == 503 and "Nothing was half-written" in text(lost)
    assert item_of(memory, item).version == count(memory, ItemRevision) == 1
    again = form(text(lost), having="text")
    kept = {name: value for name, value in again.items() if name != "csrfmiddlewaretoken"}
    assert kept.items() <= sent.items() and len(kept) == len(sent) - 1 and f'action="{address}"' in text(lost)
    assert alice_client.post(address, again).status_code == 303
    assert item_of(memory, item).version == 2
    with losing('FROM "django_session"', "ended"):  # before there is a view
        assert alice_client.get(address).status_code == 503
