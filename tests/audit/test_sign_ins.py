"""Who signed in, and who failed to, stands in the trail of each tenant concerned, and of no other."""

from __future__ import annotations

import pytest
from django.contrib.auth import authenticate
from django.test import Client, RequestFactory

from agentstate.audit import history, verification
from agentstate.tenants import keyring
from agentstate.tenants.models import Membership, Tenant, User
from agentstate.tenants.scope import tenant_scope


def acts(tenant: Tenant, user: User) -> list[tuple[str, str, str]]:
    with tenant_scope(tenant.id):
        member = Membership.objects.get(user=user)
        return [(entry.action, entry.actor_kind, entry.actor_name) for entry in history.of("membership", member.id)]


def test_a_sign_in_is_recorded_in_every_tenant_of_the_person(
    committed_db: None, client: Client, tenant: Tenant, other_tenant: Tenant, bob_user: User, charlie_user: User
) -> None:
    with tenant_scope(other_tenant.id):
        Membership.objects.create(user=bob_user, role="viewer")
    client.force_login(bob_user)
    assert acts(tenant, bob_user) == acts(other_tenant, bob_user) == [("signed_in", "user", "Bob")]
    assert acts(other_tenant, charlie_user) == []
    assert verification.verify(tenant.id) == verification.verify(other_tenant.id) == []


def test_a_failed_sign_in_is_recorded_and_its_address_is_not_readable(
    committed_db: None, tenant: Tenant, bob_user: User
) -> None:
    request = RequestFactory().post("/login/", REMOTE_ADDR="192.0.2.7")
    assert authenticate(request, username="Bob@example.test ", password="wrong") is None
    assert acts(tenant, bob_user) == [("sign_in_failed", "system", "sign-in")]
    with tenant_scope(tenant.id):
        (entry,) = history.newest()
    assert entry.detail == {"address": keyring.hmac(tenant.id, b"192.0.2.7").hex()[:32]}


@pytest.mark.parametrize("email", ["nobody@example.test", ""])
def test_an_unknown_person_leaves_no_trace_in_any_tenant(
    committed_db: None, tenant: Tenant, bob_user: User, email: str
) -> None:
    assert authenticate(RequestFactory().post("/login/"), username=email, password="wrong") is None
    with tenant_scope(tenant.id):
        assert not history.newest().exists()
