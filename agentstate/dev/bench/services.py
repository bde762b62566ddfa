"""A real web server and real Celery workers on the bench's servers, each in a process group of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from agentstate.db import wake
from agentstate.dev.bench import world
from agentstate.dev.children import dying_with_parent
from agentstate.dev.servers import CannotStart
from agentstate.presence import READY_KEY

START_S_MAX = 60.0
POOL_CHILDREN = 2


class Service:
    """One process (group) with its log."""

    def __init__(self, name: str, command: list[str], **environment: str) -> None:
        self.log = Path(os.environ[world.ROOT_VARIABLE]) / f"{name}.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGKILL),
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Raises: CannotStart with the end of its log."""
        ends_at = time.monotonic() + START_S_MAX
        while not ready():
            if self.process.poll() is not None or time.monotonic() > ends_at:
                raise CannotStart(f"{self.log.stem} did not start:\n{self.log.read_text()[-2_000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """The whole group, by SIGKILL. Idempotent."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def web() -> Iterator[str]:
    """The address of a uvicorn as `up` starts it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = ["uvicorn", "agentstate.asgi:application", "--host", "127.0.0.1", "--port", str(port)]
    service = Service(
        "web", [*command, "--lifespan", "off", "--no-access-log", "--log-level", "warning"], DATABASE_POOL="1"
    )
    try:
        service.wait_until(lambda: _answers(f"{url}/readyz"))
        yield url
    finally:
        service.kill()


def worker() -> Service:
    """A Celery worker that takes messages."""
    options = ["-Q", "drive,sweep,deliver", "--pool", "prefork", "-c", str(POOL_CHILDREN)]
    service = Service(
        "worker",
        ["celery", "-q", "-A", "agentstate.celery", "worker", *options, "--without-gossip", "--without-mingle"],
        PYTHONWARNINGS="ignore:You're running the worker with superuser",
    )
    ready_key = READY_KEY.format(name="worker")
    service.wait_until(lambda: wake.redis().get(ready_key) == str(service.pid).encode())
    return service


@contextmanager
def workers(count: int) -> Iterator[list[Service]]:
    """A list that may be changed: whoever kills one puts another there."""
    started: list[Service] = []
    try:
        for _ in range(count):
            started.append(worker())
        yield started
    finally:
        for service in started:
            service.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
