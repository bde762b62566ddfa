"""What holds for every page of memory: it opens, in at most twelve statements, and gives strangers nothing."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from agentstate.db import sql
from agentstate.tenants.actors import Actor
from tests.web.remembered import Remembered
from tests.web.test_every_page import PLUMBING, STATEMENTS_MAX

pytestmark = pytest.mark.django_db

BYTES_MAX = 20_480
# A process reads a tenant's ring once; that of a test's tenant is never kept, because its transaction stays open.
RING = '"tenants_keyring"'


@pytest.fixture
def memory(alice: Actor) -> Remembered:
    return Remembered(alice)


def every_page(memory: Remembered, base: str) -> list[tuple[str, str]]:
    return list(_pages(memory, base))


def _pages(memory: Remembered, base: str) -> Iterator[tuple[str, str]]:
    subject = memory.subject(email="mara@example.test")
    session = memory.session(subject, said=30, title="Broken lamps")
    yield "subjects", f"{base}/memories/"
    yield "subjects", f"{base}/memories/?q=nobody"
    yield "subject-new", f"{base}/memories/new/"
    yield "subject", f"{base}/memories/{subject}/"
    yield "subject", f"{base}/memories/{subject}/?kind=semantic&state=any&namespace=x"
    yield "subject-settings", f"{base}/memories/{subject}/settings/"
    yield "holdings", f"{base}/memories/{subject}/print/"
    yield "sessions", f"{base}/sessions/"
    yield "sessions", f"{base}/sessions/?state=open&agent=support&q=none"
    yield "sessions", f"{base}/sessions/?subject={subject}"
    yield "session", f"{base}/sessions/{session}/"
    yield "session", f"{base}/sessions/{session}/?from=3"
    yield "session", f"{base}/sessions/{session}/?since=2026-01-01T10:00&until=2036-01-01T10:00"
    yield "undo", f"{base}/sessions/{session}/undo/?n=3"


def test_every_page_opens_in_twelve_statements(alice_client: Client, memory: Remembered, base: str) -> None:
    for _, address in every_page(memory, base):
        with CaptureQueriesContext(connection) as queries, sql.watched() as own:
            answer = alice_client.get(address)
        assert answer.status_code == 200, f"{address}: {answer.status_code}"
        captured = [query["sql"] for query in queries.captured_queries]
        statements = [each for each in captured if not PLUMBING.match(each) and RING not in each] + own
        listing = "\n".join(statement[:110] for statement in statements)
        assert len(statements) <= STATEMENTS_MAX, f"{address} took {len(statements)}:\n{listing}"
        size = len(gzip.compress(answer.content))
        assert size <= BYTES_MAX, f"{address} has {size} bytes"
        print(f"{address.replace(base, ''):70} {len(statements):3} statements {size:6} bytes")


def test_no_page_carries_inline_style_or_script(alice_client: Client, memory: Remembered, base: str) -> None:
    for _, address in every_page(memory, base):
        page = alice_client.get(address).content.decode()
        assert " style=" not in page and "<style" not in page, address
        assert not re.search(r"<script(?![^>]*\ssrc=)", page) and not re.search(r"\son[a-z]+=", page), address


def test_nobody_from_outside_learns_that_a_page_exists(
    charlie_client: Client, memory: Remembered, base: str, client: Client
) -> None:
    for _, address in every_page(memory, base):
        assert charlie_client.get(address).status_code == 404, address
        assert client.get(address).status_code == 302, address
        borrowed = address.replace(base, "/t/globex")
        if "subject_" in borrowed or "session_" in borrowed or "item_" in borrowed:
            assert charlie_client.get(borrowed).status_code == 404, borrowed


def test_each_page_has_a_json_twin(alice_client: Client, memory: Remembered, base: str) -> None:
    for name, address in every_page(memory, base):
        if name in FORMS:
            continue
        answer = alice_client.get(f"{address}{'&' if '?' in address else '?'}format=json")
        assert answer["Content-Type"] == "application/json", address
        answer.json()


FORMS = {"subject-new", "subject-settings", "undo"}
