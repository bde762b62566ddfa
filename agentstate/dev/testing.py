"""pytest plugin: throw-away Postgres and Valkey before the settings load, of its own for each xdist worker.

Tests connect as the application's role, so row security and grants are the real ones. Fast tests roll back; tests that
need committed rows ask for `committed_db`, after which every row is deleted by the superuser. Workers share no cluster:
a transaction that one of them holds open would be seen by whatever looks at the oldest transaction (the audit's seal).
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import hypothesis
import psycopg
import pytest
import redis as redis_client

from agentstate.dev import templates
from agentstate.dev.servers import APP, DATABASE, OWNER, CannotStart, Postgres, Valkey, start_until_answering

PREFIX = "agentstate-test-"
ROOT_VARIABLE = "AGENTSTATE_TEST_ROOT"  # the folder of this process's servers
FAILURE_VARIABLE = "AGENTSTATE_TEST_FAILURE"  # why there is no database


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Runs before pytest-django reads the settings."""
    try:
        start_servers(early_config)
    except CannotStart as refusal:
        raise pytest.UsageError(str(refusal)) from None
    os.environ.update(environment(Path(os.environ[ROOT_VARIABLE])))


def pytest_configure() -> None:
    """A busy machine must not fail a property: nothing here is timed."""
    hypothesis.settings.register_profile(
        "agentstate", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
    )
    hypothesis.settings.load_profile("agentstate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "committed_db" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.django_db(transaction=True, databases=["default", "owner"]), append=False)


def start_servers(config: pytest.Config) -> None:
    """Servers of this session; they die with this process and their folder is removed, now or by the next session."""
    sweep_dead_folders()
    made = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}"))
    lock = (made / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # held as long as this process lives
    root = made.rename(made.with_name(made.name.removeprefix("new-")))  # only now may others look at its lock
    running: list[subprocess.Popen[bytes]] = []
    config.add_cleanup(lambda: _stop(running, root, lock))
    atexit.register(_stop, running, root, lock)
    running += _start(root)
    os.environ[ROOT_VARIABLE] = str(root)


def environment(root: Path) -> dict[str, str]:
    """What this process's Django, and every process that a test starts, must see."""
    postgres, valkey = Postgres(root), Valkey(root)
    return {
        "DJANGO_SETTINGS_MODULE": "agentstate.settings",
        "DATABASE_URL": postgres.url(APP),
        "DATABASE_OWNER_URL": postgres.url(OWNER),
        "DATABASE_DIRECT_URL": "",
        "BROKER_URL": valkey.broker_url(0),
        "REDIS_URL": valkey.url(1),
        "SECRET_KEY": "test",
        "AGENTSTATE_MASTER_KEY": "5a" * 32,
        "AGENTSTATE_STATE_DIR": str(root / "state"),
        "AGENTSTATE_NO_VENV": "1",
        "DATABASE_POOL": "0",
        "EMBED_PROVIDER": "auto",
        **dict.fromkeys(("EMBED_MODEL_DIR", "EMBED_BASE_URL", "EMBED_API_KEY", "EMBED_MODEL", "EMBED_TOKENS_MAX"), ""),
        **dict.fromkeys(("SUMMARY_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"), ""),  # no test asks a paid model
    }


def sweep_dead_folders() -> None:
    """Remove folders of sessions that were killed: nobody holds their lock any more."""
    for root in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            with (root / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(root, ignore_errors=True)
        except OSError:  # somebody else's, in use, or being made this moment
            continue


def superuser_url(database: str) -> str:
    return Postgres(Path(os.environ[ROOT_VARIABLE])).url("postgres", database=database)


def tables_to_empty(connection: psycopg.Connection) -> list[str]:
    """All tables that the migrations left empty; rows made by a migration stay. Partitions go with their parent."""
    names = "select oid::regclass::text from pg_class where relnamespace = 'public'::regnamespace"
    names += " and relkind in ('r', 'p') and not relispartition"
    found = [str(row[0]) for row in connection.execute(names)]
    return [name for name in found if not connection.execute(f"select 1 from {name} limit 1").fetchone()]


def delete_all(connection: psycopg.Connection, tables: list[str]) -> None:
    """Neither triggers nor foreign keys nor policies stand in a superuser's way in the replica role."""
    connection.execute("set session_replication_role = replica")
    connection.execute("set lock_timeout = '5s'")
    if tables:
        connection.execute("; ".join(f"delete from {table}" for table in tables))


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: object) -> Iterator[None]:
    """Instead of pytest-django's: the application's role can neither create nor flush databases.

    tests/conftest.py imports this name, or pytest-django's own fixture would win.
    """
    from django.db import connections
    from django.test import TransactionTestCase

    if failure := os.environ.get(FAILURE_VARIABLE):
        pytest.fail(failure, pytrace=False)
    with psycopg.connect(superuser_url(DATABASE), autocommit=True) as connection:
        tables = tables_to_empty(connection)

        def empty(self: TransactionTestCase) -> None:
            connections.close_all()
            delete_all(connection, tables)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TransactionTestCase, "_fixture_teardown", empty)
            yield
    connections.close_all()


@pytest.fixture
def committed_db(transactional_db: None) -> None:
    """Commits are real in this test, on both aliases; afterwards all rows are deleted."""


@pytest.fixture
def redis() -> Iterator[redis_client.Redis]:
    """A client of this worker's own database (REDIS_URL)."""
    with redis_client.Redis.from_url(os.environ["REDIS_URL"]) as client:
        yield client


@pytest.fixture(autouse=True)
def _empty_redis() -> Iterator[None]:
    yield
    for url in (os.environ["REDIS_URL"], os.environ["BROKER_URL"]):
        url = url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
        with redis_client.Redis.from_url(url) as client:
            client.flushdb()


def _start(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    valkey = Valkey(root, durable=False)
    yield start_until_answering(valkey.command, preexec=valkey.preexec, log=root / "valkey.log", answers=valkey.answers)
    os.environ.pop(FAILURE_VARIABLE, None)
    try:
        cluster = templates.copy_into(root)
    except CannotStart as refusal:  # a broken migration fails the tests that need the database, and only those
        os.environ[FAILURE_VARIABLE] = str(refusal)
        return
    yield start_until_answering(
        cluster.command, preexec=cluster.preexec, log=root / "postgres.log", answers=cluster.answers
    )


def _stop(running: list[subprocess.Popen[bytes]], root: Path, lock: IO[str]) -> None:
    while running:
        server = running.pop()
        server.send_signal(signal.SIGQUIT if "postgres" in str(server.args) else signal.SIGKILL)  # nothing to keep
        server.wait(20)
    if not lock.closed:
        shutil.rmtree(root, ignore_errors=True)
        lock.close()
