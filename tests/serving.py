"""A real web process on the test's database, for tests over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agentstate.dev.children import dying_with_parent

START_S_MAX = 40
LEASE_S = "5"


@pytest.fixture(scope="session")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base address of a uvicorn process on the test's database."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    environment = {**os.environ, "DATABASE_POOL": "1", "AGENTSTATE_LEASE_S": LEASE_S}
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "agentstate.asgi:application",
        "--host",
        "127.0.0.1",
    ]
    command += ["--port", str(port), "--no-access-log"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, preexec_fn=dying_with_parent(signal.SIGKILL)
        )
    try:
        _wait_until_answering(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def _wait_until_answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends_at = time.monotonic() + START_S_MAX
    while time.monotonic() < ends_at and process.poll() is None:
        try:
            if httpx.get(f"{url}/api/v1/openapi.json", timeout=START_S_MAX).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"The server did not start:\n{log.read_text()[-3000:]}", pytrace=False)
