"""The list of erasures: what each one waits for, all receipts, and nothing for those who may not erase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentstate.affairs import erasing, receipts
from agentstate.core import limits
from agentstate.core.ids import public_id
from agentstate.db import sql
from tests.affairs.erasable import Person, Town
from tests.web.test_every_page import PLUMBING, STATEMENTS_MAX

if TYPE_CHECKING:
    from django.test import Client

    from agentstate.tenants.actors import Actor

pytestmark = pytest.mark.django_db


@pytest.fixture
def town(alice: Actor) -> Town:
    return Town(alice)


@pytest.fixture
def waiting(town: Town) -> Person:
    """One whose erasure waits for a worker."""
    person = town.meet("ada", "Adalbert")
    person.runs["driven"] = town.driven_run(person)
    erase(town, person, wait_s=0.3)
    return person


def erase(town: Town, person: Person, *, wait_s: float = 20) -> None:
    named = f"{person.word} Lind"
    erasing.erase(person.subject.id, actor=town.actor, reason="asked for it", confirm=named, wait_s=wait_s)


def test_it_says_what_an_erasure_waits_for_and_until_when(
    town: Town, waiting: Person, alice_client: Client, base: str
) -> None:
    run = waiting.runs["driven"].run_id
    for address in (f"{base}/memories/erasures/", f"{base}/memories/subject_{waiting.subject.id.hex}/erase/"):
        shown = alice_client.get(address).content.decode()
        assert run[-8:] in shown and "desk" in shown and "alice" in shown.lower(), address
        assert "in 1 min" in shown, "until when"
        assert waiting.word not in shown
    (row,) = alice_client.get(f"{base}/memories/erasures/?state=open&format=json").json()
    assert (row["status"], row["waits"][0]["run"]) == ("stopping", run)
    assert alice_client.get(f"{base}/memories/erasures/?state=verified&format=json").json() == []
    health = alice_client.get(f"{base}/health/").content.decode()
    assert "<b>1</b> going on" in health and "/memories/erasures/" in health


def test_every_receipt_is_reached_page_by_page(
    town: Town, alice_client: Client, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [town.meet(f"p{n}", f"Person{n}") for n in range(3)]
    for person in people:
        erase(town, person)
    monkeypatch.setattr("agentstate.affairs.erasures.page.__kwdefaults__", {"state": "", "after": "", "rows_max": 2})
    first = alice_client.get(f"{base}/memories/erasures/?state=verified").content.decode()
    assert first.count("/erase/receipt/") == 2
    older = first.partition("?state=verified&amp;after=")[2].partition('"')[0]
    second = alice_client.get(f"{base}/memories/erasures/?state=verified&after={older}").content.decode()
    assert second.count("/erase/receipt/") == 1
    done = alice_client.get(f"{base}/memories/subject_{people[0].subject.id.hex}/erase/").content.decode()
    for what in ("Sessions", "The subject itself"):
        assert f"<td>{what}</td>" in done, what
    assert "memory_" not in done
    for person in people:
        subject = public_id("subject", person.subject.id)
        assert (subject in first) != (subject in second)
        file = alice_client.get(f"{base}/memories/{subject}/erase/receipt/").content
        assert receipts.check(file)["subject"] == subject


def test_it_costs_the_same_whatever_stands_on_it(town: Town, waiting: Person, alice_client: Client, base: str) -> None:
    assert limits.PAGE_ROWS >= 50
    with CaptureQueriesContext(connection) as queries, sql.watched() as own:
        answer = alice_client.get(f"{base}/memories/erasures/")
    statements = [query["sql"] for query in queries.captured_queries if not PLUMBING.match(query["sql"])] + own
    assert answer.status_code == 200 and len(statements) <= STATEMENTS_MAX, statements
    assert " style=" not in answer.content.decode()


def test_only_who_may_erase_sees_it(waiting: Person, bob_client: Client, charlie_client: Client, base: str) -> None:
    address = f"{base}/memories/erasures/"
    assert bob_client.get(address).status_code == 403
    assert charlie_client.get(address).status_code == 404
    assert address not in bob_client.get(f"{base}/memories/").content.decode()
