"""`up` as a person meets it: real processes, real signals. One state folder, a few starts: each costs seconds."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agentstate.dev.children import dying_with_parent
from agentstate.dev.plan import CHECKOUT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc of Linux")
OURS = ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "BROKER_URL", "SECRET_KEY", "AGENTSTATE_MASTER_KEY")
START_S_MAX = 90  # of a busy machine; how fast it is, is measured elsewhere


@dataclass
class Up:
    """One `manage.py up` in a folder of its own."""

    state: Path
    port: int
    process: subprocess.Popen[str] | None = None
    said: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def manage(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name not in OURS}
        environment |= {"AGENTSTATE_STATE_DIR": str(self.state), "AGENTSTATE_NO_VENV": "1"}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=CHECKOUT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=dying_with_parent(signal.SIGKILL),
        )

    def start(self) -> None:
        self.kill()  # what a failed test left
        self.process = self.manage("up", "--port", str(self.port))
        self.said = []
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("Ctrl-C stops everything"):
                return
        raise AssertionError("".join(self.said))

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.wait()

    def wait(self) -> int:
        assert self.process
        self.process.communicate(timeout=START_S_MAX)
        return self.process.returncode

    def children(self) -> dict[int, str]:
        assert self.process
        return descendants(self.process.pid)

    def pid_of(self, *words: str) -> int:
        return next(pid for pid, command in sorted(self.children().items()) if all(word in command for word in words))

    def postgres_log(self) -> str:
        return (self.state / "log" / "postgres.log").read_text()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = Up(tmp_path_factory.mktemp("up") / "state", port)
    yield world
    world.kill()


def test_one_command_serves_a_page_and_one_ctrl_c_stops_everything(up: Up) -> None:
    up.start()
    assert any(line.startswith("agentstate is up") and line.rstrip().endswith(up.url) for line in up.said)
    assert page(f"{up.url}/readyz") == 200
    said, code = run(up, "up", "--port", str(up.port))
    assert code == 0 and f"Already running: {up.url}" in said
    said, code = run(up, "doctor")
    assert code == 0, said  # it finds the servers of the running `up`, a worker and beat
    assert re.search(r"ok +idle transactions +ended after 60 s", said), said
    assert re.search(r"ok +waits for locks +ended after 15 s", said), said
    assert b"MALLOC_TRIM_THRESHOLD_=16777216" in Path(f"/proc/{up.pid_of('/postgres -D')}/environ").read_bytes()
    os.kill(up.pid_of("uvicorn"), signal.SIGKILL)
    until(lambda: page(f"{up.url}/readyz") == 200)
    children = up.children()
    up.signal(signal.SIGINT)
    assert up.wait() == 0
    assert not [command for pid, command in children.items() if alive(pid)]
    assert "database system is shut down" in up.postgres_log().splitlines()[-1]


def test_killing_the_parent_leaves_no_process(up: Up) -> None:
    up.start()
    children = up.children()
    assert len(children) > 8, children
    up.signal(signal.SIGKILL)
    until(lambda: not [pid for pid in children if alive(pid)])


def test_after_everything_was_killed_at_once_it_starts_again(up: Up) -> None:
    up.start()
    for pid in up.children():
        with contextlib.suppress(ProcessLookupError):  # a backend of Postgres that ended by itself meanwhile
            os.kill(pid, signal.SIGKILL)
    up.signal(signal.SIGKILL)
    up.wait()
    up.start()
    assert page(f"{up.url}/readyz") == 200
    worker = up.pid_of("celery", "worker")
    os.kill(worker, signal.SIGSTOP)  # busy for ever: a warm stop waits for it
    up.signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        up.process.wait(1.0) if up.process else None
    up.signal(signal.SIGINT)
    assert up.wait() == 0
    assert not alive(worker)
    assert "database system is shut down" in up.postgres_log().splitlines()[-1]


def test_stop_says_when_there_is_nothing_to_stop(up: Up) -> None:
    up.kill()
    said, code = run(up, "stop")
    assert code == 0 and "Nothing is running here." in said


def run(up: Up, *arguments: str) -> tuple[str, int]:
    process = up.manage(*arguments)
    said, _ = process.communicate(timeout=START_S_MAX)
    return said, process.returncode


def page(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except OSError:
        return 0


def until(holds: Callable[[], bool], *, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie that nobody reaps is not alive."""
    fields = status(pid)
    return bool(fields) and fields[0] != "Z"


def descendants(pid: int) -> dict[int, str]:
    """Every process below this one, with its command line."""
    parents = {int(path.name): status(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for child, fields in parents.items():
            if fields and int(fields[1]) == parent:
                found[child] = command(child)
                waiting.append(child)
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""  # gone meanwhile


def status(pid: int) -> list[str]:
    """State, parent, ... of /proc/pid/stat; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
