"""Starting worlds from outside: one process group each, read line by line, ended for certain."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentstate.dev.children import dying_with_parent
from agentstate.dev.drill.cases import Case
from agentstate.dev.drill.pace import lease_for_this_machine

Json = Any  # what json.loads gives
GRACE_S = 180.0  # a world's start, its last wave and its end
TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Order:
    """A world and what is tried in it. `durable`: Postgres fsyncs; `proxied`: replies of commits can be lost."""

    select: Sequence[Mapping[str, Json]]
    mutant: str = ""
    durable: bool = False
    proxied: bool = False
    shard: tuple[int, int] = (0, 1)
    size: int = 6  # cases side by side
    seconds: float = 600.0  # no further wave is begun after it
    lease_s: float = 0.0  # 0: what this machine can keep now


@dataclass(frozen=True, slots=True)
class Result:
    case: Case
    hit: bool
    unfair: bool
    violations: list[str]
    doubts: int
    claims: int
    seconds: float


@dataclass(slots=True)
class Report:
    results: list[Result] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)  # broken invariants
    broken: list[str] = field(default_factory=list)  # worlds that did not come to their end: the drill itself failed
    trace: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # of all failpoints
    left_out: int = 0

    def add(self, other: Report) -> None:
        self.results += other.results
        self.findings += other.findings
        self.broken += other.broken
        self.left_out += other.left_out
        self.trace |= other.trace
        self.names = self.names or other.names

    @property
    def bad(self) -> list[Result]:
        return [result for result in self.results if result.violations and not result.unfair]

    @property
    def is_clean(self) -> bool:
        return not self.bad and not self.findings and not self.broken

    @property
    def has_noticed(self) -> bool:
        """Whether something about the runtime was found; a world that broke tells nothing."""
        return bool(self.bad or self.findings) and not self.broken


def run(order: Order) -> Report:
    """One world from start to end. A world that does not end in time is killed, and that is a finding."""
    root = Path(tempfile.mkdtemp(prefix="agentstate-drill-"))
    try:
        return _collect(order, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _collect(order: Order, root: Path) -> Report:
    spec = {
        name: getattr(order, name) for name in ("select", "mutant", "durable", "proxied", "shard", "size", "seconds")
    }
    spec |= {"root": str(root / "world"), "lease_s": order.lease_s or lease_for_this_machine()}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    world = subprocess.Popen(
        [sys.executable, "-m", "agentstate.dev.drill", json.dumps(spec)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        preexec_fn=dying_with_parent(signal.SIGKILL),
    )  # fmt: skip
    watchdog = threading.Timer(order.seconds + GRACE_S, _end_group, [world.pid])
    watchdog.start()
    assert world.stdout is not None
    report = read(world.stdout)
    _, said = world.communicate()
    watchdog.cancel()
    _end_group(world.pid)
    if world.returncode != 0:
        report.broken.append(f"the world ended with {world.returncode}: {said.strip()} {_tail(root / 'world' / 'log')}")
    return report


def read(lines: Iterable[str]) -> Report:
    report = Report()
    for line in map(json.loads, lines):
        if "case" in line:
            report.results.append(Result(**{**line, "case": Case(**line["case"])}))
        report.findings += line.get("world", [])
        report.trace |= line.get("trace", {})
        report.names = report.names or line.get("names", [])
        report.left_out += line.get("left_out", 0)
    return report


def in_shards(order: Order, shards: int) -> Iterator[Order]:
    """The same cases over several worlds, since one world's tables and ledger grow."""
    for shard in range(shards):
        yield Order(
            order.select, order.mutant, order.durable, order.proxied, (shard, shards), order.size, order.seconds,
            order.lease_s,
        )  # fmt: skip


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:]) if log.exists() else ""
