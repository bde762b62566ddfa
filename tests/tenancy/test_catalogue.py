"""Row security as Postgres sees it: green as migrated, and red for each way to break it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.db import connection, connections

from agentstate.audit.models import AuditEntry
from agentstate.tenants import catalogue
from agentstate.tenants.models import ApiKey, Membership, User
from agentstate.tenants.security import FOREIGN_TABLES, SqlConstraint, TenantOwned

pytestmark = pytest.mark.django_db

# Each table without a tenant, and why. Whoever adds one writes the reason here.
GLOBAL = {
    "tenants_user": "a person may belong to several tenants",
    "tenants_tenant": "names of tenants; sign-in needs them before there is a scope",
    "audit_cluster": "one row: the epoch of this database",
    "runs_worker": "machine facts; its own policy shows a tenant its own and the hosted ones",
    **dict.fromkeys(FOREIGN_TABLES, "Django's own"),
}
# Each function that reads across tenants, and what it gives away.
CROSSING = {
    "agentstate_resolve_key": "one key, to whoever knows its digest",
    "agentstate_tenants_of": "ids of a person's own tenants",
    "affairs_erasures_open": "ids of erasures to go on with",
    "agentstate_outbox_due": "ids of notices to send",
    "agentstate_outbox_old": "ids of notices to prune",
    "runs_due": "ids of runs to look at, with their fence",
    "runs_expired": "ids of approvals past their time",
}


@pytest.fixture
def owner(db: None) -> Iterator[psycopg.Connection]:
    """The owner inside a transaction that is never committed."""
    with psycopg.connect(os.environ["DATABASE_OWNER_URL"]) as owner:
        yield owner
        owner.rollback()


def problems(owner: psycopg.Connection) -> list[str]:
    return catalogue.problems(
        lambda statement, args: owner.execute(statement.encode(), args).fetchall(), app_role="app"
    )


def test_the_migrated_database_keeps_tenants_apart(owner: psycopg.Connection) -> None:
    assert problems(owner) == []


def test_every_model_with_a_tenant_was_looked_at(owner: psycopg.Connection) -> None:
    query = "select relname from pg_class where relkind in ('r', 'p') and relrowsecurity and relforcerowsecurity"
    secured = {row[0] for row in owner.execute(query)}
    meant = {model._meta.db_table for model in apps.get_models() if issubclass(model, TenantOwned)}
    assert meant and meant <= secured


def test_global_tables_are_a_written_list() -> None:
    assert catalogue.global_tables() == set(GLOBAL)


def test_functions_that_cross_tenants_are_a_written_list(owner: psycopg.Connection) -> None:
    query = "select proname from pg_proc where prosecdef and proowner = 'agentstate_sweeper'::regrole"
    assert {row[0] for row in owner.execute(query)} == set(CROSSING)


def test_the_sweeper_only_reads_and_nothing_that_is_sealed(owner: psycopg.Connection) -> None:
    granted = """
        SELECT g.table_name, g.column_name, g.privilege_type, c.data_type
        FROM information_schema.column_privileges g JOIN information_schema.columns c
          USING (table_schema, table_name, column_name)
        WHERE g.grantee = 'agentstate_sweeper'
    """
    rows = owner.execute(granted).fetchall()
    assert ("tenants_membership", "user_id", "SELECT", "uuid") in rows  # the query does see grants
    assert {row[2] for row in rows} == {"SELECT"}
    assert {row[:2] for row in rows if row[3] in ("bytea", "jsonb")} == {("tenants_apikey", "digest")}
    role = owner.execute(
        "SELECT rolcanlogin, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = 'agentstate_sweeper'"
    ).fetchone()
    assert role == (False, False, False, False)


@pytest.mark.parametrize(
    ("sabotage", "expected"),
    [
        ("ALTER TABLE tenants_apikey NO FORCE ROW LEVEL SECURITY", "tenants_apikey: row security is not enabled"),
        ("ALTER TABLE tenants_keyring DISABLE ROW LEVEL SECURITY", "tenants_keyring: row security is not enabled"),
        ("CREATE TABLE forgotten (id int)", "forgotten: no tenant_id NOT NULL"),
        ("CREATE TABLE forgotten (tenant_id uuid)", "forgotten: no tenant_id NOT NULL"),
        ("CREATE TABLE forgotten (tenant_id uuid NOT NULL)", "forgotten: row security is not enabled"),
        (
            "CREATE VIEW leaky AS SELECT * FROM tenants_apikey; GRANT SELECT ON leaky TO app",
            "leaky: a view reads with its owner's rights",
        ),
        (
            "SET LOCAL agentstate.migrating = 'on'; CREATE MATERIALIZED VIEW leaky AS SELECT * FROM tenants_apikey; "
            "GRANT SELECT ON leaky TO app",
            "leaky: a view reads with its owner's rights",
        ),
        (
            "CREATE TABLE child (tenant_id uuid NOT NULL, key_id uuid REFERENCES tenants_apikey (id)); "
            "ALTER TABLE child ENABLE ROW LEVEL SECURITY; ALTER TABLE child FORCE ROW LEVEL SECURITY; "
            "CREATE POLICY tenant ON child USING (tenant_id = (SELECT agentstate_tenant()))",
            "child: the foreign key child_key_id_fkey leaves the tenant out",
        ),
        ("CREATE POLICY wide ON tenants_apikey USING (true)", "tenants_apikey: the policy wide opens it further"),
        ("CREATE POLICY wide ON tenants_apikey TO app USING (true)", "tenants_apikey: the policy wide opens it"),
        ("DROP POLICY tenant ON tenants_apikey", "tenants_apikey: its policy does not compare"),
        ("ALTER POLICY tenant ON tenants_apikey WITH CHECK (true)", "tenants_apikey: the policy tenant opens it"),
        ("ALTER POLICY tenant ON tenants_apikey USING (tenant_id IS NOT NULL)", "tenants_apikey: the policy tenant"),
        ("ALTER POLICY tenant ON runs_step TO PUBLIC", "runs_step: its policy does not compare"),
        ("ALTER POLICY tenant ON runs_step USING (tenant_id IS NOT NULL)", "runs_step: the policy tenant opens it"),
        ("ALTER POLICY owning ON runs_step TO app USING (true)", "runs_step: the policy owning opens it"),
        ("GRANT TRUNCATE ON tenants_apikey TO app", "tenants_apikey: the application may TRUNCATE"),
        (
            "CREATE FUNCTION leak() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'select 1'",
            "leak: everybody may execute",
        ),
        (
            "ALTER FUNCTION agentstate_tenants_of(uuid) RESET search_path",
            "agentstate_tenants_of: this SECURITY DEFINER",
        ),
    ],
)
def test_the_catalogue_notices(owner: psycopg.Connection, sabotage: str, expected: str) -> None:
    assert not [problem for problem in problems(owner) if problem.startswith(expected)]
    owner.execute(sabotage.encode())
    assert [problem for problem in problems(owner) if problem.startswith(expected)]


def test_a_grant_on_a_partition_is_noticed(owner: psycopg.Connection) -> None:
    owner.execute(b"""
        CREATE TABLE parted (tenant_id uuid NOT NULL, month int) PARTITION BY RANGE (month);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (2);
        ALTER TABLE parted ENABLE ROW LEVEL SECURITY; ALTER TABLE parted FORCE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON parted USING (tenant_id = (SELECT agentstate_tenant()));
        GRANT SELECT ON parted TO app
    """)
    assert not [problem for problem in problems(owner) if problem.startswith("parted")]
    owner.execute(b"GRANT SELECT (month) ON parted_1 TO app")
    assert "parted_1: a partition has grants, and no policy of its own" in problems(owner)


def test_default_privileges_would_be_noticed(owner: psycopg.Connection) -> None:
    owner.execute(b"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app")
    owner.execute(b"CREATE TABLE parted (tenant_id uuid NOT NULL, month int) PARTITION BY RANGE (month)")
    owner.execute(b"CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (2)")
    assert any(problem.startswith("parted_1: a partition has grants") for problem in problems(owner))


def test_a_composite_foreign_key_that_crosses_its_columns_is_noticed(owner: psycopg.Connection) -> None:
    """(tenant_id, key_id) -> (id, tenant_id) has tenant_id in the key, and in the wrong place."""
    owner.execute(b"""
        ALTER TABLE tenants_apikey ADD UNIQUE (id, tenant_id);
        CREATE TABLE child (tenant_id uuid NOT NULL, key_id uuid,
            CONSTRAINT crossed FOREIGN KEY (tenant_id, key_id) REFERENCES tenants_apikey (id, tenant_id));
        ALTER TABLE child ENABLE ROW LEVEL SECURITY; ALTER TABLE child FORCE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON child USING (tenant_id = (SELECT agentstate_tenant()))
    """)
    assert "child: the foreign key crossed leaves the tenant out" in problems(owner)


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE tenants_apikey",
        "DELETE FROM tenants_apikey",
        "DELETE FROM tenants_keyring",
        "DELETE FROM tenants_membership",
        "DELETE FROM tenants_user",
        "UPDATE memory_itemrevision SET text = ''",
        "UPDATE memory_progressversion SET body = ''",
        "UPDATE memory_promptversion SET body = ''",
        "DELETE FROM memory_promptversion",
        "UPDATE memory_injection SET version = 1",
        "UPDATE memory_author SET name = ''",
        "UPDATE memory_message SET text = ''",
        "UPDATE memory_summary SET text = ''",
        "DELETE FROM memory_ownerkey",
        "DELETE FROM affairs_erasure",
        "ALTER TABLE tenants_apikey DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON tenants_apikey",
        "CREATE TABLE mine (id int)",
        "SET ROLE owner",
        "SET ROLE agentstate_sweeper",
        "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION agentstate_tenant() RETURNS uuid LANGUAGE sql AS 'select null::uuid'",
        "UPDATE django_migrations SET app = app",
    ],
)
def test_the_application_role_cannot(statement: str) -> None:
    with connection.cursor() as cursor, pytest.raises(Exception, match=r"permission denied|must be owner"):
        cursor.execute(statement)


@pytest.mark.django_db(databases=["default", "owner"])
def test_every_constraint_can_be_unmade_and_made_again() -> None:
    def facts() -> list[Any]:
        with connections["owner"].cursor() as cursor:
            cursor.execute(FACTS)
            return list(cursor.fetchall())

    before = facts()
    with connections["owner"].schema_editor() as editor:
        secured = [
            (m, c)
            for m in (User, ApiKey, Membership, AuditEntry, apps.get_model("memory", "Message"))
            for c in m._meta.constraints
        ]
        ours = [(model, constraint) for model, constraint in secured if isinstance(constraint, SqlConstraint)]
        kinds = {kind for kind in SqlConstraint.__subclasses__() if kind.__module__ == SqlConstraint.__module__}
        assert {type(constraint) for _, constraint in ours} >= kinds
        for model, constraint in ours:
            editor.remove_constraint(model, constraint)
        unmade = facts()
        for model, constraint in ours:
            editor.add_constraint(model, constraint)
    assert unmade != before
    assert facts() == before


FACTS = """
SELECT c.relname, (SELECT array_agg(a ORDER BY a) FROM unnest(c.relacl::text[]) a), c.relrowsecurity,
  c.relforcerowsecurity,
  (SELECT array_agg(p.polname || pg_get_expr(p.polqual, c.oid) ORDER BY p.polname)
     FROM pg_policy p WHERE p.polrelid = c.oid),
  (SELECT array_agg(t.tgname ORDER BY t.tgname) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
  (SELECT array_agg(k.conname ORDER BY k.conname) FROM pg_constraint k WHERE k.conrelid = c.oid)
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1
"""
