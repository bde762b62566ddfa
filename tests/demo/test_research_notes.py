"""Research notes: many steps, several generations, one dear call; whole after any crash."""

from __future__ import annotations

from typing import Any

import pytest

from agentstate.dev.demo import research_notes as module
from agentstate.dev.demo.research_notes import research_notes
from agentstate.dev.sandbox.client import Sandbox
from agentstate.testing import Crashing, MemoryStore, run_agent


def asked(pages: int) -> dict[str, Any]:
    return {"topic": "heat pumps", "pages": pages, "seconds_per_page": 0}


def test_all_pages_are_read_noted_and_reported(sandbox: Sandbox, store: MemoryStore) -> None:
    info = run_agent(research_notes, asked(12), store=store)
    assert info.status == "succeeded"
    read = [row.payload["number"] for row in store.steps(info.run_id) if row.name == "pages.read"]
    assert sorted(read) == list(range(1, 13))
    assert info.output["points"] == 12
    assert len(sandbox.calls("analysis.create")) == 1
    notes = [entry.text for entry in store.runs[info.run_id].entries]
    assert [note.split(":")[0] for note in notes] == ["Pages 1-5", "Pages 6-10", "Pages 11-12"]


def test_a_long_run_closes_generations_and_ends_as_a_short_one_would(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, pieces = MemoryStore(), MemoryStore()
    first = run_agent(research_notes, asked(33), store=whole)
    monkeypatch.setattr(module, "GENERATION_PAGES", 10)
    second = run_agent(research_notes, asked(33), store=pieces)
    assert (whole.runs[first.run_id].generation, pieces.runs[second.run_id].generation) == (0, 3)
    assert {**second.output, "analysis": ""} == {**first.output, "analysis": ""}


def test_a_generation_stays_near_two_hundred_steps(sandbox: Sandbox, store: MemoryStore) -> None:
    info = run_agent(research_notes, asked(module.GENERATION_PAGES + 5), store=store)
    steps = [row for row in store.steps(info.run_id) if row.generation == 0]
    assert store.runs[info.run_id].generation == 1
    assert 180 <= len(steps) <= 220


def test_a_crash_at_any_turn_reads_every_page_and_pays_for_one_analysis(sandbox: Sandbox) -> None:
    clean = MemoryStore()
    expected = run_agent(research_notes, asked(8), store=clean).output
    for at in range(1, clean.turns + 1):
        sandbox.reset()
        world = Crashing(MemoryStore(), at=at, when="after")
        info = run_agent(research_notes, asked(8), store=world)
        assert world.turns >= at
        assert {**info.output, "analysis": ""} == {**expected, "analysis": ""}, at
        assert len(sandbox.acts("analysis.create")) == 1, at


def test_no_step_depends_on_being_run_in_one_go(sandbox: Sandbox, store: MemoryStore) -> None:
    info = run_agent(research_notes, asked(7), store=store, suspend_always=True)
    assert (info.status, info.output["points"]) == ("succeeded", 7)
    assert store.runs[info.run_id].claims > 7


def test_the_state_shows_how_far_it_is(sandbox: Sandbox, store: MemoryStore) -> None:
    info = run_agent(research_notes, asked(12), store=store)
    state = store.runs[info.run_id].state
    assert (state["next_page"], len(state["points"])) == (13, 12)


def test_a_page_that_fails_for_a_while_is_read_again(sandbox: Sandbox, store: MemoryStore) -> None:
    sandbox.behave("pages.read", fail=503, calls=3)
    info = run_agent(research_notes, asked(5), store=store)
    assert (info.status, info.output["points"]) == ("succeeded", 5)


def test_a_lost_reply_of_the_analysis_is_asked_again_under_the_same_key(sandbox: Sandbox, store: MemoryStore) -> None:
    sandbox.behave("analysis.create", dedupe=True, drop_reply={"value": True, "calls": 2})
    info = run_agent(research_notes, asked(3), store=store)
    calls = sandbox.calls("analysis.create")
    assert info.status == "succeeded"
    assert [call.acted for call in calls] == [True, False, False]
    assert len({call.key for call in calls}) == 1
