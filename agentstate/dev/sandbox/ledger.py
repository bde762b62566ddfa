"""The ledger: one JSON line per fact, appended in order to `ledger.jsonl`. It is the only store of the sandbox.

accepted   the call has arrived; fsynced before anything else is done with it
acted      the act itself: balances, notes and mails are the sum of these lines, so an act is whole or absent
replied    the answer was handed to the caller's connection (or the connection was dropped on purpose)
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Phase = Literal["accepted", "acted", "replied"]
Json = Any  # what json.loads gives
Line = dict[str, Json]
LINES_MAX = 500_000  # about 0.5 GB of memory; POST /reset empties it


@dataclass(frozen=True, slots=True)
class Call:
    """One request that may act. `key` is the idempotency key, "" when the caller sent none."""

    tool: str
    key: str
    payload: Json
    caller_pid: int | None = None
    number: int = 0  # of this call in the ledger; given on acceptance
    attempt: int = 0  # how often this tool was called with this key, this call included


class LedgerFull(Exception):
    """The line could not be kept, so the call is not taken."""


def payload_digest(payload: Json) -> str:
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class Ledger:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []
        self._lock = threading.RLock()
        self._attempts: dict[tuple[str, str], int] = {}
        self._acts: dict[tuple[str, str], Line] = {}
        self._calls = 0
        for line in _whole_lines(path):
            self._remember(line)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def accept(self, call: Call) -> Call:
        """Write the call down before anything is done about it; gives it back numbered. Raises: LedgerFull."""
        with self._lock:
            if len(self.lines) >= LINES_MAX:
                raise LedgerFull(f"The ledger has {LINES_MAX} lines; POST /reset empties it.")
            attempt = self._attempts.get((call.tool, call.key), 0) + 1
            numbered = Call(call.tool, call.key, call.payload, call.caller_pid, self._calls + 1, attempt)
            self._append("accepted", numbered, {"payload_sha": payload_digest(call.payload)}, sync=True)
            return numbered

    def act(self, call: Call, decide: Callable[[], Json]) -> Json:
        """Do it: `decide` checks the rules under the lock and gives the result, which becomes true by being written.

        Raises: whatever `decide` raises, LedgerFull; then nothing has happened.
        """
        with self._lock:
            result = decide()
            more = {"payload_sha": payload_digest(call.payload), "result": result}
            self._append("acted", call, more, sync=True)
            return result

    def reply(self, call: Call, *, status: int, note: str) -> None:
        with self._lock:  # no fsync: nothing rests on this line
            self._append("replied", call, {"status": status, "note": note}, sync=False)

    def newest_act(self, tool: str, key: str, *, within_s: float | None = None) -> Line | None:
        """The last act under this key, at most `within_s` seconds old."""
        with self._lock:
            line = self._acts.get((tool, key)) if key else None
        if line is None or (within_s is not None and time.time() - float(line["at_s"]) > within_s):
            return None
        return line

    def acts(self, tool: str) -> list[Line]:
        with self._lock:
            return [line for line in self.lines if line["phase"] == "acted" and line["tool"] == tool]

    def find(self, **wanted: str) -> list[Line]:
        """Lines with these fields, oldest first."""
        with self._lock:
            return [line for line in self.lines if all(line[name] == text for name, text in wanted.items())]

    def clear(self) -> None:
        with self._lock:
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
            self.lines, self._attempts, self._acts, self._calls = [], {}, {}, 0

    def _append(self, phase: Phase, call: Call, more: Line, *, sync: bool) -> None:
        at_s = time.time()
        line: Line = {
            "n": len(self.lines) + 1,
            "time": datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds"),
            "at_s": at_s,
            "phase": phase,
            "call": call.number,
            "tool": call.tool,
            "key": call.key,
            "attempt": call.attempt,
            "pid": call.caller_pid,
            **more,
        }
        self._write(json.dumps(line).encode() + b"\n", sync=sync)
        self._remember(line)

    def _write(self, raw: bytes, *, sync: bool) -> None:
        """All of it or nothing. Raises: LedgerFull on a full or failing disk."""
        size = os.fstat(self._file).st_size
        try:
            _write_all(self._file, raw)
            if sync:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)  # half a line would swallow the next one
            raise LedgerFull(f"The ledger cannot be written: {error.strerror}.") from error

    def _remember(self, line: Line) -> None:
        self.lines.append(line)
        where = (line["tool"], line["key"])
        self._calls = max(self._calls, line["call"])
        if line["phase"] == "accepted":
            self._attempts[where] = self._attempts.get(where, 0) + 1
        if line["phase"] == "acted":
            self._acts[where] = line


def read(path: Path) -> list[Line]:
    """Every whole line of a ledger file; works while the sandbox is down."""
    if not path.exists():
        return []
    raw = path.read_bytes()
    return [json.loads(line) for line in raw.split(b"\n")[:-1]]


def _whole_lines(path: Path) -> Iterator[Line]:
    """Cut off a last line that a crash left half written: it was not finished, so it did not happen."""
    if not path.exists():
        return
    raw = path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        os.truncate(path, whole)
    for line in raw[:whole].split(b"\n")[:-1]:
        yield json.loads(line)


def _write_all(file: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(file, rest) :]
