"""Locks: one order, bounded waits, gone with the transaction."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F

from agentstate.core.errors import LockTimeout
from agentstate.db import locks, sql
from agentstate.tenants.models import Membership, Tenant
from agentstate.tenants.scope import tenant_scope


@pytest.fixture
def elsewhere() -> Callable[[Callable[[], Any]], Any]:
    """Runs something on a second connection."""

    def run(act: Callable[[], Any]) -> Any:
        def closing() -> Any:
            try:
                return act()
            finally:
                connection.close()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(closing).result(30)

    return run


def _try(name: str) -> bool:
    with transaction.atomic():
        return locks.try_hold(name, 1)


def test_a_named_lock_keeps_others_out_until_the_transaction_ends(committed_db: None, elsewhere: Any) -> None:
    with transaction.atomic():
        locks.hold("seal", 1)
        assert not elsewhere(lambda: _try("seal"))
        assert elsewhere(lambda: _try("other"))
    assert elsewhere(lambda: _try("seal"))


def test_waiting_longer_than_the_bound_is_a_lock_timeout(committed_db: None, tenant: Tenant, elsewhere: Any) -> None:
    def wait() -> None:
        with transaction.atomic(), locks.lock_timeout(0.05):
            Tenant.objects.filter(id=tenant.id).update(name="second")

    def hold() -> None:
        with transaction.atomic(), locks.lock_timeout(0.05):
            locks.hold("seal", 1)

    with transaction.atomic():
        Tenant.objects.filter(id=tenant.id).update(name="first")
        locks.hold("seal", 1)
        for act in (wait, hold):
            with pytest.raises(LockTimeout) as refused:
                elsewhere(act)
            assert (refused.value.http_status, refused.value.data) == (503, {"retry_after_s": 1})
    tenant.refresh_from_db()
    assert tenant.name == "first"


@pytest.mark.django_db
def test_the_bound_ends_with_its_block() -> None:
    before = sql.row("SELECT current_setting('lock_timeout')")
    with locks.lock_timeout(1.5):
        assert sql.row("SELECT current_setting('lock_timeout')") == ("1500ms",)
    assert sql.row("SELECT current_setting('lock_timeout')") == before


def test_rows_locked_in_order_never_deadlock(committed_db: None, tenant: Tenant, other_tenant: Tenant) -> None:
    def add(rows: tuple[Tenant, Tenant]) -> None:
        try:
            for _ in range(30):
                with transaction.atomic():
                    for row in locks.lock_in_order(*rows):
                        Tenant.objects.filter(id=row.id).update(audit_seq=F("audit_seq") + 1)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, [(tenant, other_tenant), (other_tenant, tenant)]))
    assert [row.audit_seq for row in Tenant.objects.all()] == [60, 60]


@pytest.mark.django_db
def test_rows_come_back_fresh_in_the_order_asked_and_are_locked_by_kind(
    tenant: Tenant, other_tenant: Tenant, alice_user: Any, django_assert_num_queries: Any
) -> None:
    Tenant.objects.filter(id=tenant.id).update(name="renamed")
    with tenant_scope(tenant.id):
        member = Membership.objects.get(user=alice_user)
        with django_assert_num_queries(3) as asked:
            found = locks.lock_in_order(member, tenant, other_tenant)
    assert found == [member, tenant, other_tenant]
    assert found[1].name == "renamed"  # type: ignore[attr-defined]
    tables = [query["sql"].split('FROM "')[1].split('"')[0] for query in asked.captured_queries]
    assert tables == ["tenants_tenant", "tenants_tenant", "tenants_membership"]


def test_locks_outside_a_transaction_are_refused(committed_db: None, tenant: Tenant) -> None:
    for act in (
        lambda: locks.hold("x"),
        lambda: locks.try_hold("x"),
        lambda: locks.lock_in_order(tenant),
        lambda: locks.lock_timeout(1).__enter__(),
    ):
        with pytest.raises(AssertionError):
            act()


def test_names_and_parts_make_different_locks() -> None:
    numbers = {locks.number("a", "b"), locks.number("ab"), locks.number("a", "c"), locks.number("a")}
    assert len(numbers) == 4
    assert all(-(2**63) <= number < 2**63 for number in numbers)
    assert locks.number("a", 1) == locks.number("a", "1")
