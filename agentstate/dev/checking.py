"""`manage.py test`: the checks two at a time, a line each, output only of those that fail, one exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agentstate.dev.children import dying_with_parent

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("agentstate", "runs", "memory", "checkpoints", "tests", "manage.py")
PYTHON = [sys.executable, "-m"]  # never .venv/bin/<script>: those break when the checkout moves
AT_ONCE = 2


@dataclass(frozen=True)
class Check:
    name: str
    command: Sequence[str]
    fix: str = ""


@dataclass(frozen=True)
class Outcome:
    check: Check
    code: int
    output: str
    seconds: float


CHECKS = (
    Check("types", [*PYTHON, "mypy"]),
    Check("format", [*PYTHON, "ruff", "format", "--check", "-q", *PACKAGES], "python3 -m ruff format"),
    Check("lint", [*PYTHON, "ruff", "check", "-q", *PACKAGES], "python3 -m ruff check --fix"),
    Check("imports", [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]),
    Check("templates", [*PYTHON, "djlint", "templates", "--lint", "--quiet"]),
    Check(
        "migrations", [*PYTHON, "django", "makemigrations", "--check", "--dry-run", "-v1"], "manage.py makemigrations"
    ),
)


def run(arguments: Sequence[str]) -> int:
    """Returns pytest's exit code if it is not 0, else 1 if a check failed, else 0."""
    signal.signal(signal.SIGINT, lambda *_: None)  # pytest stops its servers by itself; we wait for it
    outcomes = [] if arguments else _run_checks()
    for outcome in outcomes:
        _report(outcome)
    started_at = time.monotonic()
    code = _pytest(arguments)
    failed = [outcome.check.name for outcome in outcomes if outcome.code]
    _summarise(outcomes, pytest_code=code, pytest_s=time.monotonic() - started_at)
    return code or (1 if failed else 0)


def _run_checks() -> list[Outcome]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_run_check, CHECKS))


def _run_check(check: Check) -> Outcome:
    started_at = time.monotonic()
    done = subprocess.run(
        check.command,
        cwd=CHECKOUT,
        env=_offline_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Outcome(check, done.returncode, done.stdout, time.monotonic() - started_at)


def _pytest(arguments: Sequence[str]) -> int:
    """In a child that dies with us, so that not even kill -9 leaves servers behind."""
    command = [*PYTHON, "pytest", *(arguments or ["-q", "-n", str(AT_ONCE), "--dist", "loadfile"])]
    with subprocess.Popen(command, cwd=CHECKOUT, preexec_fn=dying_with_parent(signal.SIGTERM)) as child:
        code = child.wait()
    return code if code >= 0 else 128 - code  # ended by a signal: as a shell says it


def _offline_environment() -> dict[str, str]:
    """Checks load the settings and need no server."""
    urls = {"DATABASE_URL": "postgresql://app@/none?host=/nowhere", "DATABASE_OWNER_URL": ""}
    return {**os.environ, **urls, "DJANGO_SETTINGS_MODULE": "agentstate.settings", "PYTHONPATH": str(CHECKOUT)}


def _report(outcome: Outcome) -> None:
    if outcome.code:
        fix = f"   mend with: {outcome.check.fix}" if outcome.check.fix else ""
        print(f"--- {outcome.check.name}{fix}\n{outcome.output.rstrip()}\n", flush=True)


def _summarise(outcomes: Sequence[Outcome], *, pytest_code: int, pytest_s: float) -> None:
    print()
    for outcome in outcomes:
        print(f"{_word(outcome.code)}  {outcome.check.name:<11} {outcome.seconds:5.1f} s")
    print(f"{_word(pytest_code)}  {'pytest':<11} {pytest_s:5.1f} s", flush=True)


def _word(code: int) -> str:
    return "FAILED" if code else "passed"
