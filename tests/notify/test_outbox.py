"""A notice is as durable as what caused it, is sent at least once, and stays in its tenant."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, transaction

from agentstate.audit import history, verification
from agentstate.core.clock import now
from agentstate.core.errors import Corrupt
from agentstate.db import sql
from agentstate.notify import delivery, mail, outbox, tasks
from agentstate.notify.apps import check_mail_server
from agentstate.notify.models import Outbox
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant, User
from agentstate.tenants.scope import tenant_scope

from .conftest import Catcher

PATH = "/t/acme/approvals/apr_1/"
CANARY = "canary-5c1f"


def leave(tenant: Tenant, key: str = "apr_1", **body: Any) -> None:
    with tenant_scope(tenant.id):
        outbox.put(delivery.APPROVAL, key, {"path": PATH, **body})


def standing(tenant: Tenant) -> list[tuple[str, bool, bool]]:
    with tenant_scope(tenant.id):
        return [(one.topic, one.sent_at is not None, one.given_up_at is not None) for one in _all()]


def make_due(tenant: Tenant) -> None:
    with tenant_scope(tenant.id):
        Outbox.objects.filter(sent_at=None).update(due_at=now() - timedelta(seconds=1))


def test_those_who_may_decide_get_one_link_each_and_nothing_secret(
    committed_db: None, tenant: Tenant, alice: Actor, bob: Actor, olga: Actor, victor: Actor, catcher: Catcher
) -> None:
    leave(tenant, secret=CANARY)
    assert tasks.deliver() == 3
    assert sorted(letter["To"] for letter in catcher.mails) == ["alice@example.test", "bob@example.test"]
    for letter in catcher.mails:
        text = letter.get_content()
        assert f"http://127.0.0.1:8000{PATH}" in text
        assert CANARY not in text
        assert (letter["Subject"], letter["Auto-Submitted"]) == ("Approval needed in Acme", "auto-generated")
    assert len({letter["Message-ID"] for letter in catcher.mails}) == 2
    assert standing(tenant) == [("approval.mail", True, False), ("mail", True, False), ("mail", True, False)]
    assert tasks.deliver() == 0


def test_a_member_who_left_or_sleeps_gets_nothing(
    committed_db: None, tenant: Tenant, alice: Actor, alice_user: User, bob: Actor, bob_user: User, catcher: Catcher
) -> None:
    from agentstate.tenants.models import Membership

    User.objects.filter(id=bob_user.id).update(is_active=False)
    with tenant_scope(tenant.id):
        Membership.objects.filter(user=alice_user).update(removed_at=now())
    leave(tenant)
    assert tasks.deliver() == 1
    assert catcher.mails == []


def test_a_notice_rolls_back_with_what_caused_it(committed_db: None, tenant: Tenant, catcher: Catcher) -> None:
    with pytest.raises(ZeroDivisionError), tenant_scope(tenant.id):
        outbox.put(delivery.APPROVAL, "apr_1", {"path": PATH})
        raise ZeroDivisionError
    assert standing(tenant) == []


def test_the_same_notice_twice_is_one(committed_db: None, tenant: Tenant, bob: Actor, catcher: Catcher) -> None:
    leave(tenant)
    leave(tenant)
    tasks.deliver()
    leave(tenant)
    tasks.deliver()
    assert len(catcher.mails) == 1


def test_a_crash_after_sending_sends_again_with_the_same_message_id(
    committed_db: None, tenant: Tenant, bob: Actor, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tenant)
    mark = outbox.sent

    def die(notice: Outbox) -> None:
        if notice.topic == delivery.MAIL:
            raise SystemExit
        mark(notice)

    monkeypatch.setattr(outbox, "sent", die)
    with pytest.raises(SystemExit):
        tasks.deliver()
    monkeypatch.setattr(outbox, "sent", mark)
    assert tasks.deliver() == 0  # not before the back-off
    make_due(tenant)
    assert tasks.deliver() == 1
    assert len(catcher.mails) == 2
    assert len({letter["Message-ID"] for letter in catcher.mails}) == 1


@pytest.mark.parametrize("trouble", ["refused", "nobody there"])
def test_trouble_is_tried_again_later_each_time_and_then_given_up_in_the_trail(
    committed_db: None, tenant: Tenant, bob: Actor, catcher: Catcher, settings: Any, trouble: str
) -> None:
    leave(tenant)
    catcher.refuse = "550 no such user"
    if trouble == "nobody there":
        settings.EMAIL_URL = "smtp://127.0.0.1:1"
    tasks.deliver()
    waits = []
    for _ in range(outbox.ATTEMPTS_MAX - 1):
        with tenant_scope(tenant.id):
            notice = Outbox.objects.get(topic="mail")
            waits.append((notice.due_at - now()).total_seconds())
        make_due(tenant)
        assert tasks.deliver() == 1
    assert waits == sorted(waits)
    assert (10 < waits[0] < 20, 3500 < waits[-1] <= 3600) == (True, True)
    assert standing(tenant)[1] == ("mail", False, True)
    make_due(tenant)
    assert tasks.deliver() == 0
    with tenant_scope(tenant.id):
        notice = Outbox.objects.get(topic="mail")
        entry = history.of("outbox", notice.id).get()
        assert notice.attempts == outbox.ATTEMPTS_MAX
    assert (entry.action, entry.actor_kind, entry.detail["attempts"]) == ("given_up", "system", outbox.ATTEMPTS_MAX)
    assert verification.verify(tenant.id) == []


def test_one_refused_address_does_not_keep_the_others_waiting(
    committed_db: None, tenant: Tenant, alice: Actor, bob: Actor, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = mail.send

    def picky(server: mail.Server, *, to: str, **letter: Any) -> None:
        if to.startswith("alice"):
            raise ConnectionRefusedError
        send(server, to=to, **letter)

    monkeypatch.setattr(mail, "send", picky)
    leave(tenant)
    tasks.deliver()
    assert [letter["To"] for letter in catcher.mails] == ["bob@example.test"]


def test_without_a_mail_server_notices_end_at_once(
    committed_db: None, tenant: Tenant, bob: Actor, settings: Any
) -> None:
    settings.EMAIL_URL = ""
    leave(tenant)
    assert tasks.deliver() == 1
    assert standing(tenant) == [("approval.mail", False, True)]


def test_one_notice_that_does_not_open_stops_no_other(
    committed_db: None, tenant: Tenant, bob: Actor, catcher: Catcher
) -> None:
    leave(tenant, "broken")
    with tenant_scope(tenant.id):
        Outbox.objects.update(body=b"nothing of ours")
    leave(tenant, "whole")
    assert tasks.deliver() == 3
    assert len(catcher.mails) == 1
    with tenant_scope(tenant.id):
        broken = Outbox.objects.get(key="broken")
    assert (broken.error, broken.attempts, broken.sent_at) == ("Corrupt", 1, None)


def test_a_wrong_address_of_the_mail_server_is_said_at_the_start_and_burns_no_attempt(
    committed_db: None, tenant: Tenant, bob: Actor, settings: Any
) -> None:
    settings.EMAIL_URL = "mail.example.test"
    leave(tenant)
    assert [found.id for found in check_mail_server()] == ["notify.E001"]
    with pytest.raises(ImproperlyConfigured):
        tasks.deliver()
    with tenant_scope(tenant.id):
        assert Outbox.objects.get().attempts == 0
    settings.EMAIL_URL = ""
    assert check_mail_server() == []


def test_a_topic_nobody_knows_ends_at_once(committed_db: None, tenant: Tenant, catcher: Catcher) -> None:
    with tenant_scope(tenant.id):
        outbox.put("carrier.pigeon", "1", {})
    tasks.deliver()
    assert standing(tenant) == [("carrier.pigeon", False, True)]


def test_two_deliverers_at_once_send_each_notice_once(
    committed_db: None, tenant: Tenant, other_tenant: Tenant, bob: Actor, charlie: Actor, catcher: Catcher
) -> None:
    for n in range(8):
        leave(tenant, f"apr_{n}")
        leave(other_tenant, f"apr_{n}")

    def deliver(_: int) -> None:
        try:
            for _ in range(3):
                delivery.deliver()
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(deliver, range(3)))
    assert len(catcher.mails) == len({letter["Message-ID"] for letter in catcher.mails}) == 16
    assert {letter["To"] for letter in catcher.mails} == {"bob@example.test", "charlie@example.test"}


def test_the_function_that_crosses_tenants_gives_ids_and_no_more(
    committed_db: None, tenant: Tenant, other_tenant: Tenant
) -> None:
    leave(tenant, secret=CANARY)
    leave(other_tenant)
    assert {row[0] for row in outbox.due(rows_max=10)} == {tenant.id, other_tenant.id}
    assert sql.rows("SELECT * FROM agentstate_outbox_due(10) LIMIT 1") == sql.rows(
        "SELECT tenant_id, id FROM agentstate_outbox_due(10) LIMIT 1"
    )
    with tenant_scope(tenant.id):
        assert {one.tenant_id for one in _all()} == {tenant.id}
    with pytest.raises(DatabaseError, match="no tenant scope"), transaction.atomic():
        list(_all())


def test_only_the_application_may_call_the_functions(committed_db: None, settings: Any) -> None:
    from agentstate.dev.testing import superuser_url

    with psycopg.connect(superuser_url(settings.DATABASES["default"]["NAME"])) as superuser:
        found = superuser.execute(
            "SELECT proname, has_function_privilege('app', oid, 'EXECUTE'), "
            "(SELECT count(*) FROM aclexplode(proacl) WHERE grantee = 0) FROM pg_proc "
            "WHERE proname ~ '^agentstate_outbox'"
        ).fetchall()
    assert sorted(found) == [("agentstate_outbox_due", True, 0), ("agentstate_outbox_old", True, 0)]


@pytest.mark.django_db
def test_a_body_moved_to_another_notice_does_not_open(tenant: Tenant, scope: None) -> None:
    outbox.put("mail", "1", {"to": "a"})
    outbox.put("mail", "2", {"to": "b"})
    first, second = _all()
    assert outbox.read(first) == {"to": "a"}
    first.body, first.wrapped = second.body, second.wrapped
    with pytest.raises(Corrupt):
        outbox.read(first)


def test_what_is_long_over_is_pruned_and_the_trail_still_verifies(
    committed_db: None, tenant: Tenant, bob: Actor, catcher: Catcher
) -> None:
    leave(tenant, "sent")
    tasks.deliver()
    leave(tenant, "given up")
    with tenant_scope(tenant.id):
        failing = Outbox.objects.get(key="given up")
        failing.attempts = outbox.ATTEMPTS_MAX
    assert outbox.failed(failing, "Refused")
    assert outbox.prune() == 0
    _age(tenant, days=8)
    assert (outbox.prune(), len(standing(tenant))) == (2, 1)
    _age(tenant, days=91)
    assert (outbox.prune(), standing(tenant)) == (1, [])
    assert verification.verify(tenant.id) == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://localhost:2525", ("smtp", "localhost", 2525, "", "", "agentstate@127.0.0.1")),
        ("smtps://mail.test", ("smtps", "mail.test", 465, "", "", "agentstate@127.0.0.1")),
        (
            "smtp+tls://me%40x:p%2Fw@mail.test?from=house@x.test",
            ("smtp+tls", "mail.test", 587, "me@x", "p/w", "house@x.test"),
        ),
    ],
)
def test_the_address_of_the_mail_server_is_read(url: str, expected: tuple[object, ...]) -> None:
    server = mail.parse(url)
    found = (server.scheme, server.host, server.port, server.user, server.password, server.sender)
    assert found == expected


@pytest.mark.parametrize("url", ["http://x", "smtp:", "localhost:25", "smtp://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="EMAIL_URL must be"):
        mail.parse(url)


def _all() -> list[Outbox]:
    return list(Outbox.objects.order_by("id"))


def _age(tenant: Tenant, *, days: int) -> None:
    long_ago = now() - timedelta(days=days)
    with tenant_scope(tenant.id):
        Outbox.objects.filter(sent_at__isnull=False).update(sent_at=long_ago)
        Outbox.objects.filter(given_up_at__isnull=False).update(given_up_at=long_ago)
