from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from agentstate.audit.models import AuditEntry
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound
from agentstate.tenants import members
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Membership, Tenant, User
from agentstate.tenants.scope import tenant_scope
from tests.tenancy.people import admin_of, make_tenant, make_user, ourselves

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def admin(acme: Tenant) -> Actor:
    return admin_of(acme)


def acts(member: Membership) -> list[tuple[str, str]]:
    with tenant_scope(member.tenant_id):
        entries = AuditEntry.objects.filter(object_id=member.pk).order_by("object_seq")
        return [(entry.action, entry.actor_name) for entry in entries]


def test_a_founded_tenant_has_an_admin_and_keys(acme: Tenant, admin: Actor) -> None:
    assert (admin.kind, admin.role, admin.tenant_id) == ("user", "admin", acme.pk)
    with pytest.raises(Conflict, match="already"):
        make_tenant_again()


def make_tenant_again() -> None:
    members.found(slug="acme", name="Other", admin=make_user("other@acme.example"))


@pytest.mark.parametrize(
    ("slug", "name"), [("", "x"), ("a b", "x"), ("a/b", "x"), ("ä", "x"), ("x" * 61, "x"), ("x", " ")]
)
def test_a_tenant_needs_a_slug_that_a_url_can_hold(slug: str, name: str) -> None:
    with pytest.raises(Invalid):
        members.found(slug=slug, name=name, admin=make_user("a@x.example"))


def test_a_member_comes_changes_goes_and_comes_back_in_one_history(acme: Tenant, admin: Actor) -> None:
    bob = make_user("bob@x.example")
    member = members.add(bob, role="viewer", actor=admin)
    assert members.membership(bob, acme).role == "viewer"
    members.change_role(bob.pk, role="approver", actor=admin, reason="on call")
    members.change_role(bob.pk, role="approver", actor=admin)  # again changes nothing
    assert members.membership(bob, acme).role == "approver"
    members.remove(bob.pk, actor=admin)
    assert members.tenants_of(bob) == []
    with pytest.raises(NotFound):
        members.remove(bob.pk, actor=admin)
    again = members.add(bob, role="operator", actor=admin)
    assert again.pk == member.pk
    assert members.membership(bob, acme).role == "operator"
    assert [action for action, _ in acts(member)] == ["added", "role_changed", "removed", "added"]
    assert {who for _, who in acts(member)} == {"Admin"}


def test_a_member_cannot_be_added_twice(acme: Tenant, admin: Actor) -> None:
    bob = make_user("bob@x.example")
    members.add(bob, role="viewer", actor=admin)
    with pytest.raises(Conflict, match="member already"):
        members.add(bob, role="admin", actor=admin)
    assert members.membership(bob, acme).role == "viewer"


@pytest.mark.parametrize("role", ["", "owner", "ADMIN"])
def test_an_unknown_role_is_refused(admin: Actor, role: str) -> None:
    with pytest.raises(Invalid):
        members.add(make_user("bob@x.example"), role=role, actor=admin)


def test_the_last_admin_stays(acme: Tenant, admin: Actor) -> None:
    alice = User.objects.get(pk=admin.id)
    with pytest.raises(Conflict, match="last admin"):
        members.remove(alice.pk, actor=admin)
    with pytest.raises(Conflict, match="last admin"):
        demote(alice, admin)
    second = make_user("second@x.example")
    members.add(second, role="admin", actor=admin)
    second.is_active = False
    second.save()
    with pytest.raises(Conflict, match="last admin"):  # somebody who cannot sign in is no admin
        demote(alice, admin)
    second.is_active = True
    second.save()
    demote(alice, admin)


def demote(user: User, actor: Actor) -> None:
    members.change_role(user.pk, role="viewer", actor=actor)


def test_two_admins_cannot_remove_each_other_at_once(committed_db: None) -> None:
    acme = make_tenant("acme")
    admin = admin_of(acme)
    second = make_user("second@x.example")
    members.add(second, role="admin", actor=admin)
    pair = [User.objects.get(pk=admin.id), second]
    start, outcomes = threading.Barrier(2), []

    def remove(user: User) -> None:
        start.wait()
        try:
            members.remove(user.pk, actor=ourselves(acme))
            outcomes.append("removed")
        except Conflict:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=remove, args=[user]) for user in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "removed"]


def test_only_admins_change_members(acme: Tenant, admin: Actor) -> None:
    stranger = make_user("stranger@x.example")
    for role in ("viewer", "operator", "approver"):
        user = make_user(f"{role}@x.example")
        members.add(user, role=role, actor=admin)
        actor = members.membership(user, acme)
        with pytest.raises(Forbidden):
            members.add(stranger, role="viewer", actor=actor)
        with pytest.raises(Forbidden):
            members.invite(email="x@x.example", role="viewer", actor=actor)
        with pytest.raises(Forbidden):
            members.change_role(user.pk, role="admin", actor=actor)
        with pytest.raises(Forbidden):
            members.remove(user.pk, actor=actor)


def test_an_admin_of_another_tenant_reaches_nobody_here(acme: Tenant, admin: Actor) -> None:
    charlie = admin_of(make_tenant("globex"))
    bob = make_user("bob@x.example")
    members.add(bob, role="viewer", actor=admin)
    with pytest.raises(NotFound):
        members.change_role(bob.pk, role="admin", actor=charlie)
    with pytest.raises(NotFound):
        members.remove(bob.pk, actor=charlie)
    assert members.membership(bob, acme).role == "viewer"


def test_an_invited_stranger_gets_an_account_without_a_password(acme: Tenant, admin: Actor) -> None:
    members.invite(email=" New@X.example ", name="New", role="viewer", actor=admin)
    user = User.objects.get(email="new@x.example")
    assert not user.has_usable_password()
    assert members.membership(user, acme).role == "viewer"
    with pytest.raises(Conflict):
        members.invite(email="NEW@x.example", role="viewer", actor=admin)
    assert User.objects.filter(email__iexact="new@x.example").count() == 1


@pytest.mark.parametrize("email", ["", "x", "x@", "a b@x.example", "x@x.example\n", f"{'x' * 300}@x.example"])
def test_what_is_no_mail_address_is_refused(admin: Actor, email: str) -> None:
    before = User.objects.count()
    if email.strip() != email:
        members.invite(email=email, role="viewer", actor=admin)  # spaces around it are taken off
        return
    with pytest.raises(Invalid):
        members.invite(email=email, role="viewer", actor=admin)
    assert User.objects.count() == before


def test_mail_addresses_are_one_whatever_their_case() -> None:
    user = User.objects.create_user("Alice@X.example", "correct horse battery")
    assert user.email == "alice@x.example"
    assert authenticate(username="ALICE@x.example", password="correct horse battery") == user
    assert authenticate(username="alice@x.example", password="wrong") is None
    with pytest.raises(IntegrityError, match="tenants_user_email_lower"), transaction.atomic():
        User.objects.filter(pk=user.pk).update(email="Alice@X.example")


def test_a_deactivated_person_belongs_nowhere(acme: Tenant, admin: Actor) -> None:
    alice = User.objects.get(pk=admin.id)
    alice.is_active = False
    alice.save()
    assert members.tenants_of(alice) == []
    with pytest.raises(NotFound):
        members.membership(alice, acme)


def test_somebody_not_signed_in_belongs_nowhere() -> None:
    from django.contrib.auth.models import AnonymousUser

    assert members.tenants_of(AnonymousUser()) == []


def test_the_tenants_of_a_person_are_one_round_trip(acme: Tenant, admin: Actor) -> None:
    alice: Any = User.objects.get(pk=admin.id)
    for slug in ("zeta", "beta"):
        members.add(alice, role="viewer", actor=ourselves(make_tenant(slug)))
    with CaptureQueriesContext(connection) as asked:
        mine = members.tenants_of(alice)
    assert len(asked) == 1
    assert [tenant.slug for tenant in mine] == ["acme", "beta", "zeta"]
