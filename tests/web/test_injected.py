"""The step page shows what was injected, word for word; the run page whose memory it was."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.test import Client

import agentstate as st
from agentstate.core.ids import parse_id
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from agentstate.testing import drive_once
from memory import keys
from memory.services import editing
from memory.services.drafts import ItemChanges
from runs.engine.store import LocalStore

HOSTILE = "Wants <b>mail</b> in German, her key is sk-abcdefghijklmnopqrstuvwx."


@st.agent("injected-page")
def asks() -> str:
    session = st.memory.session("user:1", name="Mara <Lind>")
    session.say("user", "Which language do I want mail in?")
    kept = st.memory.remember(HOSTILE, pinned=True)
    st.memory.recall("mail language")
    st.memory.context("Which language?")
    return kept.item_id


@pytest.fixture
def run(alice: Actor) -> tuple[str, str]:
    store = LocalStore(alice, lease_s=60, shared=True)
    store.register(asks.spec())
    run_id = store.admit(asks.name, {}).run_id
    drive_once(asks, run_id, store=store)
    info = store.get(run_id)
    assert info.status == "succeeded", info
    return run_id, info.output


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def test_the_step_page_shows_what_was_injected_word_for_word(
    alice_client: Client, base: str, run: tuple[str, str], alice: Actor
) -> None:
    run_id, item = run
    with tenant_scope(alice.tenant_id):  # type: ignore[arg-type]
        changes = ItemChanges(text="Wants mail in French.")
        editing.edit(parse_id("item", item), expected_version=1, changes=changes, reason="said so", actor=alice)
    page = alice_client.get(f"{base}/runs/{run_id}/steps/5/").content.decode()
    text = text_of(page)
    assert "What was injected, word for word" in text and "Pinned" in text and "Newest" in text
    assert "Wants <b>mail</b> in German" in text and "<b>mail</b>" not in page
    assert "sk-abcdefghijklmnopqrstuvwx" not in page
    assert "French" not in text
    assert f"{item}/?version=1" in page
    twin: dict[str, Any] = alice_client.get(f"{base}/runs/{run_id}/steps/5/?format=json").json()
    assert [line["part"] for line in twin["injected"]] == ["pinned", "tail"]
    assert "sk-abcdefghijklmnopqrstuvwx" not in str(twin)


def test_a_recall_shows_its_scores_and_a_write_shows_no_such_part(
    alice_client: Client, base: str, run: tuple[str, str]
) -> None:
    run_id, _ = run
    page = alice_client.get(f"{base}/runs/{run_id}/steps/4/").content.decode()
    recall = text_of(page)
    assert "score" in recall and "Recalled" in recall and re.search(r"bm25 \d\.\d\d", recall)
    assert re.search(r"/sessions/session_[0-9a-f]{32}/\?from=1#m1", html.unescape(page)), "the message is a link away"
    write = text_of(alice_client.get(f"{base}/runs/{run_id}/steps/3/").content.decode())
    assert "What was injected" not in write and "keyed" in write


def test_erased_words_are_gone_and_the_line_says_so(
    alice_client: Client, base: str, run: tuple[str, str], alice: Actor
) -> None:
    run_id, _ = run
    with tenant_scope(alice.tenant_id):  # type: ignore[arg-type]
        from memory.models import Subject

        keys.destroy(Subject.objects.get().id)
    page = text_of(alice_client.get(f"{base}/runs/{run_id}/steps/5/").content.decode())
    section = page.partition("What was injected")[2].partition("Input")[0]
    assert "has been erased" in section and "German" not in section


def test_the_run_page_leads_to_the_subject_and_the_session(
    alice_client: Client, base: str, run: tuple[str, str]
) -> None:
    run_id, _ = run
    page = alice_client.get(f"{base}/runs/{run_id}/").content.decode()
    assert "Mara &lt;Lind&gt;</a>" in page and "user:1" not in page
    assert re.search(r"/memories/subject_[0-9a-f]{32}/", page) and re.search(r"/sessions/session_[0-9a-f]{32}/", page)
    only = alice_client.get(f"{base}/runs/{run_id}/?kind=memory").content.decode()
    assert "memory.recall" in only
