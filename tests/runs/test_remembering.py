"""Memory and the worker's death: a write is done once, a read is answered with the words that were read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

import agentstate as st
from agentstate.core.errors import Fenced
from agentstate.core.ids import parse_id
from agentstate.llm import embedding
from agentstate.sdk.store import StepStart, Turn, WorkerInfo
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from agentstate.testing import run_agent
from memory.selectors import ledger, listing
from memory.selectors.shelf import ItemFilter
from memory.services import editing, policies
from memory.services.drafts import ItemChanges
from runs.engine.store import LocalStore
from runs.models import Run, Step
from tests.conformance.served import ServedWorld
from tests.memory.recall_world import WordEmbedder

TEXT = "Ada wants her mail in German."
LETTER = "Where is the parcel from the north?"


@st.step
def think(text: str) -> str:
    if os.environ.get("DIE_THINKING"):
        os.kill(os.getpid(), signal.SIGKILL)
    return text


@st.agent("remembering-killed", tools=[think])
def main() -> dict[str, Any]:
    session = st.memory.session("user:1")
    session.say("user", LETTER)
    kept = st.memory.remember(TEXT)
    document = st.memory.progress.write({"goal": "Find the parcel."})
    undone = session.undo(1)
    found = st.memory.recall("mail German")
    context = st.memory.context("Is her mail in German?")
    thought = think(str(context))
    return {
        "change": kept.change,
        "version": document.version,
        "undone": undone.count,
        "recalled": list(found.texts),
        "context": thought,
    }


ALONE = """
import sys
import django
django.setup()
from uuid import UUID
from agentstate.tenants.actors import Actor
from agentstate.testing import drive_once
from runs.engine.store import LocalStore
from tests.runs.test_remembering import main
scopes = frozenset({"runs.work", "runs.start"})
store = LocalStore(Actor("key", "k", "alone", UUID(sys.argv[1]), scopes=scopes), lease_s=60, shared=True)
print(drive_once(main, sys.argv[2], store=store))
"""


def killed(tenant_id: Any, run_id: str, **environment: str) -> None:
    """A worker of its own drives the run and is killed there."""
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "agentstate.settings", "PYTHONPATH": str(Path.cwd()), **environment}
    command = [sys.executable, "-c", ALONE, str(tenant_id), run_id]
    done = subprocess.run(command, env=env, timeout=120, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, (done.stdout.decode(), done.stderr.decode()[-3_000:])


@pytest.fixture
def world(committed_db: None, alice: Actor) -> ServedWorld:
    found = ServedWorld(alice, LocalStore(alice, lease_s=60, shared=True))
    found.store.register(main.spec())
    return found


def kept(tenant_id: Any) -> list[str]:
    with tenant_scope(tenant_id):
        page = listing.page(None, ItemFilter(state="any"), after="", rows_max=50)
        return [item.text for item in page.rows]


def said(tenant_id: Any) -> int:
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(undone_in) FROM memory_message")
        every, undone = cursor.fetchone()
    assert every == undone == 1
    return int(every)


@pytest.mark.parametrize("nth", range(1, 6))
def test_a_worker_killed_after_each_write_has_written_once(world: ServedWorld, nth: int) -> None:
    """Session, message, item, document, undo: killed after the commit, before the step could end."""
    run_id = world.store.admit(main.name, {}).run_id
    killed(world.tenant_id, run_id, AGENTSTATE_FAILPOINTS=f"memory.wrote=kill@{nth}")
    with tenant_scope(world.tenant_id):
        unfinished = Step.objects.filter(run_id=parse_id("run", run_id), status="started").values_list(
            "name", flat=True
        )
        assert len(unfinished) == 1
    world.expire_lease(run_id)
    info = run_agent(main, run_id=run_id, store=world.store, controls=world)
    assert info.status == "succeeded", info
    assert (info.output["change"], info.output["version"], info.output["undone"]) == ("created", 1, 1)
    assert kept(world.tenant_id) == [TEXT] and said(world.tenant_id) == 1


def test_a_recorded_recall_gives_the_words_that_were_read_though_the_item_has_changed(world: ServedWorld) -> None:
    run_id = world.store.admit(main.name, {}).run_id
    killed(world.tenant_id, run_id, DIE_THINKING="yes")
    with tenant_scope(world.tenant_id):
        (item,) = listing.page(None, ItemFilter(), after="", rows_max=5).rows
        changes = ItemChanges(text="Ada wants her mail in French.")
        editing.edit(item.id, expected_version=1, changes=changes, reason="she said so", actor=world.actor)
    world.expire_lease(run_id)
    info = run_agent(main, run_id=run_id, store=world.store, controls=world)
    assert info.status == "succeeded", info
    assert info.output["recalled"] == [TEXT]
    assert TEXT in info.output["context"] and "French" not in info.output["context"]
    with tenant_scope(world.tenant_id):
        step = Step.objects.get(run_id=parse_id("run", run_id), name="memory.recall")
        (line,) = ledger.of_step(step.run_id, step.seq)
        assert (line.text, line.version, line.source_id) == (TEXT, 1, item.id)
        assert ledger.uses_of(item.id).run_ids == [step.run_id]


def test_a_read_killed_before_its_record_reads_again_and_shows_what_the_agent_got(world: ServedWorld) -> None:
    """The recall was answered and the answer lost: the next worker asks again, and sees what is true by then."""
    run_id = world.store.admit(main.name, {}).run_id
    killed(world.tenant_id, run_id, AGENTSTATE_FAILPOINTS="memory.act=kill@7")  # before the context is built
    world.expire_lease(run_id)
    info = run_agent(main, run_id=run_id, store=world.store, controls=world)
    assert info.status == "succeeded" and TEXT in info.output["context"]
    with tenant_scope(world.tenant_id):
        step = Step.objects.get(run_id=parse_id("run", run_id), name="memory.context")
        assert TEXT in [line.text for line in ledger.of_step(step.run_id, step.seq)]


@pytest.mark.parametrize(("retrieval", "asked"), [("never", 0), ("always", 1)])
def test_a_model_is_asked_only_for_a_context_that_recalls(
    world: ServedWorld, monkeypatch: pytest.MonkeyPatch, retrieval: str, asked: int
) -> None:
    embedder = WordEmbedder()
    monkeypatch.setattr(embedding, "embedder", lambda: embedder)
    with tenant_scope(world.tenant_id):
        policies.set_for_agent(main.name, {"retrieval": retrieval}, actor=world.actor, reason="test")
    run_id = world.store.admit(main.name, {}).run_id
    assert run_agent(main, run_id=run_id, store=world.store, controls=world).status == "succeeded"
    assert embedder.asked == ["mail German", "Is her mail in German?"][: 1 + asked]


def test_a_run_is_not_taken_over_in_the_middle_of_a_write(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence is compared in the write's own transaction: whoever takes the run waits for it, or it is refused."""
    from runs.engine import remembering

    run_id = world.store.admit(main.name, {}).run_id
    claim = world.store.claim(WorkerInfo("a"), agents={main.name: main.spec()}, run_id=run_id)
    assert claim is not None
    start = StepStart("memory.session#1", "memory.session", kind="memory", effect="keyed", window_s=60.0, attempt=1)
    (step,) = world.store.turn(claim, Turn(start=[start])).begun
    taken: list[str] = []
    checked = remembering.asker_of

    def checked_and_raced(*given: Any, **more: Any) -> Any:
        """Between the check of the fence and the write somebody tries to take the run over."""
        found = checked(*given, **more)

        def take_over() -> None:
            with tenant_scope(world.tenant_id), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '300ms'")
                cursor.execute("UPDATE runs_run SET fence = fence + 1 WHERE id = %s", [parse_id("run", run_id)])
                taken.append("in the middle")
            connection.close()

        thief = threading.Thread(target=lambda: _swallowed(take_over))
        thief.start()
        thief.join(10)
        return found

    monkeypatch.setattr(remembering, "asker_of", checked_and_raced)
    reply = world.store.memory(claim, "session", {"subject": "user:1"}, step_seq=step.seq, key=step.key)
    assert reply["subject_id"] and taken == []
    monkeypatch.undo()
    with tenant_scope(world.tenant_id):
        Run.objects.filter(id=parse_id("run", run_id)).update(fence=claim.fence + 1)
    with pytest.raises(Fenced):
        world.store.memory(claim, "session", {"subject": "user:1"}, step_seq=step.seq, key=step.key)


def _swallowed(act: Any) -> None:
    try:
        act()
    except Exception:
        connection.close()
