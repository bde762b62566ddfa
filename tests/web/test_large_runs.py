"""A run of a hundred thousand steps opens as a small one does: windows, a sampled overview, the same statements."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client

from agentstate.core.ids import parse_id
from agentstate.db import sql
from agentstate.tenants.scope import tenant_scope
from runs.selectors import overview, steps
from tests.web.forms import text
from tests.web.world import World

pytestmark = pytest.mark.django_db

GROW = """
insert into runs_step (tenant_id, run_id, seq, generation, identity, name, kind, effect, status, outcome, attempt,
    retry, edit_version, authorised, sent, payload_hash, input, error_type, fence, started_at, ended_at, has_probe,
    probes_unknown, source, model, tokens_in, tokens_out, cost)
select tenant_id, run_id, n, generation, 'x#' || n, 'step ' || n, 'step', 'pure', 'done', 'done', 1, 0, 0, 0, 0,
    payload_hash, input, '', fence, started_at + n * interval '1 s', started_at + n * interval '1 s' + interval '0.5 s',
    false, 0, 'worker', '', 0, 0, 0
from runs_step, generate_series(4, %s) n where run_id = %s and seq = 1
"""


def grown(world: World, count: int) -> str:
    run = world.done("1")
    run_id = parse_id("run", run)
    with tenant_scope(world.store.tenant_id), connection.cursor() as cursor:
        cursor.execute(GROW, [count, run_id])
        cursor.execute("update runs_run set step_seq = %s where id = %s", [count, run_id])
    return run


def test_windows_say_where_they_are_and_lead_on(alice_client: Client, world: World, base: str) -> None:
    run = grown(world, 10_000)
    address = f"{base}/runs/{run}/"
    page = text(alice_client.get(f"{address}?from=5001"))
    assert "Showing 5,001–5,200 of 10,000" in page
    assert len(re.findall(r'id="step-row-\d+"', page)) == steps.WINDOW
    assert "from=4801" in page and "from=5201" in page and 'name="from"' in page
    assert "Showing 9,801–10,000 of 10,000" in text(alice_client.get(f"{address}?from=end"))
    assert page.count('<rect class="hit"') == overview.LINKS_MAX


def test_a_large_run_costs_no_more_statements_and_bytes_than_a_small_one(
    alice_client: Client, world: World, base: str
) -> None:
    small, large = grown(world, 400), grown(world, 20_000)
    seen = []
    for run in (small, large):
        with sql.watched() as statements:
            answer = alice_client.get(f"{base}/runs/{run}/")
        seen.append((len(statements), len(answer.content)))
    assert seen[0][0] == seen[1][0]
    assert seen[1][1] < 1.1 * seen[0][1]


def test_the_overview_of_a_large_run_reads_a_hundred_steps_and_shows_where_it_failed(world: World) -> None:
    run = parse_id("run", grown(world, 20_000))
    with tenant_scope(world.store.tenant_id):
        seen = overview.read(run, steps=20_000, error_step=12_345)
    assert seen.totals is None and 90 <= len(seen.bars) <= overview.BARS_MAX
    failed = [index for index, bar in enumerate(seen.bars) if bar.tone == "bad"]
    assert failed == [12_344 // seen.steps_per_bar]


def test_finding_steps_by_name_and_kind(alice_client: Client, world: World, base: str) -> None:
    run = grown(world, 1_000)
    page = text(alice_client.get(f"{base}/runs/{run}/?find=step 777"))
    assert re.findall(r'id="step-row-(\d+)"', page) == ["777"]
    assert "No step matches" in text(alice_client.get(f"{base}/runs/{run}/?find=100%"))
    effects = text(alice_client.get(f"{base}/runs/{run}/?kind=effect"))
    assert re.findall(r'id="step-row-(\d+)"', effects) == ["3"]
