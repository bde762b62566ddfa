"""The scope never outlives its block, and outside one a tenant's table raises instead of looking empty."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, ProgrammingError, connection, transaction

from agentstate.audit.models import AuditEntry
from agentstate.tenants.models import ApiKey, Membership, Tenant, TenantSetting
from agentstate.tenants.scope import current_tenant, in_scope, tenant_scope
from tests.tenancy.people import make_tenant

pytestmark = pytest.mark.django_db


def setting() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('agentstate.tenant', true)")
        return cursor.fetchone()[0] or ""


def refuses() -> bool:
    """Whether a tenant's table raises just now; inside a savepoint, for the transaction must go on."""
    try:
        with transaction.atomic():
            ApiKey.objects.exists()
    except ProgrammingError as error:
        return "no tenant scope" in str(error)
    return False


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def globex() -> Tenant:
    return make_tenant("globex")


def test_the_scope_names_its_tenant_and_ends(acme: Tenant) -> None:
    with tenant_scope(acme.pk):
        assert in_scope() and current_tenant() == acme.pk
        assert setting() == str(acme.pk)
    assert not in_scope()
    assert setting() == ""
    with pytest.raises(RuntimeError, match="no tenant scope"):
        current_tenant()


def test_outside_a_scope_nothing_reads_as_empty(acme: Tenant) -> None:
    assert refuses()
    with tenant_scope(acme.pk):
        assert not refuses()
    assert refuses()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 FROM tenants_apikey LIMIT 1",
        "SELECT count(*) FROM tenants_membership WHERE id = gen_random_uuid()",
        "UPDATE tenants_tenantsetting SET value = '1'",
        "DELETE FROM tenants_tenantsetting",
        "INSERT INTO tenants_tenantsetting (id, key, value, updated) VALUES (gen_random_uuid(), 'k', '1', now())",
        "INSERT INTO tenants_tenantsetting (id, tenant_id, key, value, updated) "
        "VALUES (gen_random_uuid(), gen_random_uuid(), 'k', '1', now())",
    ],
)
def test_every_kind_of_statement_raises_outside_a_scope(acme: Tenant, statement: str) -> None:
    with connection.cursor() as cursor, pytest.raises(ProgrammingError, match="no tenant scope"):
        cursor.execute(statement)


def test_a_fresh_connection_and_a_used_one_raise_alike(acme: Tenant) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as fresh:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant scope"):
            fresh.execute("SELECT 1 FROM tenants_apikey")
        with fresh.transaction():
            fresh.execute("SELECT set_config('agentstate.tenant', %s, true)", [str(acme.pk)])
            fresh.execute("SELECT 1 FROM tenants_apikey")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant scope"):
            fresh.execute("SELECT 1 FROM tenants_apikey")


HOT = ["runs_run", "runs_step", "runs_event", "runs_stop", "checkpoints_frame"]


def stolen(table: str) -> str:
    """An INSERT for another tenant; only an event says more, to find its partition."""
    columns, values = ("tenant_id, month", ", current_date") if table == "runs_event" else ("tenant_id", "")
    return f"INSERT INTO {table} ({columns}) VALUES (gen_random_uuid(){values})"


@pytest.mark.parametrize("table", HOT)
def test_a_hot_table_raises_outside_a_scope_too_in_other_words(acme: Tenant, table: str) -> None:
    statements = (f"SELECT 1 FROM {table}", stolen(table))
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as fresh:
        for statement in statements:  # the table is empty, and does not look it
            with pytest.raises(psycopg.errors.UndefinedObject, match=r'"agentstate\.tenant"'):
                fresh.execute(statement.encode())
        with fresh.transaction():
            fresh.execute("SELECT set_config('agentstate.tenant', %s, true)", [str(acme.pk)])
            fresh.execute(statements[0].encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level"), fresh.transaction():
                fresh.execute(statements[1].encode())
        for statement in statements:
            with pytest.raises(psycopg.errors.InvalidTextRepresentation, match='type uuid: ""'):
                fresh.execute(statement.encode())


@pytest.mark.parametrize("table", HOT)
def test_the_owner_of_a_hot_table_is_bound_like_that_of_any(acme: Tenant, table: str) -> None:
    count = f"SELECT count(*) FROM {table}".encode()
    with psycopg.connect(os.environ["DATABASE_OWNER_URL"]) as owner:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant scope"), owner.transaction():
            owner.execute(stolen(table).encode())
        owner.execute("SET LOCAL agentstate.migrating = 'on'")
        owner.execute(count)


def test_the_tenant_does_not_leak_into_the_transaction_around_the_scope(acme: Tenant) -> None:
    with transaction.atomic():
        with tenant_scope(acme.pk):
            pass
        assert setting() == ""
        assert refuses()


def test_the_tenant_does_not_leak_after_an_exception(acme: Tenant) -> None:
    with transaction.atomic():
        with pytest.raises(ValueError), tenant_scope(acme.pk):
            TenantSetting.objects.create(key="k", value=1)
            raise ValueError
        assert setting() == ""
        assert not in_scope()
        assert refuses()
    with tenant_scope(acme.pk):
        assert not TenantSetting.objects.exists()  # and it rolled back


def test_the_tenant_does_not_leak_after_a_database_error(acme: Tenant) -> None:
    with pytest.raises(DatabaseError), tenant_scope(acme.pk), connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM tenants_apikey")
    assert setting() == ""
    assert refuses()


def test_a_queryset_that_leaves_its_scope_raises(acme: Tenant) -> None:
    with tenant_scope(acme.pk):
        lazy = Membership.objects.all()
    with pytest.raises(ProgrammingError, match="no tenant scope"):
        list(lazy)


def test_nested_scopes_of_one_tenant_are_savepoints(acme: Tenant) -> None:
    with tenant_scope(acme.pk):
        TenantSetting.objects.create(key="kept", value=1)
        with pytest.raises(IntegrityError), tenant_scope(acme.pk):
            TenantSetting.objects.create(key="kept", value=2)
        with tenant_scope(acme.pk):
            TenantSetting.objects.create(key="also", value=3)
        assert current_tenant() == acme.pk
        assert set(TenantSetting.objects.values_list("key", flat=True)) == {"kept", "also"}
    assert not in_scope()


def test_a_scope_inside_another_tenants_scope_is_refused(acme: Tenant, globex: Tenant) -> None:
    with tenant_scope(acme.pk):
        with pytest.raises(RuntimeError, match="another tenant"), tenant_scope(globex.pk):
            pass
        assert current_tenant() == acme.pk
        assert setting() == str(acme.pk)


def test_scopes_one_after_the_other_do_not_mix(acme: Tenant, globex: Tenant) -> None:
    for tenant in (acme, globex, acme):
        with tenant_scope(tenant.pk):
            assert [row.tenant_id for row in Membership.objects.all()] == [tenant.pk]


def test_a_row_gets_the_tenant_of_its_scope(acme: Tenant) -> None:
    with tenant_scope(acme.pk):
        row = TenantSetting.objects.create(key="k", value={"a": 1})
        rows = TenantSetting.objects.bulk_create([TenantSetting(key="l", value=1)])
    assert row.tenant_id == rows[0].tenant_id == acme.pk
    assert isinstance(row.tenant_id, UUID)


def test_the_owner_sees_nothing_until_it_says_that_it_migrates(committed_db: None) -> None:
    acme = make_tenant("acme")
    with tenant_scope(acme.pk):
        TenantSetting.objects.create(key="k", value=1)
    count = "SELECT count(*) FROM tenants_tenantsetting"
    with psycopg.connect(os.environ["DATABASE_OWNER_URL"]) as owner:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant scope"), owner.transaction():
            owner.execute(count)
        owner.execute("SET LOCAL agentstate.migrating = 'on'")
        assert one(owner, count) == 1


def test_the_application_gains_nothing_by_saying_that_it_migrates(acme: Tenant) -> None:
    with tenant_scope(acme.pk):
        TenantSetting.objects.create(key="k", value=1)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL agentstate.migrating = 'on'")
        cursor.execute("SELECT count(*) FROM tenants_tenantsetting")
        assert cursor.fetchone()[0] == 0
        cursor.execute("SET LOCAL agentstate.migrating = ''")


def test_history_cannot_be_changed_even_by_the_owner(committed_db: None) -> None:
    acme = make_tenant("acme")  # writes an audit entry
    with tenant_scope(acme.pk):
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            AuditEntry.objects.update(action="nothing")
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            AuditEntry.objects.all()._raw_delete("default")
        assert AuditEntry.objects.exists()
    for statement in ("UPDATE audit_entry SET action = 'nothing'", "DELETE FROM audit_entry"):
        with psycopg.connect(os.environ["DATABASE_OWNER_URL"]) as owner:
            owner.execute("SET LOCAL agentstate.migrating = 'on'")
            assert one(owner, "SELECT count(*) FROM audit_entry") > 0
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                owner.execute(statement.encode())


def one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.django_db(transaction=True)
def test_a_scope_costs_two_round_trips_and_a_nested_one_two(acme: Tenant, tmp_path: Path) -> None:
    connection.ensure_connection()
    assert _round_trips(tmp_path / "one", acme) == 2  # begin and set, commit
    with tenant_scope(acme.pk):
        assert _round_trips(tmp_path / "two", acme) == 2  # savepoint, release


def _round_trips(file: Path, tenant: Tenant) -> int:
    """How often the server said that it is ready for the next question, from the begin to the end of a scope."""
    with file.open("wb") as trace:
        connection.connection.pgconn.trace(trace.fileno())
        with tenant_scope(tenant.pk):
            pass
        connection.connection.pgconn.untrace()
    return file.read_text().count("ReadyForQuery")
