"""The demo with a memory: a customer who comes back is known, and research goes on where it ended."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agentstate.dev.demo.refund_desk import refund_desk
from agentstate.dev.demo.research_notes import research_notes, task_of
from agentstate.dev.sandbox.client import Sandbox
from agentstate.sdk.store import RunInfo
from agentstate.testing import MemoryStore, run_agent
from tests.conformance.worlds import MemoryWorld, World

REFUNDED = "Refunded 49.90 EUR for order 4471: kettle Norr, €49.90."
GERMAN = "Wants our mail in German."
NO_CALLS = "Does not want to be called."


@pytest.fixture(params=["memory", "local"])
def world(request: pytest.FixtureRequest) -> World:
    """In memory, and on the service itself."""
    if request.param == "memory":
        return cast(World, MemoryWorld())
    from tests.conformance import served

    return served.local(request.getfixturevalue("alice"))


def answered(world: World, message_id: str) -> RunInfo:
    """The letter is read, what it asks for approved, and the answer sent."""
    info = run_agent(refund_desk, {"message_id": message_id}, store=world.store, controls=world)
    if info.status == "waiting":
        world.decide(world.open_approval(info.run_id), "approve")
        info = run_agent(refund_desk, run_id=info.run_id, store=world.store, controls=world)
    assert info.status == "succeeded", info
    return info


def mails(sandbox: Sandbox) -> list[str]:
    return [mail["text"] for mail in sandbox.get("/inbox")]


def test_the_second_letter_of_a_customer_is_answered_with_what_is_known(sandbox: Sandbox, world: World) -> None:
    answered(world, "msg-02")
    (first,) = mails(sandbox)
    assert "what we keep about you" not in first  # nothing was known yet
    answered(world, "msg-13")
    (second,) = [text for text in mails(sandbox) if "gemerkt" in text]
    assert second.startswith("Guten Tag Tom Baker")  # in the language he asked for
    for line in (REFUNDED, GERMAN, NO_CALLS):
        assert line in second
    answered(world, "msg-13")
    german = [text for text in mails(sandbox) if "gemerkt" in text]
    assert len(german) == 2 and all(text.count(GERMAN) == 1 for text in german)  # said twice, kept once


def test_another_customer_is_told_nothing_of_it(sandbox: Sandbox, world: World) -> None:
    for message_id in ("msg-02", "msg-13", "msg-10"):
        answered(world, message_id)
    (grant,) = [text for text in mails(sandbox) if "Oliver Grant" in text]
    assert "4471" not in grant and "German" not in grant


def test_who_is_no_customer_is_not_remembered(sandbox: Sandbox, store: MemoryStore) -> None:
    for message_id in ("msg-07", "msg-08"):
        run_agent(refund_desk, {"message_id": message_id}, store=store)
    assert store.tier.subjects == [] and store.tier.items == {}


def test_both_letters_and_both_answers_stand_in_sessions(sandbox: Sandbox) -> None:
    world = MemoryWorld()
    for message_id in ("msg-02", "msg-13"):
        answered(cast(World, world), message_id)
    sessions = list(world.store.tier.sessions.values())
    assert [[message.role for message in session.messages] for session in sessions] == [["user", "assistant"]] * 2
    assert len({session.subject.id for session in sessions}) == 1


def research(world: World, pages: int) -> RunInfo:
    given: dict[str, Any] = {"topic": "Heat  pumps", "pages": pages, "seconds_per_page": 0}
    info = run_agent(research_notes, given, store=world.store, controls=world)
    assert info.status == "succeeded", info
    return info


def test_research_goes_on_where_the_last_run_ended(sandbox: Sandbox, world: World) -> None:
    assert [research(world, pages).output["pages"] for pages in (7, 6, 2)] == [[1, 7], [8, 13], [14, 15]]


def test_the_document_says_what_was_done_and_what_not_to_repeat(sandbox: Sandbox) -> None:
    world = MemoryWorld()
    for pages in (7, 6):
        research(cast(World, world), pages)
    document = world.store.tier.documents[task_of("heat pumps")][-1]
    assert document.version == 3  # begun, and one for each run
    assert document.sections["next"] == "Read page 14."
    assert document.sections["do_not_repeat"] == "- Pages 1 to 13 have been read."
    done = [line.split(":")[0] for line in document.sections["done"].splitlines()]
    assert done == ["- Pages 1 to 7", "- Pages 8 to 13"]
    rows = [row for run in world.store.runs for row in world.store.steps(run) if row.name == "pages.read"]
    assert sorted(row.payload["number"] for row in rows) == list(range(1, 14))  # none twice
