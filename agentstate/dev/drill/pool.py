"""Workers of a drill: forked from a warm process, so that a kill costs 30 ms instead of the 2 s of an import.

The process that is killed is real: it has its own row, advisory lock, heartbeat connection, database connection and
memory, and drives the run by the same `hosting.drive` that the Celery task calls. A leader takes the messages of the
queue `drive` off the broker as a Celery worker does (acknowledged early) and keeps a watcher beside it.

    zygote (imports done, no connections)  ->  leader (one group)  ->  watcher, one child per message
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from agentstate.dev.children import dying_with_parent

Json = Any  # what json.loads gives
CHILDREN_MAX = 24
LOOK_S = 0.005
HELD_S = 0.15  # messages are gathered so long before they are handed out in another order


@dataclass(frozen=True, slots=True)
class Orders:
    """What the leader and its children are told, as files, because a message may be lost in a drill."""

    root: Path

    def write_plan(self, case_id: str, *, attempt: int, spec: str) -> None:
        _write(self._plan(case_id), {"attempt": attempt, "spec": spec})

    def take_plan(self, case_id: str, *, attempt: int) -> Json | None:
        """The failpoints to arm in this claim, once."""
        path = self._plan(case_id)
        try:
            plan = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        if plan["attempt"] != attempt:
            return None
        with suppress(FileNotFoundError):
            path.rename(path.with_suffix(".taken"))
            path.with_suffix(".pid").write_text(str(os.getpid()))
            return plan
        return None

    def pid_of(self, case_id: str) -> int:
        """The process that has armed the plan; 0 before."""
        path = self._plan(case_id).with_suffix(".pid")
        with suppress(FileNotFoundError, ValueError):
            return int(path.read_text())
        return 0

    def give_back(self, case_id: str) -> None:
        """The run was not free, so nothing was tried."""
        with suppress(FileNotFoundError):
            self._plan(case_id).with_suffix(".taken").rename(self._plan(case_id))

    def trace(self, case_id: str, attempt: int) -> Path:
        return self.root / "trace" / f"{case_id}.{attempt}"

    def deliver(self, how: str) -> None:
        """lost | doubled | reordered; empty: as they come."""
        _write(self.root / "deliver", how)

    def how_to_deliver(self) -> str:
        path = self.root / "deliver"
        return str(json.loads(path.read_text())) if path.exists() else ""

    def arm_watcher(self, spec: str) -> None:
        _write(self.root / "watcher", spec)

    def watcher_hits(self) -> list[str]:
        path = self.root / "trace" / "watcher"
        return path.read_text().split() if path.exists() else []

    def watcher_pid(self) -> int:
        path = self.root / "watcher.pid"
        return int(json.loads(path.read_text())) if path.exists() else 0

    def take_watcher_spec(self) -> str:
        path = self.root / "watcher"
        if not path.exists():
            return ""
        spec = str(json.loads(path.read_text()))
        path.unlink()
        return spec

    def _plan(self, case_id: str) -> Path:
        return self.root / "plans" / f"{case_id}.json"


class Zygote:
    """The conductor's hand on it: forks leaders, and processes that do one thing and may die of it."""

    def __init__(self, orders: Orders) -> None:
        for name in ("plans", "trace"):
            (orders.root / name).mkdir(parents=True, exist_ok=True)
        self._orders = orders
        ours, theirs = socket.socketpair()
        prepare = dying_with_parent(signal.SIGKILL)
        self.pid = os.fork()
        if self.pid == 0:
            prepare()
            ours.close()
            _serve(theirs, orders)
            os._exit(0)
        theirs.close()
        self._line = ours.makefile("rw")

    def lead(self, *, host: str = "", mutant: str = "") -> int:
        """Start a worker group. Returns the leader's pid, which is the group's number too."""
        return int(self._ask({"do": "lead", "host": host, "mutant": mutant})["pid"])

    def warm_up(self, tenant_id: UUID) -> None:
        """Drive one run in the zygote itself: its children find every cache filled, as in a worker of an hour."""
        self._ask({"do": "warm", "tenant_id": str(tenant_id)})

    def act(self, verb: str, *, spec: str, arguments: dict[str, Json]) -> int:
        """Have a person's request carried out by a process of its own. Returns its exit code; -9: it was killed."""
        return int(self._ask({"do": verb, "spec": spec, "arguments": arguments})["code"])

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _ask(self, order: Json) -> Json:
        self._line.write(json.dumps(order) + "\n")
        self._line.flush()
        return json.loads(self._line.readline())


def _serve(line: socket.socket, orders: Orders) -> None:
    talk = line.makefile("rw")
    for order in talk:
        asked = json.loads(order)
        if asked["do"] == "lead":
            answer: Json = {"pid": _fork(partial(_lead, orders, asked["host"], asked["mutant"]))}
        elif asked["do"] == "warm":
            answer = {"status": _warm(UUID(asked["tenant_id"]))}
        else:
            pid = _fork(partial(_person, asked))
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}
        talk.write(json.dumps(answer) + "\n")
        talk.flush()
        _reap()


def _warm(tenant_id: UUID) -> str:
    """Nothing that is open may stay open: children would share it."""
    from django.db import connections

    from agentstate.db import wake
    from agentstate.dev.drill import people
    from runs.engine import hosting

    wake._broker_rests_until = float("inf")
    run_id = people.admit("warm", {"effect": "pure", "timing": "fast"})
    status = hosting.drive(tenant_id, run_id)
    hosting.this_process(os.getpid()).presence.close()
    hosting.this_process.cache_clear()
    wake._client.cache_clear()
    wake._broker_rests_until = 0.0
    connections.close_all()
    return status


def _person(asked: Json) -> None:
    from agentstate.core import failpoints
    from agentstate.dev.drill import people

    failpoints.HITS.clear()  # of the zygote
    failpoints._armed = failpoints.parse(asked["spec"])
    people.VERBS[asked["do"]](**asked["arguments"])


def _fork(work: Callable[[], None]) -> int:
    """A child that does this and ends; it dies with us. What it raises stands in the drill's log."""
    prepare = dying_with_parent(signal.SIGKILL)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        prepare()
        random.seed()
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def _reap() -> list[int]:
    ended = []
    with suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) > 0:
            ended.append(pid)
    return ended


# The leader


def _lead(orders: Orders, host: str, mutant: str) -> None:
    from django.db import connections

    from agentstate.dev.drill import mutants

    os.setpgid(0, 0)
    if host:
        connections.settings["default"]["HOST"] = host
    os.environ["AGENTSTATE_MUTANT"] = mutant
    mutants.apply()
    _Leader(orders).run()


class _Leader:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._children: set[int] = set()
        self._seen: set[str] = set()
        self._held: list[list[str]] = []
        self._held_since = 0.0
        self._watcher = 0

    def run(self) -> None:
        from django.conf import settings
        from kombu import Connection, Queue

        with Connection(settings.BROKER_URL) as broker:
            queue = Queue("drive")(broker.channel())
            queue.declare()
            while True:
                self._keep()
                message = queue.get(no_ack=True) if len(self._children) < CHILDREN_MAX else None
                if message is not None:
                    self._take(message.payload[0])
                self._release()
                if message is None:
                    time.sleep(LOOK_S)

    def _keep(self) -> None:
        self._children.difference_update(_reap())
        if not self._watcher or not _lives(self._watcher):
            spec = self._orders.take_watcher_spec()
            self._watcher = _fork(lambda: _watch(spec, self._orders.root / "trace" / "watcher"))
            _write(self._orders.root / "watcher.pid", self._watcher)

    def _take(self, arguments: list[str]) -> None:
        how = self._orders.how_to_deliver()
        run_id = arguments[1]
        if how == "lost" and run_id not in self._seen:
            self._seen.add(run_id)
        elif how == "reordered":
            self._held_since = self._held_since or time.monotonic()
            self._held.append(arguments)
        else:
            for _ in range(3 if how == "doubled" else 1):
                self._drive(arguments)

    def _release(self) -> None:
        if self._held and time.monotonic() > self._held_since + HELD_S:
            for arguments in reversed(self._held):
                self._drive(arguments)
            self._held, self._held_since = [], 0.0

    def _drive(self, arguments: list[str]) -> None:
        self._children.add(_fork(lambda: _drive(self._orders, *map(UUID, arguments))))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _watch(spec: str, trace: Path) -> None:
    from agentstate.core import failpoints
    from runs.engine.watching import Watcher

    failpoints.HITS.clear()
    failpoints._trace = str(trace)
    failpoints._armed = failpoints.parse(spec)
    Watcher().run()


def _drive(orders: Orders, tenant_id: UUID, run_id: UUID) -> None:
    from agentstate.core import failpoints
    from agentstate.db import sql
    from agentstate.tenants.scope import tenant_scope
    from runs.engine import hosting

    with tenant_scope(tenant_id):
        found = sql.row("SELECT external_id, attempt + 1 FROM runs_run WHERE id = %s", [run_id])
    if found is None:
        return
    case_id, attempt = found
    plan = orders.take_plan(case_id, attempt=attempt)
    failpoints._trace = str(orders.trace(case_id, attempt))
    failpoints._armed = failpoints.parse(plan["spec"] if plan else "")
    failpoints.HITS.clear()
    if hosting.drive(tenant_id, run_id) == "not free" and plan:
        orders.give_back(case_id)


def _write(path: Path, content: Json) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(json.dumps(content))
    beside.replace(path)
