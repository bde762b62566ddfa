"""The run list: keyset pages that lose nobody, filters that live in the address, parts for htmx."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from agentstate.core.limits import PAGE_ROWS
from agentstate.tenants.scope import tenant_scope
from runs.selectors import runs
from tests.web.forms import text
from tests.web.world import World

pytestmark = pytest.mark.django_db


def shown(page: str) -> list[str]:
    return re.findall(r'id="run-row-(run_\w+)"', page)


def test_pages_forth_and_back_show_every_run_once(alice_client: Client, world: World, base: str) -> None:
    made = [world.admit(str(number)) for number in range(PAGE_ROWS + 7)]
    first = text(alice_client.get(f"{base}/runs/"))
    assert shown(first) == made[::-1][:PAGE_ROWS]
    older = re.search(r'href="([^"]*after=run_[^"]*)"', first)
    assert older
    second = text(alice_client.get(older[1].replace("&amp;", "&")))
    assert shown(second) == made[::-1][PAGE_ROWS:]
    newer = re.search(r'href="([^"]*before=run_[^"]*)"', second)
    assert newer
    assert shown(text(alice_client.get(newer[1].replace("&amp;", "&")))) == shown(first)
    assert 'aria-disabled="true">Older' in second, "there is nothing older"


def test_filters_find_exactly_what_they_name(alice_client: Client, world: World, base: str) -> None:
    failed, done = world.failed("4411"), world.done("4398", tags=["vip", "eu"])
    waiting, _ = world.asking()
    for query, found in (
        ("state=failed", [failed]),
        ("state=succeeded", [done]),
        ("state=person", [waiting, failed]),
        ("tag=vip", [done, failed]),
        ("tag=eu", [done]),
        ("q=ticket-4411", [failed]),
        ("error=PoolTimeout", [failed]),
        ("agent=refunds&state=waiting", [waiting]),
        ("agent=nobody", []),
        ("time=hour&tag=vip&state=failed", [failed]),
        ("from=2000-01-01T00:00&to=2001-01-01T00:00", []),
        ("from=2000-01-01T00:00", [waiting, done, failed]),
    ):
        assert shown(text(alice_client.get(f"{base}/runs/?{query}"))) == found, query


@pytest.mark.parametrize(
    "query", ["state=x&time=y&from=z&after=run_1&before=%00", "q=%00&tag=%F0%9F%92%A9", "after=../.."]
)
def test_an_address_that_makes_no_sense_still_opens(alice_client: Client, world: World, base: str, query: str) -> None:
    assert alice_client.get(f"{base}/runs/?{query}").status_code == 200


def test_a_run_id_in_the_search_opens_the_run(alice_client: Client, world: World, base: str) -> None:
    run = world.admit("1")
    assert alice_client.get(f"{base}/runs/?q={run}")["Location"] == f"{base}/runs/{run}/"


def test_htmx_gets_the_part_of_the_same_page_and_caches_know(alice_client: Client, world: World, base: str) -> None:
    run = world.admit("1")
    whole = alice_client.get(f"{base}/runs/")
    part = alice_client.get(f"{base}/runs/", headers={"HX-Request": "true"})
    assert "HX-Request" in part["Vary"] and "HX-Request" in whole["Vary"]
    assert text(part).lstrip().startswith('<div id="runs-found">') and run in text(part)
    assert "<html" not in text(part)


def test_counts_are_the_truth(world: World) -> None:
    world.failed()
    world.done("2")
    world.done("3")
    world.admit("4")
    with tenant_scope(world.store.tenant_id):
        found = dict(runs.counts().shown())
    assert (found["failed"], found["succeeded"], found["queued"], found["running"]) == (1, 2, 1, 0)


def test_what_a_run_is_about_is_said_without_its_secrets(alice_client: Client, world: World, base: str) -> None:
    world.store.admit("refunds", {"order": "4411"})
    page = text(alice_client.get(f"{base}/runs/"))
    assert "order 4411" in page
