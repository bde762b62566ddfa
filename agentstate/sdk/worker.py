"""`st.worker`: a supervisor process that forks children; each child drives one run at a time.

A child claims by long poll. SIGTERM or SIGINT: no new claims, each child gives its run back at the next step boundary;
a second signal ends at once. A child that ended by itself (a stuck call, a crash in foreign code) is replaced.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from agentstate.core.errors import DomainError, Fenced
from agentstate.sdk.agents import Agent
from agentstate.sdk.client import default_store
from agentstate.sdk.executor import Driven, Executor
from agentstate.sdk.lease import RENEWALS_PER_LEASE
from agentstate.sdk.store import AgentSpec, Claim, RunStore, WorkerInfo

POLL_S = 5.0  # also the longest time an idle child takes to notice a stop
AWAY_S_MAX = 15.0
RESTART_S = 0.5
_RESTART_S_MAX = 30.0
REFUSED_EXIT_CODE = 78  # EX_CONFIG: starting again mends nothing
_LIVED_S = 10.0  # a child that lived so long restarts at once


def worker(*agents: Agent, store: RunStore | None = None, concurrency: int = 1, name: str = "") -> None:
    """Execute runs of these agents until told to stop. Call it from the main thread, before threads are started.

    A `store` of yours is used by every child: hand over an unused one, its connections cannot be shared.
    Raises: SystemExit when the service refuses the agents (a wrong key, a schema it cannot take).
    """
    if not agents:
        raise ValueError("Name the agents this worker hosts: st.worker(main).")
    if store is None:
        default_store()  # says at once what is missing
    Supervisor(Hosted.of(agents), store=store, count=concurrency, name=name).run()


@dataclass(frozen=True, slots=True)
class Hosted:
    """Agents by name, with what the service is told about them."""

    agents: Mapping[str, Agent]
    specs: Mapping[str, AgentSpec]

    @classmethod
    def of(cls, agents: tuple[Agent, ...]) -> Hosted:
        return cls({agent.name: agent for agent in agents}, {agent.name: agent.spec() for agent in agents})


def serve_one(
    store: RunStore,
    hosted: Hosted,
    *,
    info: WorkerInfo,
    run_id: str = "",
    wait_s: float = 0.0,
    on_claimed: Callable[[Executor], None] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    **options: Any,
) -> Driven | None:
    """Claim one run and drive it: for this module and for every other host. None: nothing was due.

    `options` are the executor's. Raises: what the service raises for the claim.
    """
    asked_at = monotonic()
    claim = store.claim(info, agents=hosted.specs, run_id=run_id, wait_s=wait_s)
    if claim is None:
        return None
    asked_at = _renewed(store, claim, asked_at, monotonic)
    executor = Executor(store, claim, hosted.agents[claim.agent], asked_at=asked_at, monotonic=monotonic, **options)
    if on_claimed is not None:
        on_claimed(executor)
    return executor.run()


def worker_info(name: str = "") -> WorkerInfo:
    """This process, told apart from every other one for ever by boot id and start time."""
    host = socket.gethostname()
    return WorkerInfo(
        name or f"{host}:{os.getpid()}",
        host=host,
        pid=os.getpid(),
        boot_id=_read(Path("/proc/sys/kernel/random/boot_id")),
        pid_start=_pid_start(),
    )


class Supervisor:
    """Keeps `count` children alive. Invariant: only children touch runs; the supervisor never opens the store."""

    def __init__(self, hosted: Hosted, *, store: RunStore | None, count: int, name: str) -> None:
        self._hosted, self._store = hosted, store
        self._count, self._name = count, name
        self._children: dict[int, float] = {}  # pid -> monotonic time of birth
        self._stops = 0
        self._pause_s = RESTART_S
        self._is_refused = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while not self._stops:
            while len(self._children) < self._count and not self._stops:
                self._fork()
            self._reap()
        while self._children:
            self._reap()
        if self._is_refused:
            raise SystemExit(REFUSED_EXIT_CODE)

    def _fork(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._children[pid] = time.monotonic()
            return
        code = 1
        try:
            code = Child(self._hosted, store=self._store, name=self._name).run()
        except Exception as error:
            _say(f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)

    def _reap(self) -> None:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            self._children.clear()
            return
        born_at = self._children.pop(pid, None)
        if os.waitstatus_to_exitcode(status) == REFUSED_EXIT_CODE:
            self._is_refused = True
            self._on_signal(signal.SIGTERM, None)
        if born_at is None or self._stops:
            return
        _say(f"child {pid} ended with {_ending(status)}, restarting")
        self._slow_down(time.monotonic() - born_at)

    def _slow_down(self, lived_s: float) -> None:
        if lived_s > _LIVED_S:
            self._pause_s = RESTART_S
            return
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _RESTART_S_MAX)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1
        for pid in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if self._stops == 1 else signal.SIGKILL)


@dataclass(slots=True)
class Child:
    """Claims and drives until it is told to stop."""

    hosted: Hosted
    store: RunStore | None = None
    name: str = ""
    _stopping: bool = field(default=False, init=False)
    _executor: Executor | None = field(default=None, init=False)

    def run(self) -> int:
        """The exit code."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor passes it on
        store = self.store or default_store()
        info = worker_info(self.name)
        is_registered, pause_s = False, RESTART_S
        while not self._stopping:
            try:
                is_registered = is_registered or self._register(store)
                serve_one(store, self.hosted, info=info, wait_s=POLL_S, on_claimed=self._claimed)
                pause_s = RESTART_S
            except DomainError as error:
                _say(str(error))
                if not is_registered and error.http_status < 500:
                    return REFUSED_EXIT_CODE
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, AWAY_S_MAX)
            self._executor = None
        return 0

    def _register(self, store: RunStore) -> bool:
        for spec in self.hosted.specs.values():
            store.register(spec)
        return True

    def _claimed(self, executor: Executor) -> None:
        self._executor = executor
        if self._stopping:
            executor.shut_down()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._executor is not None:
            self._executor.shut_down()


def _renewed(store: RunStore, claim: Claim, asked_at: float, monotonic: Callable[[], float]) -> float:
    """The lease began somewhere inside a long poll; asking again tells from when it may be trusted."""
    if monotonic() - asked_at < claim.lease_s / RENEWALS_PER_LEASE:
        return asked_at
    again_at = monotonic()
    try:
        store.renew(claim)
    except Fenced:
        return asked_at
    return again_at


def _say(text: str) -> None:
    print(f"agentstate worker {os.getpid()}: {text}", file=sys.stderr, flush=True)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _pid_start() -> int:
    # Field 22 of /proc/<pid>/stat; the name in field 2 may hold spaces and brackets.
    fields = _read(Path("/proc/self/stat")).rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def _ending(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.waitstatus_to_exitcode(status)}"
