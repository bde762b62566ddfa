"""The bench still runs and says what it should. Its figures are judged where a machine has nothing else to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentstate.dev.bench import options
from agentstate.dev.bench.report import Figure, percentile, summary
from agentstate.dev.plan import CHECKOUT

LINE = re.compile(r"^(?P<name>.+?) {2,}(?P<value>[\d.,]+) \S+ +(<=|>=) .+ (reached|MISSED)")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def said(state: Path) -> str:
    """What a tiny bench prints: many processes, so it is run once."""
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment |= {"AGENTSTATE_STATE_DIR": str(state), "AGENTSTATE_NO_VENV": "1"}
    command = [sys.executable, "manage.py", "bench", "--tiny", "--only=steps", "--only=append", "--only=frames"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_figure_stands_beside_its_target(said: str) -> None:
    names = [found["name"].strip() for line in said.splitlines() if (found := LINE.match(line))]
    assert "step, 2 KB state, alone / floor" in names
    assert "step, 50 KB state, 2 processes / floor" in names
    assert "append of 1 KB to the scratchpad, p95" in names
    assert "200 steps that add 2 KB each: frames" in names
    shares = re.findall(r"where a step of \S+ KB goes, ms: codec [\d.]+, engine [\d.]+, sql [\d.]+, commit", said)
    assert len(shares) == 2
    assert re.search(r"/ dbos +[\d.]+ x", said) or "dbos is not installed" in said
    assert "targets reached" in said.splitlines()[-1]


def test_the_growing_state_stays_small_on_disk(said: str) -> None:
    """The one figure that no busy machine can spoil."""
    (line,) = [line for line in said.splitlines() if line.startswith("200 steps")]
    assert "reached" in line


def test_no_server_and_no_folder_is_left_behind(said: str, state: Path) -> None:
    assert said
    assert list(state.glob("bench-*")) == []


@pytest.mark.parametrize(("value", "at_least", "word"), [(1.9, False, "reached"), (2.1, False, "MISSED")])
def test_a_missed_target_is_said(value: float, at_least: bool, word: str) -> None:
    figure = Figure("a step", value, "x", 2.0, at_least)
    assert word in figure.line()
    assert ("a step" in summary([figure])) == (word == "MISSED")


def test_more_is_better_where_it_is() -> None:
    assert Figure("steps/s", 3.1, "x", 3.0, at_least=True).is_reached
    assert not Figure("steps/s", 2.9, "x", 3.0, at_least=True).is_reached


def test_the_95th_of_a_hundred_is_a_percentile() -> None:
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([7.0], 0.95) == 7.0


def test_the_measuring_process_is_told_what_the_command_was_told() -> None:
    given = {"quick": True, "full": False, "tiny": False, "only": ["http", "frames"]}
    assert options.arguments(given) == ["--quick", "--only=http", "--only=frames"]
