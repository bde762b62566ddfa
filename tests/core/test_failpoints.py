from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentstate.core import failpoints

HERE = failpoints.register("test.here", "nothing, and nothing")
PROGRAM = """
import sys
from agentstate.core import failpoints
failpoints.register("a", "x, y"); failpoints.register("b", "x, y")
for name in sys.argv[1]: failpoints.hit(name); print(name, flush=True)
"""


def start(armed: str, hits: str, trace: Path | None = None) -> subprocess.Popen[str]:
    variables = {**os.environ, "AGENTSTATE_FAILPOINTS": armed, "AGENTSTATE_FAILPOINT_TRACE": str(trace or "")}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, hits], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_an_unarmed_failpoint_does_nothing_but_count() -> None:
    before = failpoints.HITS[HERE]
    failpoints.hit(HERE)
    assert failpoints.HITS[HERE] == before + 1


def test_a_failpoint_that_nobody_registered_is_a_programmers_error() -> None:
    with pytest.raises(AssertionError, match=r"test\.nowhere"):
        failpoints.hit("test.nowhere")


def test_one_name_stands_for_one_place() -> None:
    failpoints.register(HERE, "nothing, and nothing")
    with pytest.raises(AssertionError):
        failpoints.register(HERE, "somewhere else")


@pytest.mark.parametrize("spec", ["a", "a=", "a=explode", "a=kill@x", "a=sleep:long", "a:kill"])
def test_a_spec_that_arms_nothing_is_refused(spec: str) -> None:
    with pytest.raises(ValueError):
        failpoints.parse(spec)


def test_raise_happens_inside_the_block_only() -> None:
    with failpoints.armed(f"{HERE}=raise"), pytest.raises(failpoints.FailpointReached):
        failpoints.hit(HERE)
    failpoints.hit(HERE)


def test_the_nth_hit_counts_from_arming() -> None:
    failpoints.hit(HERE)
    with failpoints.armed(f"{HERE}=raise@2"):
        failpoints.hit(HERE)
        with pytest.raises(failpoints.FailpointReached):
            failpoints.hit(HERE)
        failpoints.hit(HERE)


def test_sleep_takes_its_time() -> None:
    began = time.monotonic()
    with failpoints.armed(f"{HERE}=sleep:0.05"):
        failpoints.hit(HERE)
    assert time.monotonic() - began >= 0.05


def test_exit_is_an_orderly_end() -> None:
    with failpoints.armed(f"{HERE}=exit"), pytest.raises(SystemExit):
        failpoints.hit(HERE)


def test_kill_on_the_third_hit_from_the_environment(tmp_path: Path) -> None:
    process = start("b=raise@9, a=kill@3", "aabaaa", tmp_path / "trace")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    assert out.split() == ["a", "a", "b"]
    # The hit that killed it is in the trace: it is written before the act.
    assert (tmp_path / "trace").read_text().split() == ["a", "a", "b", "a"]


def test_stop_freezes_until_continued() -> None:
    process = start("a=stop", "ab")
    os.waitpid(process.pid, os.WUNTRACED)  # returns when it has stopped
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out.split() == ["a", "b"]


def test_a_misspelt_variable_stops_the_process_at_its_start() -> None:
    process = start("a=kil", "a")
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "is no failpoint" in error
