"""A row with a canary in one tenant: nothing that another tenant can do shows, changes or confirms it."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.db import DatabaseError, IntegrityError, ProgrammingError, connection, transaction

from agentstate.core.errors import NotFound, Unauthorised
from agentstate.core.ids import new_id
from agentstate.tenants import api_keys, members
from agentstate.tenants.models import ApiKey, KeyRing, Membership, Tenant, TenantSetting, User
from agentstate.tenants.scope import tenant_scope
from tests.tenancy.people import admin_of, make_tenant, make_user

pytestmark = pytest.mark.django_db
CANARY = "canary-5f3c"


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def globex() -> Tenant:
    return make_tenant("globex")


@pytest.fixture
def canary(acme: Tenant) -> TenantSetting:
    with tenant_scope(acme.pk):
        return TenantSetting.objects.create(key=CANARY, value={"v": CANARY})


def test_the_owner_of_the_row_sees_it_and_the_other_tenant_does_not(
    acme: Tenant, globex: Tenant, canary: TenantSetting
) -> None:
    with tenant_scope(acme.pk):
        assert TenantSetting.objects.get(pk=canary.pk).key == CANARY
    with tenant_scope(globex.pk):
        assert not TenantSetting.objects.filter(pk=canary.pk).exists()
        assert not TenantSetting.objects.filter(tenant_id=acme.pk).exists()
        assert TenantSetting.objects.count() == 0


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM tenants_tenantsetting",
        "SELECT * FROM tenants_tenantsetting WHERE tenant_id = %(acme)s",
        "SELECT * FROM tenants_tenantsetting WHERE true OR tenant_id = %(acme)s",
        "SELECT * FROM (SELECT * FROM tenants_tenantsetting UNION ALL SELECT * FROM tenants_tenantsetting) t",
        "WITH t AS MATERIALIZED (SELECT * FROM tenants_tenantsetting) SELECT * FROM t",
        "SELECT s.* FROM tenants_tenant t JOIN LATERAL (SELECT * FROM tenants_tenantsetting) s ON true",
        "SELECT key::int FROM tenants_tenantsetting",  # an error message would quote the value
        "SELECT tableoid, ctid, * FROM ONLY tenants_tenantsetting",
    ],
)
def test_raw_sql_of_another_tenant_finds_nothing(
    acme: Tenant, globex: Tenant, canary: TenantSetting, query: str
) -> None:
    with tenant_scope(globex.pk), connection.cursor() as cursor:
        cursor.execute(query, {"acme": acme.pk})
        assert cursor.fetchall() == []


def test_another_tenant_can_neither_change_nor_remove_the_row(
    acme: Tenant, globex: Tenant, canary: TenantSetting
) -> None:
    with tenant_scope(globex.pk):
        assert TenantSetting.objects.filter(pk=canary.pk).update(value=1) == 0
        assert TenantSetting.objects.filter(pk=canary.pk).delete()[0] == 0
    with tenant_scope(acme.pk):
        assert TenantSetting.objects.get(pk=canary.pk).value == {"v": CANARY}


def test_a_row_cannot_be_written_into_or_moved_to_another_tenant(acme: Tenant, globex: Tenant) -> None:
    with tenant_scope(globex.pk):
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            TenantSetting.objects.create(tenant_id=acme.pk, key="planted", value=1)
        mine = TenantSetting.objects.create(key="mine", value=1)
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            TenantSetting.objects.filter(pk=mine.pk).update(tenant_id=acme.pk)


def test_the_same_values_in_two_tenants_do_not_collide(acme: Tenant, globex: Tenant, canary: TenantSetting) -> None:
    """A unique constraint over all tenants would tell one that the other has the value."""
    with tenant_scope(globex.pk):
        TenantSetting.objects.create(key=CANARY, value=2)


def test_a_child_cannot_name_a_parent_of_another_tenant(acme: Tenant, globex: Tenant) -> None:
    """audit_entry.note_id -> audit_note carries the tenant; the check ignores row security, so the key must not."""
    with tenant_scope(acme.pk), connection.cursor() as cursor:
        note = new_id()
        cursor.execute("INSERT INTO audit_note (id, body) VALUES (%s, 'x')", [note])
        assert entry(note) == 1
    with pytest.raises(IntegrityError, match="audit_entry_note"), transaction.atomic(), tenant_scope(globex.pk):
        entry(note)
        connection.check_constraints()


def entry(note: UUID) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit_entry (object_type, object_id, object_seq, action, from_status, to_status, actor_kind,"
            " actor_id, actor_name, at, detail, note_id, sha, epoch, xid)"
            " VALUES ('x', %s, 1, 'x', '', '', 'system', 'x', 'x', now(), '{}', %s, 'x', 1, 1)",
            [new_id(), note],
        )
        return int(cursor.rowcount)


def test_key_resolution_gives_the_tenant_of_the_key_and_nothing_of_another(acme: Tenant, globex: Tenant) -> None:
    ours, _ = api_keys.issue(name=CANARY, scopes=["runs.read"], actor=admin_of(acme))
    theirs, _ = api_keys.issue(name="other", scopes=["runs.start"], actor=admin_of(globex))
    assert api_keys.resolve(ours).tenant_id == acme.pk
    assert api_keys.resolve(theirs).tenant_id == globex.pk
    with tenant_scope(globex.pk):
        assert CANARY not in ApiKey.objects.values_list("name", flat=True)
    with pytest.raises(Unauthorised):
        api_keys.resolve(ours[:-1])


@pytest.mark.parametrize(
    "wanted", ["''", "NULL", "'%%'", "E'\\\\x'", "decode('', 'hex')", "(SELECT digest FROM tenants_apikey LIMIT 1)"]
)
def test_key_resolution_answers_to_a_whole_digest_only(acme: Tenant, globex: Tenant, wanted: str) -> None:
    api_keys.issue(name=CANARY, scopes=["runs.read"], actor=admin_of(acme))
    with tenant_scope(globex.pk), connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM agentstate_resolve_key({wanted}::bytea)")
        assert cursor.fetchall() == []


def test_functions_that_cross_tenants_ignore_what_the_caller_puts_in_their_way(acme: Tenant) -> None:
    token, _ = api_keys.issue(name="real", scopes=["runs.read"], actor=admin_of(acme))
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE tenants_apikey AS SELECT 1 AS id")
        cursor.execute("SET LOCAL search_path = pg_temp, public")
        try:
            cursor.execute("SELECT name FROM agentstate_resolve_key(%s)", [api_keys._digest(token)])
            assert cursor.fetchall() == [("real",)]
        finally:
            cursor.execute("DROP TABLE pg_temp.tenants_apikey")


def test_a_person_sees_the_tenants_they_belong_to_and_no_other(acme: Tenant, globex: Tenant) -> None:
    alice = User.objects.get(email="admin@acme.example")
    assert [tenant.slug for tenant in members.tenants_of(alice)] == ["acme"]
    assert members.membership(alice, acme).role == "admin"
    for outsider in (globex, Tenant(slug="nowhere", name="Nowhere")):
        with pytest.raises(NotFound):
            members.membership(alice, outsider)
    assert members.tenants_of(make_user("stranger@x.example")) == []


@pytest.mark.parametrize("model", [ApiKey, KeyRing, Membership, TenantSetting])
def test_no_tenants_table_can_be_counted_without_a_scope(model: type[ApiKey], acme: Tenant) -> None:
    with pytest.raises(DatabaseError, match="no tenant scope"):
        model.objects.count()
