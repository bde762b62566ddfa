"""Where the time of a turn goes: codec, the engine's Python, SQL without the commit, the commit, hints; its CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from agentstate.db import wake
from agentstate.dev.bench.contenders import Ours
from checkpoints.writing import FrameWriter
from runs.engine import turns
from runs.engine.session import RunSession


class Stopwatch:
    """Seconds spent in each of a few functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def around(self, owner: Any, name: str, *, into: str) -> Iterator[None]:
        real: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                self.seconds[into] = self.seconds.get(into, 0.0) + time.perf_counter() - started

        with mock.patch.object(owner, name, timed):
            yield


def measure(size: int, *, steps: int) -> dict[str, Any]:
    """Milliseconds per turn: whole, codec, sql, commit, hints, and what is left."""
    waiting, plain = Ours(size), Ours(size, commits_wait=False)
    for contender in (waiting, plain):
        contender.get_ready(steps + 20)
        contender.take(20)
    before = _cpu_s()
    whole, watch = _timed(waiting, steps)
    cpu = [after - earlier for after, earlier in zip(_cpu_s(), before, strict=True)]
    _, unwaited = _timed(plain, steps)
    parts = {
        "whole": whole,
        "codec": watch.seconds["codec"],
        "sql": unwaited.seconds["sql"],
        "commit": watch.seconds["sql"] - unwaited.seconds["sql"],
        "hints": watch.seconds.get("hints", 0.0),
    }
    parts["engine"] = whole - watch.seconds["codec"] - watch.seconds["sql"] - parts["hints"]
    parts["cpu"], parts["postgres_cpu"] = cpu
    return {name: seconds * 1_000 / steps for name, seconds in parts.items()}


def _cpu_s() -> tuple[float, float]:
    """Processor seconds of this process and of its Postgres backend so far: what a busy machine does not change."""
    from django.db import connection

    connection.ensure_connection()
    schedule = Path(f"/proc/{connection.connection.info.backend_pid}/schedstat")
    return time.process_time(), int(schedule.read_text().split()[0]) / 1e9 if schedule.exists() else 0.0


def _timed(contender: Ours, steps: int) -> tuple[float, Stopwatch]:
    watch = Stopwatch()
    with (
        watch.around(turns, "PLAIN_TURN", into="sql"),
        watch.around(turns, "TURN", into="sql"),
        watch.around(FrameWriter, "prepare", into="codec"),
        watch.around(RunSession, "seal_step", into="codec"),
        watch.around(wake, "publish", into="hints"),
    ):
        started = time.perf_counter()
        contender.take(steps)
        return time.perf_counter() - started, watch
