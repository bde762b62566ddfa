"""API keys: shown once, kept as digests, and useless when expired, revoked, cut or aimed at what they lack."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentstate.audit.models import AuditEntry
from agentstate.core import clock
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound, Unauthorised
from agentstate.core.ids import new_id
from agentstate.tenants import api_keys, members
from agentstate.tenants.actors import VERBS, Actor, allows
from agentstate.tenants.models import ApiKey, Tenant
from agentstate.tenants.scope import tenant_scope
from tests.tenancy.people import admin_of, make_tenant, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def admin(acme: Tenant) -> Actor:
    return admin_of(acme)


def issue(actor: Actor, *scopes: str, **more: Any) -> tuple[str, ApiKey]:
    return api_keys.issue(name="ci", scopes=scopes or ["runs.read"], actor=actor, **more)


def test_a_token_resolves_to_its_key_tenant_and_scopes(acme: Tenant, admin: Actor) -> None:
    token, key = issue(admin, "runs.start", "runs.read")
    found = api_keys.resolve(token)
    assert (found.kind, found.id, found.name, found.tenant_id) == ("key", str(key.pk), "ci", acme.pk)
    assert found.scopes == {"runs.start", "runs.read"}
    assert allows(found, "runs.start") and not allows(found, "runs.control")


def test_the_token_is_kept_nowhere(admin: Actor) -> None:
    token, key = issue(admin)
    assert token.startswith("as_") and len(token) == 51
    with tenant_scope(key.tenant_id), connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(k::text, '') FROM tenants_apikey k")
        keys = cursor.fetchone()[0]
        cursor.execute("SELECT string_agg(e::text, '') FROM audit_entry e")
        entries = cursor.fetchone()[0]
    assert token not in keys + entries
    assert token[11:] not in keys + entries
    assert token[:10] in keys  # the part that tells keys apart


@pytest.mark.parametrize(
    "token", ["", "as_", "as_" + "0" * 48, "Bearer x", "ä\ud800\x00", "'; DROP TABLE x", "a" * 100_000]
)
def test_an_unknown_token_is_refused(admin: Actor, token: str) -> None:
    with pytest.raises(Unauthorised, match="not valid"):
        api_keys.resolve(token)


def test_a_revoked_key_looks_like_an_unknown_one(admin: Actor) -> None:
    token, key = issue(admin)
    api_keys.revoke(key.pk, actor=admin, reason="left on a bus")
    with pytest.raises(Unauthorised) as revoked:
        api_keys.resolve(token)
    with pytest.raises(Unauthorised) as unknown:
        api_keys.resolve("as_" + "0" * 48)
    assert revoked.value.message == unknown.value.message


def test_an_expired_key_says_so_and_names_the_way_out(admin: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    end = datetime(2031, 5, 6, tzinfo=UTC)
    token, _ = issue(admin, expires_at=end)
    assert api_keys.resolve(token).name == "ci"
    for moment in (end, end + timedelta(days=1)):
        monkeypatch.setattr(clock, "now", lambda moment=moment: moment)
        with pytest.raises(Unauthorised, match=r"expired on 2031-05-06\. An admin issues another"):
            api_keys.resolve(token)


def test_a_key_that_is_expired_and_revoked_says_nothing(admin: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    token, key = issue(admin, expires_at=datetime(2031, 1, 1, tzinfo=UTC))
    api_keys.revoke(key.pk, actor=admin)
    monkeypatch.setattr(clock, "now", lambda: datetime(2032, 1, 1, tzinfo=UTC))
    with pytest.raises(Unauthorised, match="not valid"):
        api_keys.resolve(token)


def test_right_and_wrong_tokens_cost_the_same_look_up(admin: Actor) -> None:
    token, _ = issue(admin)
    api_keys.resolve(token)  # notes its use
    revoked, other = issue(admin)
    api_keys.revoke(other.pk, actor=admin)
    counts = set()
    for candidate in (token, revoked, "as_" + "0" * 48, "", "x" * 1_000):
        with CaptureQueriesContext(connection) as asked, suppress(Unauthorised):
            api_keys.resolve(candidate)
        counts.add(len(asked))
    assert counts == {1}


def test_a_use_is_noted_once_a_minute(admin: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    token, key = issue(admin)
    began = clock.now()
    uses = []
    for second in (0, 59, 60, 61, 121):
        monkeypatch.setattr(clock, "now", lambda second=second: began + timedelta(seconds=second))
        api_keys.resolve(token)
        with tenant_scope(key.tenant_id):
            key.refresh_from_db()
        assert key.last_used_at is not None
        uses.append(round((key.last_used_at - began).total_seconds()))
    assert uses == [0, 0, 60, 60, 121]


def test_revoking_twice_is_one_act(admin: Actor) -> None:
    _, key = issue(admin)
    first = api_keys.revoke(key.pk, actor=admin, reason="leaked")
    assert api_keys.revoke(key.pk, actor=admin).revoked_at == first.revoked_at
    with tenant_scope(key.tenant_id):
        acts = AuditEntry.objects.filter(object_id=key.pk).order_by("object_seq").values_list("action", flat=True)
        assert list(acts) == ["issued", "revoked"]


def test_only_those_with_admin_keys_issue_and_revoke(acme: Tenant, admin: Actor) -> None:
    _, key = issue(admin)
    for role in ("viewer", "operator", "approver"):
        user = make_user(f"{role}@x.example")
        members.add(user, role=role, actor=admin)
        actor = members.membership(user, acme)
        with pytest.raises(Forbidden):
            issue(actor)
        with pytest.raises(Forbidden):
            api_keys.revoke(key.pk, actor=actor)
    with tenant_scope(acme.pk):
        assert ApiKey.objects.filter(revoked_at=None).count() == 1


def test_a_key_cannot_issue_more_than_it_has(admin: Actor) -> None:
    token, _ = issue(admin, "admin.keys", "runs.read")
    machine = api_keys.resolve(token)
    assert issue(machine, "runs.read")
    with pytest.raises(Forbidden):
        issue(machine, "runs.read", "memory.write")


def test_a_key_of_another_tenant_is_not_found(admin: Actor) -> None:
    _, theirs = issue(admin_of(make_tenant("globex")))
    for key_id in (theirs.pk, new_id()):
        with pytest.raises(NotFound):
            api_keys.revoke(key_id, actor=admin)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["runs.fly"]}, "scopes"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expires_at"),
    ],
)
def test_a_bad_order_is_refused_with_its_field(admin: Actor, change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        api_keys.issue(**{"name": "ci", "scopes": ["runs.read"], "actor": admin, **change})
    assert refused.value.field == field


def test_there_is_a_cap_that_revoked_and_expired_keys_leave(admin: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "API_KEYS_MAX", 2)
    _, first = issue(admin)
    issue(admin, expires_at=clock.now() + timedelta(days=1))
    with pytest.raises(Conflict, match="Revoke one"):
        issue(admin)
    api_keys.revoke(first.pk, actor=admin)
    issue(admin)
    later = clock.now() + timedelta(days=2)
    monkeypatch.setattr(clock, "now", lambda: later)
    issue(admin)


def test_a_scope_that_no_longer_exists_gives_nothing(acme: Tenant, admin: Actor) -> None:
    token, key = issue(admin)
    with tenant_scope(acme.pk):
        ApiKey.objects.filter(pk=key.pk).update(scopes=["runs.read", "runs.retired"])
    assert api_keys.resolve(token).scopes == {"runs.read"} <= set(VERBS)
