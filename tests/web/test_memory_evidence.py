"""What pages of memory prove: what an answer knew, where a memory was used, what an edit or an erase does."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.test import Client

from agentstate.affairs import receipts
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.models import Injection, Item, RecallQuestion, Subject
from memory.selectors import usage
from tests.web.forms import form, text
from tests.web.remembered import Remembered
from tests.web.world import World

pytestmark = pytest.mark.django_db

HOURS = "Never phone before 10:00"


@pytest.fixture
def memory(alice: Actor) -> Remembered:
    return Remembered(alice)


def test_an_answer_names_what_it_knew_word_for_word(
    alice_client: Client, world: World, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS, pinned=True)
    memory.prompt("support", "Be kind.")
    session = memory.session(subject)
    run = world.running("1")
    memory.say(session, "When will you phone me?")
    memory.ask(session, "When will you phone me?", run=run, step_seq=2)
    memory.answer(session, "At eleven.", run=run, step_seq=3)
    memory.say(session, "Thanks!")
    memory.answer(session, "You are welcome.", run=run, step_seq=4)
    page = text(alice_client.get(f"{base}/sessions/{session}/"))
    assert page.count("Knew ") == 1, "the second answer was given nothing of its own"
    assert "1 memory" in page and "prompt v1" in page and f"/{item}/?version=1" in page
    assert f"/runs/{run}/steps/2/" in page and f"“{HOURS}” v1</a>" in page
    call = page.partition("/calls/")[2].partition("/")[0]
    told = text(alice_client.get(f"{base}/sessions/{session}/calls/{call}/"))
    assert HOURS in told and "Be kind." in told and "When will you phone me?" in told
    edit = f"{base}/memories/{subject}/{item}/"
    changed = {**form(text(alice_client.get(edit)), having="text"), "text": "Phone at any time", "reason": "r"}
    alice_client.post(edit, changed)
    assert HOURS in text(alice_client.get(f"{base}/sessions/{session}/calls/{call}/")), "as it was then"
    assert HOURS in text(alice_client.get(edit, {"version": "1"}))
    assert f"“{HOURS}” v1</a>" in text(alice_client.get(f"{base}/sessions/{session}/"))


def test_a_memory_says_in_which_runs_it_was_used_and_which_of_them_wait(
    alice_client: Client, world: World, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS, pinned=True)
    session = memory.session(subject, said=1)
    asking, _ = world.asking("4467")
    runs = [asking, world.running("2"), world.done("3")]
    for run in runs:
        memory.ask(session, "When may we phone?", run=run, step_seq=1)
    memory.ask(session, "And now?", run=runs[2], step_seq=2)
    page = text(alice_client.get(f"{base}/memories/{subject}/{item}/"))
    assert "used in 3 runs, 2 open, 1 waiting for approval" in page
    assert "4 calls" in page.replace("</b>", "") and page.index(asking) < page.index(runs[2]), "who waits comes first"
    assert "3 runs" in text(alice_client.get(f"{base}/memories/{subject}/"))
    with tenant_scope(memory.tenant_id):
        assert usage.of(UUID(int=1)).runs == 0 and usage.counts([]) == {}


def test_a_preview_shows_the_context_before_and_after_and_records_nothing(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    item = memory.item(subject, HOURS, pinned=True)
    other = memory.item(subject, "The lamp of order 4411 is broken")
    session = memory.session(subject, said=2, title="Broken lamps")
    memory.ask(session, "When may we phone about the lamp?")
    address = f"{base}/memories/{subject}/{item}/"
    page = text(alice_client.get(address))
    assert "When may we phone about the lamp?" in page, "the questions that were really asked"
    sent = {**form(page, having="text"), "question": "When may we phone about the lamp?"}
    with tenant_scope(memory.tenant_id):
        before = Injection.objects.count(), RecallQuestion.objects.count()
    shown = text(alice_client.post(f"{address}preview/", {**sent, "text": "Never phone before 11:00"}))
    assert "Never phone before <del>10</del>" in shown and "Never phone before <ins>11</ins>" in shown
    assert "Broken lamps" in shown and "Nothing drops out" in shown and "of 8,000 tokens" in shown
    gone = text(
        alice_client.post(
            f"{base}/memories/{subject}/{other}/preview/",
            {
                **form(text(alice_client.get(f"{base}/memories/{subject}/{other}/")), having="text"),
                "text": "Likes tea",
                "asked": "Is the lamp of order 4411 broken?",
            },
        )
    )
    assert "<del>The lamp of order 4411 is broken</del>" in gone and "<ins>Likes tea</ins>" in gone
    unpinned = text(alice_client.post(f"{address}preview/", {**sent, "pinned": "", "asked": "Which room?"}))
    assert "drops out" in unpinned
    with tenant_scope(memory.tenant_id):
        assert (Injection.objects.count(), RecallQuestion.objects.count()) == before
        kept = Item.objects.get(id=UUID(hex=item[5:]))
        assert kept.version == 1 and kept.pinned


def test_recall_tells_where_each_score_comes_from_and_records_nothing(
    alice_client: Client, memory: Remembered, base: str
) -> None:
    subject = memory.subject()
    memory.item(subject, HOURS, namespace="contact")
    session = memory.session(subject, said=3, key="ticket-1")
    address = f"{base}/memories/{subject}/recall/"
    found = text(alice_client.get(address, {"q": "may we phone before ten"}))
    assert "<mark>phone</mark>" in found and "words</dt>" in found and "compared by" in found
    told = alice_client.get(address, {"q": "lamp of order 4401", "k": "2", "format": "json"}).json()
    assert len(told["found"]) == 2 and told["units"] == 7
    assert abs(sum(told["found"][0]["hit"]["scores"].values()) - told["found"][0]["hit"]["score"]) < 1e-6
    only = alice_client.get(address, {"q": "phone lamp", "kind": "item", "format": "json"}).json()
    assert [each["hit"]["kind"] for each in only["found"]] == ["item"]
    for narrowed in ({"session": "ticket-1"}, {"session": session}, {"authors": "Mara"}, {"after": "2020-01-01T00:00"}):
        assert alice_client.get(address, {"q": "lamp", **narrowed}).status_code == 200
    assert "no such session" in text(alice_client.get(address, {"q": "lamp", "session": "nowhere"})).lower()
    nul = alice_client.get(address, {"q": "a\0b"})
    assert nul.status_code == 200 and "Not asked" in text(nul)
    with tenant_scope(memory.tenant_id):
        assert not Injection.objects.exists() and not RecallQuestion.objects.exists()


def test_an_erase_is_shown_confirmed_by_name_and_leaves_a_receipt(
    alice_client: Client, bob_client: Client, world: World, memory: Remembered, base: str
) -> None:
    subject, other = memory.subject("u_1", name="Mara Lind"), memory.subject("u_2", name="Tom Bell")
    item, kept = memory.item(subject, HOURS), memory.item(other, "Likes tea")
    memory.session(subject, said=2)
    address = f"{base}/memories/{subject}/erase/"
    assert bob_client.get(address).status_code == bob_client.post(address).status_code == 403
    page = text(alice_client.get(address))
    assert "Type Mara Lind to confirm" in page and "<b>4</b> messages" in page and "<b>1</b> item<" in page
    assert "Memories" in page and "stay" in page
    wrong = alice_client.post(address, {"confirm": "Tom Bell", "reason": "asked by mail"})
    assert wrong.status_code == 422 and "Type the name" in text(wrong) and "asked by mail" in text(wrong)
    assert alice_client.post(address, {"confirm": "Mara Lind", "reason": " "}).status_code == 422
    assert alice_client.get(f"{base}/memories/{subject}/{item}/").status_code == 200
    done = alice_client.post(address, {"confirm": "Mara Lind", "reason": "asked by mail"}, follow=True)
    assert "Erased" in text(done) and "The signed receipt" in text(done)
    receipt = alice_client.get(f"{address}receipt/")
    assert receipt.json()["receipt"]["subject"] == subject and "attachment" in receipt["Content-Disposition"]
    assert receipts.check(receipt.content)["subject"] == subject
    assert alice_client.get(f"{base}/memories/{subject}/").status_code == 404
    assert alice_client.get(f"{base}/memories/{subject}/{item}/").status_code == 404
    assert "Likes tea" in text(alice_client.get(f"{base}/memories/{other}/{kept}/"))
    with tenant_scope(memory.tenant_id):
        assert Subject.objects.count() == 1
    assert alice_client.get(f"{base}/memories/{other}/erase/receipt/").status_code == 404
