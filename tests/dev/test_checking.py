"""`manage.py test`: one exit code that no failure escapes, and a summary that names it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence

import pytest

from agentstate.dev import checking
from agentstate.dev.checking import Check

PASSES = Check("passes", [sys.executable, "-c", "print('quiet')"])
FAILS = Check("fails", [sys.executable, "-c", "print('why it failed'); raise SystemExit(3)"], "mend it so")


@pytest.fixture(autouse=True)
def own_interrupt() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("checks", "pytest_code", "code"),
    [([PASSES], 0, 0), ([PASSES, FAILS], 0, 1), ([PASSES], 5, 5), ([FAILS], 2, 2)],
    ids=["all pass", "a check fails", "nothing collected", "both fail"],
)
def test_the_exit_code_is_of_whatever_failed(
    monkeypatch: pytest.MonkeyPatch, checks: list[Check], pytest_code: int, code: int
) -> None:
    monkeypatch.setattr(checking, "CHECKS", checks)
    monkeypatch.setattr(checking, "_pytest", lambda arguments: pytest_code)
    assert checking.run([]) == code


def test_only_what_failed_is_printed_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checking, "CHECKS", [PASSES, FAILS])
    monkeypatch.setattr(checking, "_pytest", lambda arguments: 0)
    checking.run([])
    said = capsys.readouterr().out
    assert "why it failed" in said and "mend it so" in said and "quiet" not in said
    assert [line.split()[:2] for line in said.splitlines()[-3:]] == [
        ["passed", "passes"],
        ["FAILED", "fails"],
        ["passed", "pytest"],
    ]


def test_arguments_go_to_pytest_and_leave_the_checks_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Sequence[str]] = []

    def record(arguments: Sequence[str]) -> int:
        given.append(arguments)
        return 0

    monkeypatch.setattr(checking, "CHECKS", [FAILS])
    monkeypatch.setattr(checking, "_pytest", record)
    assert checking.run(["-k", "name", "-n2"]) == 0
    assert given == [["-k", "name", "-n2"]]
