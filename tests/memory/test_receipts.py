"""A keyed write happens once, however often and by however many it is asked for."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from agentstate.core.errors import Conflict
from agentstate.core.limits import RECEIPT_DAYS
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.models import Receipt
from memory.services import receipts


@pytest.mark.django_db
def test_the_same_key_gets_the_first_answer_and_does_nothing(scope: None) -> None:
    done: list[int] = []

    def act() -> Any:
        done.append(1)
        return {"item": "item_1", "version": len(done)}

    answers = [receipts.once("k", {"text": "a"}, act, by="run") for _ in range(3)]
    assert answers == [{"item": "item_1", "version": 1}] * 3 and done == [1]
    assert receipts.once("k", {"text": "a"}, act, by="somebody else") == {"item": "item_1", "version": 2}


@pytest.mark.django_db
def test_the_same_key_for_something_else_is_a_conflict(scope: None) -> None:
    receipts.once("k", {"text": "a"}, lambda: None)
    with pytest.raises(Conflict, match="another request"):
        receipts.once("k", {"text": "b"}, lambda: None)


@pytest.mark.django_db
def test_a_refused_write_leaves_no_receipt(tenant: Tenant) -> None:
    def refuse() -> Any:
        raise Conflict("no")

    with pytest.raises(Conflict), tenant_scope(tenant.id):
        receipts.once("k", {}, refuse)
    with tenant_scope(tenant.id):
        assert receipts.once("k", {}, lambda: 1) == 1


@pytest.mark.django_db
def test_old_receipts_go_and_young_ones_stay(scope: None) -> None:
    for key in ("old", "young"):
        receipts.once(key, {}, lambda: None)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM memory_receipt")
        assert cursor.fetchone() == (2,)
    Receipt.objects.all().delete()
    receipts.once("young", {}, lambda: None)
    found = Receipt.objects.get()
    Receipt.objects.create(key="x" * 64, body_hash=b"", at=found.at - timedelta(days=RECEIPT_DAYS, seconds=1))
    assert receipts.drop_old() == 1
    assert Receipt.objects.get().id == found.id


@pytest.mark.django_db(transaction=True, databases=["default", "owner"])
def test_two_at_once_are_one(committed_db: None, tenant: Tenant) -> None:
    first_is_in, may_end = threading.Event(), threading.Event()
    done: list[str] = []
    answers: list[Any] = []

    def slow() -> Any:
        done.append("first")
        first_is_in.set()
        assert may_end.wait(10)
        return "first"

    def write(act: Any) -> None:
        with tenant_scope(tenant.id):
            answers.append(receipts.once("k", {}, act))
        connection.close()

    one = threading.Thread(target=write, args=(slow,))
    one.start()
    assert first_is_in.wait(10)
    two = threading.Thread(target=write, args=(lambda: done.append("second"),))
    two.start()
    two.join(0.3)
    assert two.is_alive()  # waits for the first one's end
    may_end.set()
    one.join(10)
    two.join(10)
    assert answers == ["first", "first"] and done == ["first"]
