"""The supervisor: what it starts is alive, and gone when it must be gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentstate.dev.children import dying_with_parent
from agentstate.dev.processes import Keeper, Relay, Service
from agentstate.dev.servers import CannotStart


def service(script: str, *, marker: Path, **options: object) -> Service:
    """A shell script that is ready when it has written its pid into `marker`."""
    command = ["sh", "-c", f"{script}"]

    async def ready(pid: int) -> bool:
        return marker.exists() and marker.read_text().strip() == str(pid)

    return Service("test", command, ready, {"MARKER": str(marker)}, **options)  # type: ignore[arg-type]


def until(holds: Callable[[], bool], *, timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_service_that_falls_over_is_started_again_at_once(tmp_path: Path) -> None:
    marker = tmp_path / "pid"

    async def scenario() -> None:
        keeper = Keeper(service("echo $$ > $MARKER; exec sleep 60", marker=marker), Relay())
        await keeper.start()
        first = marker.read_text()
        os.kill(int(first), signal.SIGKILL)
        async with asyncio.timeout(5):
            while marker.read_text() in {first, ""}:
                await asyncio.sleep(0.01)
        await keeper.stop(asyncio.Event())

    asyncio.run(scenario())
    assert not alive(int(marker.read_text()))


def test_a_service_that_ends_at_once_is_one_sentence(tmp_path: Path) -> None:
    keeper = Keeper(service("exit 3", marker=tmp_path / "pid"), Relay())
    with pytest.raises(CannotStart, match=r"test ended at once \(code 3\)"):
        asyncio.run(keeper.start())


def test_a_hurried_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    async def scenario() -> None:
        deaf = "trap '' TERM; echo $$ > $MARKER; while :; do sleep 0.05; done"
        keeper = Keeper(service(deaf, marker=tmp_path / "pid"), Relay())
        await keeper.start()
        hard = asyncio.Event()
        stopping = asyncio.create_task(keeper.stop(hard))
        await asyncio.sleep(0.1)
        assert not stopping.done(), "it was to wait for the service"
        hard.set()
        async with asyncio.timeout(5):
            await stopping

    asyncio.run(scenario())
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_line_longer_than_the_limit_does_not_end_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agentstate.dev.processes.LINE_BYTES_MAX", 1000)
    script = "head -c 9000 /dev/zero | tr '\\0' x; echo; echo after; echo $$ > $MARKER; exec sleep 60"

    async def scenario() -> None:
        keeper = Keeper(service(script, marker=tmp_path / "pid"), Relay())
        await keeper.start()
        async with asyncio.timeout(5):
            while "after" not in capsys.readouterr().out:
                await asyncio.sleep(0.01)
        await keeper.stop(asyncio.Event())

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
@pytest.mark.parametrize("as_nobody", [False, os.geteuid() == 0])
def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path, as_nobody: bool) -> None:
    script = f"""
        import signal, subprocess, time
        from pathlib import Path
        from agentstate.dev.children import dying_with_parent
        child = subprocess.Popen(["sleep", "60"], start_new_session=True,
                                 preexec_fn=dying_with_parent(signal.SIGKILL, as_nobody={as_nobody}))
        Path({str(tmp_path / "new")!r}).write_text(str(child.pid))
        Path({str(tmp_path / "new")!r}).rename({str(tmp_path / "pid")!r})
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], preexec_fn=dying_with_parent(signal.SIGKILL)
    ) as parent:
        until((tmp_path / "pid").exists)
        child = int((tmp_path / "pid").read_text())
        os.kill(child, 0)
        parent.kill()
    until(lambda: not alive(child))


def alive(pid: int) -> bool:
    """A zombie that nobody reaps is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
