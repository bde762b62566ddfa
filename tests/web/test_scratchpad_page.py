"""The scratchpad tab: how full it is, one line for what is masked, the originals one click away, and an account."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

import agentstate as st
from agentstate.db import sql
from agentstate.sdk.store import Entry, Turn
from agentstate.tenants.actors import Actor
from agentstate.testing import drive_once
from runs.engine.store import LocalStore
from tests.web.test_every_page import PLUMBING, STATEMENTS_MAX
from tests.web.world import World

SECRET_TAIL = "the very last words of page 1"


@st.step
def fetch(page: int) -> int:
    st.note(f"Page {page} has its first line.\n" + "row " * 300 + f"the very last words of page {page}", kind="result")
    return page


@st.agent("pad-page", context_budget_tokens=2_000, tools=[fetch])
def reader() -> None:
    st.note("Never write to page 13.", important=True)
    for page in range(1, 40):
        st.note(
            f"Because {page} was read, page {page + 1} is next: it is said to hold {page * 17} names.", kind="reasoning"
        )
        fetch(page)
    st.sleep("2h")


@pytest.fixture
def read_run(alice: Actor) -> str:
    store = LocalStore(alice, lease_s=60, shared=True)
    store.register(reader.spec())
    run_id = store.admit(reader.name, {}).run_id
    drive_once(reader, run_id, store=store)
    return run_id


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def test_the_tab_shows_the_bar_the_lines_and_the_account(alice_client: Client, base: str, read_run: str) -> None:
    address = f"{base}/runs/{read_run}/scratchpad/"
    with CaptureQueriesContext(connection) as queries, sql.watched() as own:
        page = alice_client.get(address).content.decode()
    statements = [query for query in queries.captured_queries if not PLUMBING.match(query["sql"])]
    assert len(statements) + len(own) <= STATEMENTS_MAX
    text = text_of(page)
    account = re.search(
        r"Summarised (\d+) times: (\d+) entries → (\d+) summaries, (\d+) results masked, ([\d,]+) → ([\d,]+) tokens",
        text,
    )
    assert account, text[:2_000]
    plain = alice_client.get(address + "?format=json").json()
    told = plain["account"]
    assert [int(part.replace(",", "")) for part in account.groups()] == [
        told["times"],
        told["entries_replaced"],
        told["summaries"],
        told["results_masked"],
        told["tokens_noted"],
        told["tokens"],
    ]
    assert told["tokens"] == sum(entry["tokens"] for entry in plain["entries"]) <= 2_000 == plain["budget_tokens"]
    assert (plain["budget_from"], plain["important_over_budget"]) == ("agent", False)
    assert "Never write to page 13." in text
    assert "70 %" in text and "of 2,000 tokens, the budget of the agent" in text
    assert page.count(">full text</a>") == sum(entry.get("masked", False) for entry in plain["entries"]) > 0
    assert "stands for" in text


def test_what_is_masked_or_replaced_is_whole_one_click_away(alice_client: Client, base: str, read_run: str) -> None:
    address = f"{base}/runs/{read_run}/scratchpad/"
    page = alice_client.get(address).content.decode()
    assert SECRET_TAIL not in page
    numbers = [int(n) for n in re.findall(rf'href="{re.escape(address)}(\d+)/"', page)]
    seen = {n: alice_client.get(f"{address}{n}/") for n in set(numbers)}
    assert all(answer.status_code == 200 for answer in seen.values())
    masked = re.search(rf'href="{re.escape(address)}(\d+)/" hx-get', page)
    assert masked
    whole = alice_client.get(f"{address}{masked[1]}/").content.decode()
    assert "the very last words of page" in whole and "masked in" in text_of(whole)
    part = alice_client.get(f"{address}{masked[1]}/", headers={"HX-Request": "true"}).content.decode()
    assert part.startswith('<div class="whole">') and "the very last words of page" in part
    for n in range(1, 40):  # entry 3 is page 1's: it has been replaced since
        answer = alice_client.get(f"{address}{n}/")
        assert answer.status_code == 200, n
    gone = alice_client.get(f"{address}3/").content.decode()
    assert SECRET_TAIL in gone and "replaced by summary" in text_of(gone)
    assert alice_client.get(f"{address}9999/").status_code == 404


def test_the_step_of_a_summary_can_be_filtered_and_opened(alice_client: Client, base: str, read_run: str) -> None:
    page = alice_client.get(f"{base}/runs/{read_run}/?kind=summary").content.decode()
    steps = re.findall(r'id="step-row-(\d+)"', page)
    assert steps
    step = text_of(alice_client.get(f"{base}/runs/{read_run}/steps/{steps[0]}/").content.decode())
    assert "scratchpad.summarise" in step and "tokens_before" in step


def test_nobody_else_sees_an_entry(charlie_client: Client, client: Client, base: str, read_run: str) -> None:
    for address in (f"{base}/runs/{read_run}/scratchpad/1/", f"{base}/runs/{read_run}/scratchpad/?format=json"):
        assert charlie_client.get(address).status_code == 404
        assert client.get(address).status_code == 302


def test_important_entries_over_the_budget_are_said_aloud(alice_client: Client, world: World, base: str) -> None:
    run_id = world.admit("4471", context_budget_tokens=100)
    claim = world.claim(run_id)
    world.store.turn(claim, Turn(entries=[Entry(1, "note", "word for word " * 90, important=True)]))
    page = alice_client.get(f"{base}/runs/{run_id}/scratchpad/").content.decode()
    assert 'role="alert"' in page and "The important entries alone are over the budget" in page
    assert "the budget of this run" in text_of(page)
    assert world.store.session_of(run_id, claim.fence).window[0]["text"] == "word for word " * 90


def test_a_step_that_claims_to_be_a_summary_and_is_none_breaks_nothing(
    alice_client: Client, world: World, base: str
) -> None:
    run_id = world.admit("4472")
    claim = world.claim(run_id)
    outputs: list[Any] = ["text", {"entry": "x", "replaced": 7, "masked": ["a", -1]}, {"entry": 3, "replaced": [None]}]
    for output in outputs:
        world.step(claim, "scratchpad.summarise", output, kind="summary")
    page = alice_client.get(f"{base}/runs/{run_id}/scratchpad/")
    assert page.status_code == 200
