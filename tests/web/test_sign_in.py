"""Signing in, choosing a tenant, preferences: real forms that work without a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import Client

if TYPE_CHECKING:
    from agentstate.tenants.models import Tenant, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def password(alice_user: User) -> str:
    alice_user.set_password("correct horse")
    alice_user.save(update_fields=["password"])
    return "correct horse"


def test_a_member_signs_in_and_lands_on_the_page_that_was_asked_for(
    client: Client, alice_user: User, tenant: Tenant, password: str
) -> None:
    refused = client.get(f"/t/{tenant.slug}/runs/?state=failed")
    assert refused.status_code == 302
    form = client.get(refused["Location"])
    assert b"E-mail" in form.content
    done = client.post(refused["Location"], {"email": alice_user.email.upper(), "password": password})
    assert done.status_code == 303
    assert done["Location"] == f"/t/{tenant.slug}/runs/?state=failed"
    assert client.get(done["Location"]).status_code == 200


def test_a_wrong_password_keeps_the_address_and_says_nothing_about_the_account(
    client: Client, alice_user: User, password: str
) -> None:
    wrong = client.post("/login/", {"email": alice_user.email, "password": "no"})
    unknown = client.post("/login/", {"email": "nobody@example.test", "password": "no"})
    assert wrong.status_code == unknown.status_code == 422
    assert b"do not match" in wrong.content and b"do not match" in unknown.content
    assert alice_user.email.encode() in wrong.content


def test_the_sixth_try_is_refused_even_with_the_right_password(client: Client, alice_user: User, password: str) -> None:
    for _ in range(5):
        client.post("/login/", {"email": alice_user.email, "password": "no"})
    sixth = client.post("/login/", {"email": alice_user.email, "password": password})
    assert sixth.status_code == 429
    assert int(sixth["Retry-After"]) > 0
    assert b"too many tries" in sixth.content


@pytest.mark.parametrize("address", ["https://evil.test/", "//evil.test/x", "javascript:alert(1)", "\\\\evil.test"])
def test_another_host_is_never_gone_to_after_signing_in(
    client: Client, alice_user: User, password: str, address: str
) -> None:
    done = client.post("/login/", {"email": alice_user.email, "password": password, "next": address})
    assert done["Location"] == "/"


def test_signing_out_needs_a_post(client: Client, alice_user: User) -> None:
    client.force_login(alice_user)
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/").status_code == 303
    assert client.get("/").status_code == 302


def test_a_member_of_one_tenant_goes_there_at_once_and_of_none_is_told(
    client: Client, alice_user: User, tenant: Tenant
) -> None:
    from agentstate.tenants.models import User

    client.force_login(alice_user)
    assert client.get("/")["Location"] == f"/t/{tenant.slug}/"
    client.force_login(User.objects.create_user("new@example.test"))
    assert b"not a member of any tenant" in client.get("/").content


def test_preferences_are_a_form_and_dress_every_page(client: Client, alice_user: User, tenant: Tenant) -> None:
    client.force_login(alice_user)
    done = client.post("/preferences/", {"theme": "dark", "density": "comfortable", "keys": "off", "next": "/x/"})
    assert (done.status_code, done["Location"]) == (303, "/x/")
    page = client.get(f"/t/{tenant.slug}/").content.decode()
    assert 'data-theme="dark"' in page and 'data-density="comfortable"' in page and 'data-shortcuts="off"' in page
    client.post("/preferences/", {"theme": '"><script>', "density": "huge"})
    assert 'data-theme="dark"' in client.get(f"/t/{tenant.slug}/").content.decode()


def test_another_tenants_pages_look_like_pages_that_do_not_exist(
    client: Client, charlie_user: User, tenant: Tenant
) -> None:
    client.force_login(charlie_user)
    theirs = client.get(f"/t/{tenant.slug}/")
    missing = client.get("/t/no-such-tenant/")
    assert theirs.status_code == missing.status_code == 404
    strip = [answer.content.replace(answer["X-Request-ID"].encode(), b"") for answer in (theirs, missing)]
    assert strip[0] == strip[1]
