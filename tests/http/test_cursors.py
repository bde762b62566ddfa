"""Keyset pages: whole, in order, undisturbed by new rows; a cursor is good for its own list only."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentstate.core.errors import Invalid
from agentstate.http import cursors
from agentstate.tenants.models import Tenant

KEYS: list[cursors.type_key] = [datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), UUID(int=7), 2**40, "a\0é"]


def test_a_cursor_gives_its_values_back() -> None:
    text = cursors.encode(KEYS, scope="runs")
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
    assert cursors.decode(text, scope="runs") == KEYS


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(Invalid) as refused:
        cursors.decode(cursors.encode(KEYS, scope="acme runs failed"), scope="globex runs failed")
    assert refused.value.field == "after"


@pytest.mark.parametrize("text", ["", "x", "!!!!", "é", "A" * 2000, "AAAAAAAAAAAAAAAAAAAAAAAA", "\0"])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        cursors.decode(text, scope="runs")


def test_no_single_changed_character_passes() -> None:
    text = cursors.encode([1, "a"], scope="runs")
    for at in range(len(text) - 1):  # the last one may hold unused bits
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(Invalid):
            cursors.decode(changed, scope="runs")


@pytest.fixture
def tenants(db: None) -> list[Tenant]:
    return [Tenant.objects.create(slug=f"t{n}", name=f"{n // 3}") for n in range(11)]


@pytest.mark.parametrize("order", [("-id",), ("id",), ("name", "id"), ("-name", "-id")])
def test_pages_are_the_whole_list_in_order(tenants: list[Tenant], order: tuple[str, ...]) -> None:
    seen: list[Tenant] = []
    after, pages = "", 0
    while pages == 0 or after:
        page = cursors.page(Tenant.objects.all(), order=order, after=after, scope="t", rows_max=4)
        seen, after, pages = seen + page.rows, page.after, pages + 1
    assert seen == list(Tenant.objects.order_by(*order))
    assert pages == 3


def test_rows_that_arrive_meanwhile_neither_repeat_nor_hide_others(tenants: list[Tenant]) -> None:
    first = cursors.page(Tenant.objects.all(), after="", scope="t", rows_max=6)
    Tenant.objects.create(slug="new", name="new")
    rest = cursors.page(Tenant.objects.all(), after=first.after, scope="t", rows_max=6)
    assert [row.slug for row in rest.rows] == ["t4", "t3", "t2", "t1", "t0"]  # t10 .. t5 were the first page
    assert rest.after == ""


def test_an_exactly_full_last_page_leads_nowhere(tenants: list[Tenant]) -> None:
    assert cursors.page(Tenant.objects.all(), scope="t", rows_max=11).after == ""
    assert cursors.page(Tenant.objects.all(), scope="t", rows_max=10).after != ""


def test_a_page_is_one_row_comparison(tenants: list[Tenant]) -> None:
    first = cursors.page(Tenant.objects.all(), order=("-name", "-id"), scope="t", rows_max=4)
    with CaptureQueriesContext(connection) as asked:
        cursors.page(Tenant.objects.all(), order=("-name", "-id"), after=first.after, scope="t", rows_max=4)
    assert len(asked) == 1
    assert '("tenants_tenant"."name", "tenants_tenant"."id") < (' in asked[0]["sql"]
    assert " OR " not in asked[0]["sql"]


def test_a_cursor_with_another_number_of_values_is_refused(tenants: list[Tenant]) -> None:
    after = cursors.encode([UUID(int=1)], scope="t")
    with pytest.raises(Invalid):
        cursors.page(Tenant.objects.all(), order=("-name", "-id"), after=after, scope="t")
