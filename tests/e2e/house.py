"""The whole product as a person starts it: `manage.py up` in a folder of its own, with the demo's other side."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from agentstate.dev.children import dying_with_parent

ROOT = Path(__file__).resolve().parents[2]
OURS = ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "BROKER_URL", "SECRET_KEY", "AGENTSTATE_MASTER_KEY")
MODELS = ("AGENTSTATE_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY")  # the scripted model answers
START_S_MAX = 300.0  # of a very busy machine


@dataclass(frozen=True, slots=True)
class House:
    address: str
    shop: str
    password: str

    def refunds(self, order: str) -> list[dict[str, Any]]:
        """What the other side's ledger says it did: the oracle."""
        query = {"tool": "refund.create", "phase": "acted"}
        answer = httpx.get(f"{self.shop}/ledger", params=query, headers={"Accept": "application/json"}, trust_env=False)
        lines: list[dict[str, Any]] = answer.raise_for_status().json()
        return [line["result"] for line in lines if line["result"]["order_id"] == order]


@contextmanager
def started(folder: Path) -> Iterator[House]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name not in (*OURS, *MODELS)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    environment |= {"AGENTSTATE_STATE_DIR": str(folder / "state"), "AGENTSTATE_NO_VENV": "1"}
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=dying_with_parent(signal.SIGKILL),
    )
    try:
        yield _house(_said(process))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _said(process: subprocess.Popen[str]) -> str:
    """What `up` printed until it was ready."""
    assert process.stdout is not None
    said, ends_at = "", time.monotonic() + START_S_MAX
    while "Ctrl-C stops everything" not in said:
        readable, _, _ = select.select([process.stdout], [], [], max(ends_at - time.monotonic(), 0))
        line = process.stdout.readline() if readable else ""
        assert line, f"`up` was not ready within {START_S_MAX:.0f} s:\n{said}"
        said += line
    return said


def _house(said: str) -> House:
    def found(pattern: str) -> str:
        match = re.search(pattern, said)
        assert match, f"{pattern} is not in what `up` printed:\n{said}"
        return match[1]

    return House(found(r"is up after [^:]*: +(\S+)"), found(r"demo agents call[^:]*: (\S+)"), found(r"password (\S+)"))
