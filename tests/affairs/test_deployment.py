"""The deployment checklist: every box can turn bad, and says what to do."""

from __future__ import annotations

import os
from io import StringIO

import pytest
import redis as redis_client
from django.conf import settings
from django.core.management import call_command
from pytest_django import Settings

from agentstate.affairs import deployment
from agentstate.dev.testing import superuser_url
from agentstate.presence import READY_KEY
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope

UNREACHABLE = "redis://127.0.0.1:1/0"


def box(name: str) -> deployment.Box:
    return next(found for found in deployment.boxes() if found.name == name)


def trouble(url: str, *, role: str = "app") -> str:
    return deployment.database_trouble("DATABASE_URL", url, role="app" if role == "app" else "owner")


@pytest.mark.django_db
def test_a_prepared_database_has_no_trouble() -> None:
    assert trouble(settings.DATABASE_URL) == ""
    assert trouble(settings.DATABASE_OWNER_URL, role="owner") == ""
    assert box("Postgres").level == box("migrations").level == box("clock").level == "ok"


@pytest.mark.django_db
def test_a_role_that_could_bypass_row_security_is_refused() -> None:
    name = str(settings.DATABASES["default"]["NAME"])
    assert "is a superuser" in trouble(superuser_url(name))
    assert "owns tables" in trouble(settings.DATABASE_OWNER_URL)


@pytest.mark.django_db
def test_an_owner_that_may_not_create_tables_is_refused() -> None:
    assert "may not create tables" in trouble(settings.DATABASE_URL, role="owner")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "setting", "usual_s"),
    [("idle transactions", "idle_in_transaction_session_timeout", 60), ("waits for locks", "lock_timeout", 15)],
)
def test_a_role_that_waits_for_ever_is_warned_about(settings: Settings, name: str, setting: str, usual_s: int) -> None:
    assert (box(name).level, f"{setting} = '{usual_s}s'" in box(name).fix) == ("warn", True)
    settings.DATABASE_URL += f"&options=-c%20{setting}%3D{usual_s}s"
    assert (box(name).level, box(name).found) == ("ok", f"ended after {usual_s} s")


@pytest.mark.django_db
def test_a_setting_of_memory_that_cannot_be_used_is_named(tenant: Tenant) -> None:
    assert box("memory settings").level == "ok"
    with tenant_scope(tenant.id):
        TenantSetting.objects.create(key="memory.agent:desk", value={"strategy": "magic"})
    found = box("memory settings")
    assert (found.level, "memory_policy" in found.fix) == ("warn", True)
    assert "acme: memory.agent:desk strategy" in found.found


def test_a_database_without_pgvector_is_refused_with_the_command() -> None:
    assert "create extension vector" in trouble(superuser_url("postgres"))


def test_an_old_postgres_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "POSTGRES_MIN", 990_000)
    assert "is too old; use 15 or newer" in trouble(superuser_url("postgres"))


@pytest.mark.django_db
def test_a_database_that_is_away_is_bad_and_not_an_exception(settings: Settings) -> None:
    settings.DATABASE_URL = "postgresql://app@127.0.0.1:1/none"
    assert deployment.boxes()[0].level == "bad"
    assert "mend it" in deployment.boxes()[0].found


@pytest.mark.django_db
def test_a_redis_that_is_away_is_bad_and_not_an_exception(settings: Settings) -> None:
    settings.REDIS_URL = UNREACHABLE
    assert [box(name).level for name in ("Redis", "worker", "beat")] == ["bad"] * 3


@pytest.mark.django_db
def test_a_server_that_evicts_is_bad(redis: redis_client.Redis) -> None:
    assert box("eviction").level == "ok"
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "allkeys-lru" in box("eviction").found
    finally:
        redis.config_set("maxmemory-policy", "noeviction")


@pytest.mark.django_db
def test_a_worker_is_seen_when_it_said_so(redis: redis_client.Redis) -> None:
    assert box("worker").level == "bad"
    redis.set(READY_KEY.format(name="worker"), os.getpid())
    assert box("worker").level == "ok"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("SECRET_KEY", "SECRET_KEY", "short"),
        ("master key", "MASTER_KEY", "not hex"),
        ("master key", "MASTER_KEY", ""),
        ("address", "PUBLIC_URL", "http://agentstate.example.com"),
        ("address", "PUBLIC_URL", "https://elsewhere.example.com"),
    ],
)
def test_a_careless_setting_is_bad_and_has_a_fix(settings: Settings, name: str, setting: str, value: str) -> None:
    setattr(settings, setting, value)
    found = box(name)
    assert found.level == "bad" and found.fix


@pytest.mark.django_db
def test_the_embedder_is_really_asked(settings: Settings) -> None:
    assert box("embedder").level == "ok"
    assert "MiniLM" in box("embedder").found
    settings.EMBED_BASE_URL, settings.EMBED_MODEL = "http://127.0.0.1:1/v1", "small-3"
    assert (box("embedder").level, "did not answer" in box("embedder").found) == ("bad", True)
    settings.EMBED_PROVIDER, settings.EMBED_MODEL_DIR = "minilm", "/nowhere"
    assert (box("embedder").level, "EMBED_BASE_URL" in box("embedder").fix) == ("bad", True)


@pytest.mark.django_db
def test_the_summariser_is_named(settings: Settings) -> None:
    assert box("summariser").found == "extracts, without a model"
    settings.SUMMARY_MODEL, settings.OPENAI_BASE_URL = "small", "nowhere"
    assert box("summariser").level == "bad"


@pytest.mark.django_db
def test_doctor_prints_a_line_a_box_and_fails_when_one_is_bad() -> None:
    out = StringIO()
    with pytest.raises(SystemExit, match="1"):  # no worker runs here
        call_command("doctor", stdout=out)
    lines = out.getvalue().splitlines()
    assert len(lines) == len(deployment.boxes())
    assert any(line.startswith("BAD") and "->" in line for line in lines)
