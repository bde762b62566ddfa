"""What holds for every page: it opens, in at most twelve statements, and gives strangers nothing."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from agentstate.db import sql
from tests.web.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db

STATEMENTS_MAX = 12
BYTES_MAX = {"runs": 12_288, "run": 20_480, "approval": 12_288}
PLUMBING = re.compile(r"^(SAVEPOINT|RELEASE|ROLLBACK TO|SELECT set_config)", re.IGNORECASE)


def every_page(world: World, base: str) -> list[tuple[str, str]]:
    return list(_pages(world, base))


def _pages(world: World, base: str) -> Iterator[tuple[str, str]]:
    run, approval = world.asking()
    doubted, seq = world.in_doubt()
    failed = world.failed()
    done = world.done("4398", tags=["vip"])
    running = world.running("4470")
    yield "now", f"{base}/"
    yield "health", f"{base}/health/"
    yield "runs", f"{base}/runs/"
    yield "runs", f"{base}/runs/?state=failed&agent=refunds&tag=vip&time=day&q=ticket-4411"
    yield "runs", f"{base}/runs/?after={done}"
    for each in (run, doubted, failed, done, running):
        yield "run", f"{base}/runs/{each}/"
    yield "state", f"{base}/runs/{done}/state/"
    yield "scratchpad", f"{base}/runs/{done}/scratchpad/"
    yield "scratchpad", f"{base}/runs/{running}/scratchpad/"
    yield "audit", f"{base}/runs/{failed}/audit/"
    yield "run", f"{base}/runs/{done}/?kind=tool&find=orders"
    for number in (1, 2, 3):
        yield "step", f"{base}/runs/{done}/steps/{number}/"
    yield "step", f"{base}/runs/{failed}/steps/3/?raw=1"
    yield "step", f"{base}/runs/{doubted}/steps/{seq}/"
    yield "settle", f"{base}/runs/{doubted}/steps/{seq}/settle/"
    yield "plan", f"{base}/runs/{failed}/resume/"
    yield "plan", f"{base}/runs/{doubted}/resume/"
    yield "approvals", f"{base}/approvals/"
    yield "approvals", f"{base}/approvals/?decided=1"
    yield "approval", f"{base}/approvals/{approval}/"
    yield "agents", f"{base}/agents/"
    yield "start", f"{base}/agents/refunds/"


def test_every_page_opens_in_twelve_statements(alice_client: Client, world: World, base: str) -> None:
    for name, address in every_page(world, base):
        with CaptureQueriesContext(connection) as queries, sql.watched() as own:
            answer = alice_client.get(address)
        assert answer.status_code == 200, f"{address}: {answer.status_code}"
        statements = [query["sql"] for query in queries.captured_queries if not PLUMBING.match(query["sql"])] + own
        listing = "\n".join(statement[:110] for statement in statements)
        assert len(statements) <= STATEMENTS_MAX, f"{address} took {len(statements)}:\n{listing}"
        size = len(gzip.compress(answer.content))
        assert size <= BYTES_MAX.get(name, 20_480), f"{address} has {size} bytes"


def test_no_page_carries_inline_style_or_script(alice_client: Client, world: World, base: str) -> None:
    for _, address in every_page(world, base):
        page = alice_client.get(address).content.decode()
        assert " style=" not in page, address
        assert "<style" not in page, address
        assert not re.search(r"<script(?![^>]*\ssrc=)", page), address
        assert not re.search(r"\son[a-z]+=", page), address


def test_nobody_from_outside_learns_that_a_page_exists(
    charlie_client: Client, world: World, base: str, client: Client
) -> None:
    for _, address in every_page(world, base):
        assert charlie_client.get(address).status_code == 404, address
        assert client.get(address).status_code == 302, address


def test_anothers_object_below_ones_own_tenant_is_not_found(
    charlie_client: Client, world: World, base: str, other_tenant: object
) -> None:
    theirs = [address for _, address in every_page(world, base) if "run_" in address or "apr_" in address]
    for address in theirs:
        borrowed = address.replace(base, "/t/globex")
        if "/runs/?" not in borrowed:
            assert charlie_client.get(borrowed).status_code == 404, borrowed


@pytest.mark.parametrize(
    "address",
    ["/runs/run_x/", "/runs/run_0123/steps/1/", "/approvals/apr_x/", "/agents/none/", "/runs/x/resume/", "/runs/%00/"],
)
def test_what_does_not_exist_is_a_404_page_with_a_request_id(alice_client: Client, base: str, address: str) -> None:
    answer = alice_client.get(f"{base}{address}")
    assert answer.status_code == 404
    assert answer["X-Request-ID"] in answer.content.decode()


def test_each_page_has_a_json_twin(alice_client: Client, world: World, base: str) -> None:
    for name, address in every_page(world, base):
        if (
            name in ("plan", "settle", "start")
            or "/state/" in address
            or "/scratchpad/" in address
            or "audit" in address
        ):
            continue
        sign = "&" if "?" in address else "?"
        answer = alice_client.get(f"{address}{sign}format=json")
        assert answer["Content-Type"] == "application/json", address
        answer.json()
