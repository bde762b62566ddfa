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
    item = memory.item(subject, "Never phone before 10:00", pinned=True, namespace="preferences/contact")
    order = memory.item(
        subject, "Order 4411 was paid.", fact_kind="order", facts={"number": "4411", "ordered_on": "2026-11-02"}
    )
    for number in range(40):
        memory.item(subject, f"Lamp model {number} stands in room {number + 7}.", attribute=f"room {number}")
    for done in ("- read the paper", "- read the paper\n- wrote notes"):
        progress = memory.progress("notes on lamps", f"## Goal\n\nNotes on lamps\n\n## Done\n\n{done}\n")
    for words in ("Be brief.", "Be brief and kind."):
        prompt = memory.prompt("support", words)
    memory.ask(session, "When may we phone?")
    memory.answer(session, "After ten.")
    call = memory.ask(session, "Which lamp is broken?")
    memory.answer(session, "That of order 4411.")
    proposal = memory.propose(subject, item)
    yield "subjects", f"{base}/memories/"
    yield "subjects", f"{base}/memories/?q=nobody"
    yield "subject-new", f"{base}/memories/new/"
    yield "subject", f"{base}/memories/{subject}/"
    yield "subject", f"{base}/memories/{subject}/?kind=semantic&state=any&namespace=x"
    yield "subject", f"{base}/memories/{subject}/?as_of=2100-01-01T00:00&kind=semantic"
    yield "subject", f"{base}/memories/{subject}/?as_of=yesterday"
    yield "subject-settings", f"{base}/memories/{subject}/settings/"
    yield "holdings", f"{base}/memories/{subject}/print/"
    yield "holdings", f"{base}/memories/{subject}/print/?as_of=2100-01-01T00:00&known=then"
    yield "item-new", f"{base}/memories/{subject}/remember/"
    yield "item-new", f"{base}/memories/{subject}/remember/?fact_kind=commitment"
    yield "item", f"{base}/memories/{subject}/{item}/"
    yield "item", f"{base}/memories/{subject}/{item}/?version=1"
    yield "item", f"{base}/memories/{subject}/{order}/"
    yield "compare", f"{base}/memories/{subject}/{item}/compare/"
    yield "sessions", f"{base}/sessions/"
    yield "sessions", f"{base}/sessions/?state=open&agent=support&q=none"
    yield "sessions", f"{base}/sessions/?subject={subject}"
    yield "session", f"{base}/sessions/{session}/"
    yield "session", f"{base}/sessions/{session}/?from=3"
    yield "session", f"{base}/sessions/{session}/?since=2026-01-01T10:00&until=2036-01-01T10:00"
    for kind, address in (("progress", f"{base}/progress"), ("prompt", f"{base}/memories/prompts")):
        one = f"{address}/{progress if kind == 'progress' else prompt}/"
        yield f"{kind}-list", f"{address}/"
        yield kind, one
        yield kind, f"{one}?version=1"
        yield kind, f"{one}?version=2&with=1"
        yield kind, f"{one}?edit=1"
    yield "prompt-new", f"{base}/memories/prompts/new/"
    memory.policy("desk", {"strategy": "window", "recall_k": 3})
    memory.policy("desk", {"strategy": "hierarchical", "idle_s": None})
    yield "settings", f"{base}/memories/settings/"
    yield "tenant-policy", f"{base}/memories/settings/tenant/"
    yield "agent-policy", f"{base}/memories/settings/agent/?agent=desk"
    yield "agent-policy", f"{base}/memories/settings/agent/?agent=*"
    yield "recall", f"{base}/memories/{subject}/recall/"
    yield "recalled", f"{base}/memories/{subject}/recall/?q=when+may+we+phone&k=5"
    yield "review", f"{base}/memories/review/"
    yield "review", f"{base}/memories/review/?decided=1&subject={subject}"
    yield "proposal", f"{base}/memories/review/{proposal}/"
    yield "call", f"{base}/sessions/{session}/calls/{call.hex}/"
    yield "erase", f"{base}/memories/{subject}/erase/"
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


FORMS = {"subject-new", "subject-settings", "item-new", "prompt-new", "undo"}
