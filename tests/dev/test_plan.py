"""What `up` decides and refuses before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentstate.dev import external, plan
from agentstate.dev.servers import CannotStart, Postgres

URLS = ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "BROKER_URL")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*URLS, "SECRET_KEY", "AGENTSTATE_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is taken while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_in_use_is_refused_with_one_that_is_free(tmp_path: Path, port: int) -> None:
    with pytest.raises(CannotStart, match=rf"Port {port} is in use; .* --port \d+"):
        plan.make(tmp_path, port)


@pytest.mark.parametrize(("present", "absent"), [("DATABASE_URL", "DATABASE_OWNER_URL"), ("BROKER_URL", "REDIS_URL")])
def test_half_a_pair_of_addresses_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, present: str, absent: str
) -> None:
    monkeypatch.setenv(present, "postgresql://a@b/c")
    with pytest.raises(CannotStart, match=f"{present} is set and {absent} is not"):
        plan.make(tmp_path, 0)


def test_an_address_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "nonsense")
    monkeypatch.setenv("DATABASE_OWNER_URL", "nonsense")
    with pytest.raises(CannotStart, match="DATABASE_URL must begin with postgresql://"):
        plan.make(tmp_path, 0)


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    first = plan.make(tmp_path, 0).secrets
    assert plan.make(tmp_path, 0).secrets == first
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(first["AGENTSTATE_MASTER_KEY"])) == 32


def test_the_application_never_gets_the_owners_address(tmp_path: Path) -> None:
    made = plan.make(tmp_path, 0)
    assert "DATABASE_OWNER_URL" not in made.environment
    assert "app@" in made.environment["DATABASE_URL"] and "owner@" in made.owner_url


def test_a_database_that_does_not_answer_is_named_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DATABASE_URL", "DATABASE_OWNER_URL"):
        monkeypatch.setenv(name, "postgresql://app@127.0.0.1:1/none")
    with pytest.raises(CannotStart, match=r"DATABASE_URL cannot be used .*mend it, or remove it"):
        external.check(plan.make(tmp_path, 0))


def test_a_redis_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REDIS_URL", "BROKER_URL"):
        monkeypatch.setenv(name, "redis://127.0.0.1:1/0")
    with pytest.raises(CannotStart, match="REDIS_URL cannot be used"):
        external.check(plan.make(tmp_path, 0))


def test_a_folder_of_another_major_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(CannotStart, match=r"was made by Postgres 17 and this is 18: dump it"):
        Postgres(tmp_path).create()


def test_a_full_disk_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("agentstate.dev.servers.DISK_FREE_BYTES_MIN", 1 << 60)
    with pytest.raises(CannotStart, match="300 MB are needed"):
        Postgres(tmp_path / "state").create()
    assert not (tmp_path / "state" / "postgres").exists()


def test_a_long_path_still_has_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    sockets = Postgres(deep).sockets
    assert len(str(sockets / ".s.PGSQL.5432.lock")) <= 107
    assert sockets.stat().st_mode & 0o777 == 0o700
    sockets.rmdir()
