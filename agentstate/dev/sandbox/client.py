"""A sandbox as a test holds it: a subprocess in a folder, its switches, its ledger.

with Sandbox.start(tmp_path) as sandbox:
    sandbox.behave("refund.create", drop_reply=True, calls=1)
    ...
    assert [call.acted for call in sandbox.calls("refund.create")] == [True]
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import httpx

from agentstate.dev.sandbox import ledger
from agentstate.dev.sandbox.ledger import Json, Line, Phase

START_S_MAX = 20.0
CALL_S_MAX = 10.0


@dataclass(slots=True)
class SeenCall:
    """One call as the ledger tells it. Two of them with one key mean: it was sent twice."""

    tool: str
    key: str
    attempt: int
    caller_pid: int | None
    acted: bool = False
    result: Json = None
    status: int | None = None  # of the answer; None while there is none
    note: str = ""
    phases: list[Phase] = field(default_factory=list)


class Sandbox:
    def __init__(self, folder: Path, *, port: int = 0, smtp_port: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.smtp_port = smtp_port
        self._process: subprocess.Popen[str] | None = None
        self._http = httpx.Client(timeout=CALL_S_MAX, trust_env=False)

    @classmethod
    def start(cls, folder: Path, *, port: int = 0, smtp_port: int = 0) -> Sandbox:
        """Start in this folder and wait until it takes calls. Raises: RuntimeError with what it said."""
        sandbox = cls(folder, port=port, smtp_port=smtp_port)
        sandbox.run()
        return sandbox

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    def env(self) -> dict[str, str]:
        """What an agent's process needs in its environment to find it."""
        return {"SANDBOX_PORT": str(self.port), "SANDBOX_SMTP_PORT": str(self.smtp_port)}

    def run(self) -> None:
        """Start again, on the same ports as before."""
        command = [sys.executable, "-m", "agentstate.dev.sandbox", "--dir", str(self.folder)]
        command += ["--port", str(self.port), "--smtp-port", str(self.smtp_port)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._wait_ready(self._process)

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def wait_ended(self, *, s: float) -> int:
        """The exit code, after somebody else has told it to stop. Raises: subprocess.TimeoutExpired."""
        assert self._process is not None, "not running"
        return self._process.wait(s)

    def close(self) -> None:
        self.kill()
        self._http.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # Switches

    def behave(self, tool: str, **switches: Json) -> None:
        """Replace the switches of a tool; see behaviour.Switches. Without any: back to its defaults."""
        self._http.put(f"{self.url}/behaviour/{tool}", json=switches).raise_for_status()

    def reset(self) -> None:
        self._http.post(f"{self.url}/reset").raise_for_status()

    def get(self, path: str) -> Json:
        return self._http.get(self.url + path).raise_for_status().json()

    # The oracle: read from the file, so it also works while the sandbox is down

    def ledger(self) -> list[Line]:
        return ledger.read(self.folder / "ledger.jsonl")

    def calls(self, tool: str = "", key: str | None = None) -> list[SeenCall]:
        """Every call in the order of arrival."""
        seen: dict[int, SeenCall] = {}
        for line in self.ledger():
            if tool in ("", line["tool"]) and key in (None, line["key"]):
                _add(seen, line)
        return list(seen.values())

    def acts(self, tool: str = "", key: str | None = None) -> list[SeenCall]:
        """The calls that happened."""
        return [call for call in self.calls(tool, key) if call.acted]

    def wait_for(
        self, phase: Phase, tool: str = "", key: str | None = None, *, count: int = 1, s: float = 10.0
    ) -> None:
        """Until so many calls have come to this phase. Raises: TimeoutError with the ledger's tail."""
        until = time.monotonic() + s
        while sum(phase in call.phases for call in self.calls(tool, key)) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"no {count} x {phase} of {tool or 'any tool'} in {s} s: {self.ledger()[-5:]}")
            time.sleep(0.01)

    def _wait_ready(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_S_MAX)
        line = process.stdout.readline() if readable else ""
        if not line.startswith("ready "):
            process.kill()
            raise RuntimeError(f"the sandbox did not start: {process.communicate()[1].strip() or 'it said nothing'}")
        _, http, smtp = line.split()
        self.port, self.smtp_port = urlsplit(http).port or 0, urlsplit(smtp).port or 0


def _add(seen: dict[int, SeenCall], line: Line) -> None:
    call = seen.setdefault(line["call"], SeenCall(line["tool"], line["key"], line["attempt"], line["pid"]))
    call.phases.append(line["phase"])
    if line["phase"] == "acted":
        call.acted, call.result = True, line["result"]
    if line["phase"] == "replied":
        call.status, call.note = line["status"], line["note"]
