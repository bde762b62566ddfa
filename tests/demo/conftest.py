from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentstate.dev.demo import models
from agentstate.dev.sandbox.client import Sandbox
from agentstate.testing import MemoryStore


@pytest.fixture(scope="module")
def one_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def sandbox(one_sandbox: Sandbox, at_work: None, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """An empty one; the demo's tools find it."""
    for name, port in one_sandbox.env().items():
        monkeypatch.setenv(name, port)
    one_sandbox.reset()
    return one_sandbox


@pytest.fixture
def mortal(tmp_path: Path, at_work: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """One of its own, to be killed."""
    with Sandbox.start(tmp_path / "sandbox") as running:
        for name, port in running.env().items():
            monkeypatch.setenv(name, port)
        yield running


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripted model, whatever the environment of the tests names."""
    for name in ("AGENTSTATE_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    models._model.cache_clear()
    yield
    models._model.cache_clear()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()
