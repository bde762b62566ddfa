"""What refuses to start, and in which words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, models
from django.test.utils import isolate_apps

from agentstate.tenants import checks
from agentstate.tenants.routing import OwnerMigrates
from agentstate.tenants.security import GlobalTable, TenantModel, TenantOwned


def judged(model: type[models.Model]) -> list[str]:
    return [str(message.id) for message in checks._judge(model)]


def test_no_model_of_ours_forgot_its_policy() -> None:
    assert checks.check_row_security() == []


@isolate_apps("agentstate.tenants")
def test_a_model_with_a_tenant_and_no_policy_is_an_error() -> None:
    class Forgot(TenantModel):
        class Meta(TenantModel.Meta):
            app_label = "tenants"
            constraints = []

    class ByHand(models.Model):
        tenant_id = models.UUIDField()

        class Meta:
            app_label = "tenants"

    class Right(TenantModel):
        class Meta(TenantModel.Meta):
            app_label = "tenants"

    class AlsoRight(TenantOwned):
        class Meta(TenantOwned.Meta):
            app_label = "tenants"

    assert judged(Forgot) == judged(ByHand) == ["tenants.E001"]
    assert judged(Right) == judged(AlsoRight) == []


@isolate_apps("agentstate.tenants")
def test_a_model_without_a_tenant_must_say_that_it_means_it() -> None:
    class Silent(models.Model):
        class Meta:
            app_label = "tenants"

    class Meant(models.Model):
        class Meta:
            app_label = "tenants"
            constraints = [GlobalTable(name="meant_grants")]

    assert judged(Silent) == ["tenants.E002"]
    assert judged(Meant) == []


@pytest.mark.django_db
def test_the_role_of_the_tests_is_a_harmless_one() -> None:
    assert checks.unsafe_reason(connection) == ""
    assert checks.check_application_role(databases=["default"]) == []
    assert checks.check_application_role(databases=None) == []


@pytest.fixture
def superuser(db: None) -> Iterator[psycopg.Connection[Any]]:
    from agentstate.dev.testing import superuser_url

    database = str(connection.settings_dict["NAME"])
    with psycopg.connect(superuser_url(database), autocommit=True) as superuser:
        yield superuser


@pytest.mark.parametrize(
    ("make", "unmake", "trouble"),
    [
        ("CREATE ROLE {role} LOGIN SUPERUSER", "", "is a superuser"),
        ("CREATE ROLE {role} LOGIN BYPASSRLS", "", "has BYPASSRLS"),
        (
            "CREATE ROLE {role} LOGIN; CREATE TABLE of_{role} (id int); ALTER TABLE of_{role} OWNER TO {role}",
            "DROP TABLE of_{role};",
            "owns the table of_",
        ),
    ],
)
def test_a_role_that_row_security_does_not_bind_is_refused(
    superuser: psycopg.Connection[Any], make: str, unmake: str, trouble: str
) -> None:
    role = f"unsafe_{os.getpid()}"
    superuser.execute(make.format(role=role).encode())
    try:
        url = os.environ["DATABASE_URL"].replace("app@", f"{role}@")
        for program in (QUERY, CHECK):
            done = subprocess.run(
                [sys.executable, "-c", f"import django; django.setup(); {program}"],
                env={**os.environ, "DATABASE_URL": url},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode != 0
            sentence = " ".join(done.stderr.split())
            assert f"The database role {role} in DATABASE_URL {trouble}" in sentence
            assert "DATABASE_OWNER_URL, for migrations only" in sentence
            assert ("tenants.E003" in sentence) is (program is CHECK)
    finally:
        superuser.execute(f"{unmake.format(role=role)} DROP ROLE {role}".encode())


QUERY = "from agentstate.tenants.models import Tenant; Tenant.objects.count()"
CHECK = (
    "from django.core.checks import run_checks; found = run_checks(tags=['database'], databases=['default']); "
    "raise SystemExit(chr(10).join(f'{one.id} {one.msg}' for one in found))"
)


@pytest.mark.django_db
def test_a_refused_connection_is_closed_so_that_nobody_goes_on_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core.exceptions import ImproperlyConfigured

    closed = []
    monkeypatch.setattr(checks, "_safe", False)
    monkeypatch.setattr(checks, "unsafe_reason", lambda connection: "No.")
    monkeypatch.setattr(connection, "close", lambda: closed.append(True))
    with pytest.raises(ImproperlyConfigured, match=r"No\."):
        checks.refuse_unsafe_connection(connection)
    assert closed == [True]


def test_only_the_owner_migrates() -> None:
    router = OwnerMigrates()
    assert router.allow_migrate("owner", "tenants")
    assert not router.allow_migrate("default", "tenants")


def test_migrate_without_an_owner_says_what_is_missing(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentstate.tenants.management.commands import migrate

    monkeypatch.setattr(migrate, "connections", {"default": connection})
    with pytest.raises(CommandError, match="DATABASE_OWNER_URL is not set"):
        call_command("migrate")


@pytest.mark.django_db(databases=["default", "owner"])
def test_migrate_without_the_sweeper_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentstate.tenants.management.commands import migrate

    monkeypatch.setattr(migrate, "SWEEPER", "no_such_role")
    with pytest.raises(CommandError, match="CREATE ROLE no_such_role NOLOGIN; GRANT no_such_role TO owner"):
        call_command("migrate")


@pytest.mark.django_db(databases=["default", "owner"])
def test_models_and_migrations_agree() -> None:
    call_command("makemigrations", "tenants", check=True, dry_run=True, verbosity=0)
