"""The worker: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agentstate as st
from agentstate.core.errors import Unauthorised
from agentstate.sdk.store import AgentSpec
from agentstate.sdk.worker import worker_info
from agentstate.testing import MemoryStore
from tests.sdk import remote

WAIT_S = 20.0
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    found = MemoryStore(lease_s=1.0)
    for agent in (remote.counting, remote.hanging):
        found.register(agent.spec())
    with remote.served(found, str(tmp_path / "store")):
        yield found


@pytest.fixture
def process(store: MemoryStore, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.sdk.remote", str(tmp_path / "store")]
    found = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    yield found
    if found.poll() is None:
        os.killpg(found.pid, signal.SIGKILL)
    found.wait()


def until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_at, "waited too long"
        time.sleep(0.02)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def test_children_share_the_runs(store: MemoryStore, process: subprocess.Popen[bytes]) -> None:
    ids = [store.admit("counting", {"steps": 10}).run_id for _ in range(4)]
    until(lambda: all(store.get(run_id).status == "succeeded" for run_id in ids))
    pids = {pid for run_id in ids for pid in store.get(run_id).output}
    assert len(pids) == 2
    assert pids == set(children(process))


def test_sigterm_gives_runs_back_at_a_step_boundary(store: MemoryStore, process: subprocess.Popen[bytes]) -> None:
    run_id = store.admit("counting", {"steps": 500}).run_id
    until(lambda: len(store.steps(run_id)) > 3)
    process.terminate()
    assert process.wait(WAIT_S) == 0
    assert store.get(run_id).status == "queued"
    assert all(row.status == "done" for row in store.steps(run_id))


def test_a_killed_child_is_replaced_and_its_run_goes_on_elsewhere(
    store: MemoryStore, process: subprocess.Popen[bytes]
) -> None:
    run_id = store.admit("counting", {"steps": 60}).run_id
    until(lambda: len(store.steps(run_id)) > 5)
    until(lambda: store.steps(run_id)[2].status == "done")
    victim = store.steps(run_id)[2].output
    os.kill(victim, signal.SIGKILL)
    until(lambda: store.get(run_id).status == "succeeded")
    assert len(set(store.get(run_id).output)) == 2
    until(lambda: len(children(process)) == 2)
    assert victim not in children(process)


def test_a_stuck_call_ends_its_child_and_is_never_repeated(
    store: MemoryStore, process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    run_id = store.admit("hanging", {"path": str(ledger)}).run_id
    until(lambda: store.get(run_id).status == "in_doubt")
    assert ledger.read_text() == "called\n"
    until(lambda: len(children(process)) == 2)


def test_a_worker_that_the_service_refuses_ends_and_says_why(tmp_path: Path) -> None:
    class Refusing(MemoryStore):
        def register(self, agent: AgentSpec) -> None:
            raise Unauthorised("the key has expired")

    with remote.served(Refusing(), str(tmp_path / "refusing")):
        command = [sys.executable, "-m", "tests.sdk.remote", str(tmp_path / "refusing")]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=WAIT_S, text=True)
    assert ended.returncode == 78
    assert "the key has expired" in ended.stderr


def test_a_worker_process_is_named_for_ever() -> None:
    info = worker_info()
    assert (info.pid, info.name) == (os.getpid(), f"{info.host}:{os.getpid()}")
    assert len(info.boot_id) == 36
    assert info.pid_start > 0


def test_a_worker_without_agents_or_service_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTSTATE_URL", raising=False)
    with pytest.raises(ValueError, match="Name the agents"):
        st.worker()
    with pytest.raises(RuntimeError, match="AGENTSTATE_URL"):
        st.worker(remote.counting)
    with pytest.raises(RuntimeError, match="AGENTSTATE_URL"):
        st.run("counting", {})
