"""A pooler is noticed on the connection itself: what must not go through one is refused before it does harm."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import InternalError, connection
from django.db.backends.postgresql.base import DatabaseWrapper
from pytest_django import Settings

from agentstate.affairs import deployment
from agentstate.db import pooling, sql
from agentstate.dev import external, plan
from agentstate.dev.servers import CannotStart
from agentstate.dev.testing import superuser_url
from agentstate.settings import database
from agentstate.tenants import checks
from runs import tasks
from runs.engine.presence import Presence
from runs.services.workers import LOCK_CLASS
from tests.db import pooler

LOSES_PLANS, KEEPS_LOCK = "a pooler that loses prepared plans", "would keep a worker's lock"


@pytest.fixture
def direct(db: None) -> str:
    return settings.DATABASE_URL


@pytest.fixture
def by_transaction(direct: str, tmp_path: Path) -> Iterator[str]:
    with pooler.by_transaction(direct, tmp_path) as url:
        yield url


@pytest.fixture
def by_session(direct: str, tmp_path: Path) -> Iterator[str]:
    with pooler.by_session(direct, tmp_path) as url:
        yield url


def test_the_server_itself_is_no_pooler(direct: str) -> None:
    assert pooling.plans_trouble("DATABASE_URL", direct) == ""
    assert pooling.lock_trouble(direct, database_url=direct) == ""


def test_who_pools_by_transaction_and_keeps_no_plans_is_refused(by_transaction: str) -> None:
    assert LOSES_PLANS in pooling.plans_trouble("DATABASE_URL", by_transaction)
    with psycopg.connect(by_transaction) as connection:
        assert not connection.execute("SELECT name FROM pg_prepared_statements").fetchall(), "the probe cleans up"
    trouble = deployment.database_trouble("DATABASE_URL", by_transaction, role="app")
    assert trouble.startswith("DATABASE_URL goes through") and "PgBouncer 1.22" in trouble


def test_who_pools_by_session_loses_no_plans(by_session: str) -> None:
    assert pooling.plans_trouble("DATABASE_URL", by_session) == ""


@pytest.mark.parametrize(("follows", "trouble"), [(True, ""), (False, LOSES_PLANS)])
def test_who_keeps_plans_under_names_of_its_own_must_follow_a_deallocation(
    by_session: str, monkeypatch: pytest.MonkeyPatch, follows: bool, trouble: str
) -> None:
    monkeypatch.setattr(pooling, "_shows", lambda connection, plan: False)
    if not follows:  # PgBouncer 1.21: the name is still taken
        prepared = iter([True, False])
        monkeypatch.setattr(pooling, "_prepare", lambda connection, plan: next(prepared))
    assert trouble in (found := pooling.plans_trouble("DATABASE_URL", by_session))
    assert bool(found) is bool(trouble)


def test_no_lock_is_taken_through_a_pooler(by_transaction: str, settings: Settings) -> None:
    settings.DATABASE_DIRECT_URL = by_transaction
    with pytest.raises(psycopg.OperationalError, match="set DATABASE_DIRECT_URL"):
        Presence(77_777)
    with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"]))) as superuser:
        held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = 77777"
        assert not superuser.execute(held, [LOCK_CLASS]).fetchall()


def test_a_lock_past_the_pooler_must_be_of_the_same_database(by_session: str, direct: str) -> None:
    assert pooling.lock_trouble(direct, database_url=by_session) == ""
    assert KEEPS_LOCK in pooling.lock_trouble(by_session, database_url=by_session)
    elsewhere = superuser_url("postgres")
    assert "names another database than DATABASE_URL" in pooling.lock_trouble(elsewhere, database_url=by_session)


def test_a_worker_that_hosts_agents_does_not_start_behind_a_pooler(by_session: str, settings: Settings) -> None:
    settings.DATABASE_URL = settings.DATABASE_DIRECT_URL = by_session
    settings.HOSTED_AGENTS = []
    tasks._refuse_a_pooler()
    assert found("direct connection") == ("ok", "none, and no agents are hosted here")
    settings.HOSTED_AGENTS = ["agentstate.dev.demo.agents"]
    with pytest.raises(SystemExit, match=f"This worker did not start.*{KEEPS_LOCK}"):
        tasks._refuse_a_pooler()
    level, words = found("direct connection")
    assert (level, KEEPS_LOCK in words) == ("bad", True)
    settings.DATABASE_DIRECT_URL = "postgresql://app@127.0.0.1:1/none"
    tasks._refuse_a_pooler()  # a database that is away is waited for
    level, words = found("direct connection")
    assert (level, words.startswith("DATABASE_DIRECT_URL cannot be used")) == ("bad", True)


def found(name: str) -> tuple[str, str]:
    box = next(box for look in deployment.DATABASE_LOOKS if (box := look()).name == name)
    return box.level, box.found


def test_a_process_refuses_its_first_connection_through_one_that_loses_plans(
    by_transaction: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATABASE_URL = by_transaction
    monkeypatch.setattr(checks, "_safe", False)
    first = DatabaseWrapper({**connection.settings_dict, **database(by_transaction)}, alias="default")
    with pytest.raises(ImproperlyConfigured, match=LOSES_PLANS):
        first.ensure_connection()
    assert first.connection is None


def test_two_last_words_are_a_lost_connection(by_session: str) -> None:
    wrapper = DatabaseWrapper({**connection.settings_dict, **database(by_session)}, alias="default")
    wrapper.set_autocommit(False)
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"]))) as superuser:
        superuser.execute("SELECT pg_terminate_backend(%s)", [pid])
    with socket.socket(fileno=os.dup(wrapper.connection.pgconn.socket)) as line:
        line.setblocking(True)
        ends_at = time.monotonic() + 30
        while pooler.CRASHED not in line.recv(4_096, socket.MSG_PEEK):
            assert time.monotonic() < ends_at
            time.sleep(0.01)
    try:
        with pytest.raises(InternalError, match="received 2 results") as lost:
            wrapper.commit()
    finally:
        wrapper.close()
    assert sql.is_lost(lost.value)


def test_up_refuses_a_pooler_without_a_way_past_it(
    by_session: str, direct: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("DATABASE_URL", by_session)
    folder = tmp_path_factory.mktemp("up")
    with pytest.raises(CannotStart, match=KEEPS_LOCK):
        external.check(plan.make(folder, 0))
    monkeypatch.setenv("DATABASE_DIRECT_URL", direct)
    external.check(plan.make(folder, 0))
    for name in ("DATABASE_URL", "DATABASE_OWNER_URL"):
        monkeypatch.delenv(name)
    with pytest.raises(CannotStart, match="DATABASE_DIRECT_URL is set and DATABASE_URL is not"):
        plan.make(folder, 0)
