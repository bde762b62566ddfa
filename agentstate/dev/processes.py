"""A supervisor of a dozen lines per duty: start in order, wait until ready, relay output, restart, stop.

Children die with us (children.py); what remains here is to stop them politely and to start again what fell over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentstate.dev.children import dying_with_parent
from agentstate.dev.servers import CannotStart

LINE_BYTES_MAX = 1 << 20
FIRST_RESTART_S = 0.1
RESTART_S_MAX = 30.0
STEADY_S = 30.0  # alive this long: the next restart is a first one again
READY_S_MAX = 60.0
PROBE_EVERY_S = 0.03
COLOURS = (36, 33, 35, 32, 34, 31)


@dataclass(frozen=True)
class Service:
    """One process that must be alive."""

    name: str
    command: Sequence[str]
    ready: Callable[[int], Awaitable[bool]]  # given its pid
    environment: Mapping[str, str] = field(default_factory=dict)
    preexec: Callable[[], None] | None = None  # None: dies by SIGKILL with us; an orphan must not go on working
    before_start: Callable[[], None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_s_max: float = 30.0
    log: Path | None = None  # a file for its output; None relays it with a prefix


class Relay:
    """Lines of many children on one output, each with the name of its service."""

    def __init__(self, width: int = 9) -> None:
        self._width = width
        self._colours: dict[str, int] = {}

    def say(self, name: str, line: str) -> None:
        prefix = f"{name:<{self._width}}|"
        if sys.stdout.isatty():
            colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        with contextlib.suppress(BrokenPipeError):
            print(f"{prefix} {line}", flush=True)

    async def follow(self, name: str, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line over the limit: go on, or the child blocks on a full pipe
                continue
            if not line:
                return
            self.say(name, line.decode(errors="replace").rstrip())


class Keeper:
    """Keeps one service alive from start() until stop()."""

    def __init__(self, service: Service, relay: Relay) -> None:
        self.service = service
        self._relay = relay
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0
        self._pause_s = FIRST_RESTART_S
        self._watch: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Return when the service answers. Raises: CannotStart."""
        await self._spawn()
        await self._until_ready()
        self._watch = asyncio.create_task(self._restart_when_gone())

    async def stop(self, hard: asyncio.Event) -> None:
        """Stop politely; by SIGKILL as soon as `hard` is set or its time is over. Idempotent."""
        if self._watch:
            self._watch.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(self.service.stop_signal)
        gone, impatient = asyncio.create_task(process.wait()), asyncio.create_task(hard.wait())
        await asyncio.wait({gone, impatient}, timeout=self.service.stop_s_max, return_when=asyncio.FIRST_COMPLETED)
        impatient.cancel()
        self._kill_group(process)  # what is left of it, pool children included
        await gone

    async def _spawn(self) -> None:
        service = self.service
        await asyncio.to_thread(service.before_start)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(service.log.open("ab")) if service.log else asyncio.subprocess.PIPE
            # Always from the main thread: the parent-death signal follows the thread that forks.
            self._process = await asyncio.create_subprocess_exec(
                *service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **service.environment},
                start_new_session=True,
                preexec_fn=service.preexec or dying_with_parent(signal.SIGKILL),
                limit=LINE_BYTES_MAX,
            )
        self._started_at = time.monotonic()
        if self._process.stdout:
            task = asyncio.create_task(self._relay.follow(service.name, self._process.stdout))
            self._following.add(task)
            task.add_done_callback(self._following.discard)

    async def _until_ready(self) -> None:
        process = self._process
        assert process
        while not await self.service.ready(process.pid):
            if process.returncode is not None:
                raise CannotStart(f"{self.service.name} ended at once (code {process.returncode}).{self._last_lines()}")
            if time.monotonic() - self._started_at > READY_S_MAX:
                raise CannotStart(f"{self.service.name} did not answer within {READY_S_MAX:.0f} s.{self._last_lines()}")
            await asyncio.sleep(PROBE_EVERY_S)

    async def _restart_when_gone(self) -> None:
        while True:
            assert self._process
            code = await self._process.wait()
            self._kill_group(self._process)
            if time.monotonic() - self._started_at > STEADY_S:
                self._pause_s = FIRST_RESTART_S
            self._relay.say(self.service.name, f"ended (code {code}); starting again in {self._pause_s:g} s")
            await asyncio.sleep(self._pause_s)
            self._pause_s = 1.0 if self._pause_s < 1 else min(2 * self._pause_s, RESTART_S_MAX)
            await self._spawn()

    def _last_lines(self) -> str:
        if not self.service.log:
            return ""
        return "\n" + "\n".join(self.service.log.read_text(errors="replace").splitlines()[-8:])

    @staticmethod
    def _kill_group(process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


async def stop_all(keepers: Sequence[Keeper], hard: asyncio.Event) -> None:
    await asyncio.gather(*(keeper.stop(hard) for keeper in keepers))
