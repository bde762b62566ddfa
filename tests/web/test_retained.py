"""Pages of what is kept, when retention has removed what they refer to: each says so, and none breaks."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from uuid import UUID

import pytest
from django.test import Client

import agentstate as st
from agentstate.core import clock
from agentstate.core.ids import public_id
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from agentstate.testing import drive_once
from memory.models import Item, Session, Subject
from memory.services import retention, upkeep
from runs.engine.store import LocalStore


@st.agent("retained-page")
def speaks() -> str:
    session = st.memory.session("user:7")
    session.say("user", "I always want mail in German, my number is 77-1200.")
    kept = st.memory.remember("Wants mail in German.")
    st.memory.recall("German mail")
    session.context("Which language?")
    session.say("assistant", "You get it in German.")
    return kept.item_id


@pytest.fixture
def run_id(alice: Actor) -> str:
    store = LocalStore(alice, lease_s=60, shared=True)
    store.register(speaks.spec())
    run_id = store.admit(speaks.name, {}).run_id
    drive_once(speaks, run_id, store=store)
    info = store.get(run_id)
    assert info.status == "succeeded", info
    return run_id


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def seen(client: Client, address: str, *, status: int = 200) -> str:
    reply = client.get(address)
    assert reply.status_code == status, (address, reply.status_code)
    return text_of(reply.content.decode())


def removed(tenant_id: UUID, name: str) -> int:
    (round_,) = [each for each in retention.rounds(tenant_id) if each[0] == name]
    done = upkeep.drive(tenant_id, name, round_[1], target=round_[2])
    assert done is not None and done.is_over and not done.failed, done
    return done.done


def test_what_retention_removed_is_told_where_somebody_looks_for_it(
    alice_client: Client, base: str, run_id: str, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert alice.tenant_id is not None
    with tenant_scope(alice.tenant_id):
        session, subject, item = Session.objects.get(), Subject.objects.get(), Item.objects.get()
        Session.objects.update(status="closed", ended_at=clock.now() - timedelta(days=400))
    steps = {name: f"{base}/runs/{run_id}/steps/{seq}/" for name, seq in (("recall", 4), ("context", 5))}
    assert "77-1200" in seen(alice_client, steps["context"])
    assert removed(alice.tenant_id, retention.SESSIONS) == 1

    today = f"{clock.now():%Y-%m-%d}"
    given = seen(alice_client, steps["context"])
    assert f"This message was removed by retention on {today}, with its session." in given
    assert f"This session was removed by retention on {today}." in seen(
        alice_client, f"{base}/sessions/{public_id('session', session.id)}/", status=404
    )
    person = f"{base}/memories/{public_id('subject', subject.id)}"
    around = [
        f"{base}/sessions/",
        f"{person}/",
        f"{person}/{public_id('item', item.id)}/",
        f"{person}/print/",
    ]
    for address in around:
        assert "77-1200" not in seen(alice_client, address), address
    around += [f"{base}/runs/{run_id}/", *steps.values()]  # these keep what the run itself has recorded

    monkeypatch.setattr(retention, "ledger_before", lambda: clock.now() + timedelta(days=1))
    assert removed(alice.tenant_id, retention.LINES) > 0
    for name in steps:
        assert "Removed by retention, which keeps no line of the ledger from before" in seen(alice_client, steps[name])
    for address in around:
        seen(alice_client, address)
