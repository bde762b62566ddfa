"""What authors install: the wheel builds, installs and drives an agent where neither Django nor the service is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
AGENT = """
import sys
import agentstate as st
from agentstate.sdk.http import HttpStore
from agentstate.testing import MemoryStore

assert not {"django", "celery", "pydantic", "psycopg", "redis"} & sys.modules.keys(), sorted(sys.modules)
HttpStore("http://127.0.0.1:9", "as_0").close()
print(sorted(name for name in ("run", "step", "tool", "ask", "agent", "worker") if hasattr(st, name)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "agentstate", source / "agentstate", ignore=shutil.ignore_patterns("__pycache__"))
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built)]
    run(sys.executable, "-m", *command, str(source))
    [found] = built.glob("*.whl")
    return found


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_what_an_agents_process_imports_and_nothing_of_the_service(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        folders = {str(Path(name).parent) for name in archive.namelist() if name.endswith(".py")}
    assert folders == {"agentstate", "agentstate/core", "agentstate/sdk"}


def test_it_installs_and_imports_without_django(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "clean", with_pip=False, symlinks=True)
    python = tmp_path / "clean" / "bin" / "python"
    site = Path(run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    for name in needed(requirements(wheel)):
        copy_installed(name, site)
    names = run(str(python), "-I", "-c", AGENT, cwd=tmp_path).strip()
    assert names == str(sorted(["run", "step", "tool", "ask", "agent", "worker"]))


def requirements(wheel: Path) -> list[str]:
    """The wheel's own, without extras."""
    with ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


def needed(lines: list[str]) -> set[str]:
    """Names of all that must be installed beside it, found in this environment."""
    names: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        wanted = waiting.pop()
        if wanted.name in names or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        names.add(wanted.name)
        waiting += [Requirement(line) for line in distribution(wanted.name).requires or []]
    return names


def copy_installed(name: str, site: Path) -> None:
    """Copy a package of this environment, so that no index is asked."""
    found = distribution(name)
    for file in found.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(found.locate_file(file)), target)
