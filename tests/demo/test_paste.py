"""What `up` prints for pasting."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentstate as st
from agentstate.dev.demo.paste import PASTE
from agentstate.sdk import client
from agentstate.testing import MemoryStore, run_agent


def test_it_is_eight_lines() -> None:
    assert len([line for line in PASTE.splitlines() if line.strip()]) == 8


def test_it_waits_for_a_person_and_greets_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line starts a run and a worker; here the worker is the one of the tests."""
    store = MemoryStore()
    hosted: list[st.Agent] = []
    monkeypatch.setattr(client, "default_store", lambda: store)
    monkeypatch.setattr("agentstate.sdk.worker", hosted.append)
    source = tmp_path / "hello.py"
    source.write_text(PASTE)
    exec(compile(PASTE, source, "exec"), {"__name__": "hello"})
    (run_id,) = store.runs
    assert run_agent(hosted[0], run_id=run_id, store=store).status == "waiting"
    (approval,) = store.open_approvals()
    assert approval.question.title == "Greet Ada?"
    store.decide(approval.id, "approve")
    info = run_agent(hosted[0], run_id=run_id, store=store)
    assert (info.status, info.output) == ("succeeded", "Hello Ada, once and never twice.")
