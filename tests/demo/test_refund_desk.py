"""The refund desk against the real sandbox: what a person decides is what happens, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import pytest

from agentstate.dev.demo.refund_desk import INPUT, refund_desk
from agentstate.dev.sandbox.client import Sandbox
from agentstate.sdk.store import RunInfo
from agentstate.testing import Approval, Crashing, MemoryStore, run_agent

Json = Any
When = Literal["before", "after"]
Verdict = Literal["happened", "not_happened"]


def begin(store: MemoryStore, message_id: str) -> RunInfo:
    return run_agent(refund_desk, {"message_id": message_id}, store=store)


def go_on(store: Any, info: RunInfo) -> RunInfo:
    return run_agent(refund_desk, run_id=info.run_id, store=store)


def question(store: MemoryStore) -> Approval:
    (approval,) = store.open_approvals()
    return approval


def edited(approval: Approval, amount: str) -> Json:
    return {**approval.args, "amount": amount}


def kinds(sandbox: Sandbox) -> list[str]:
    return [call.tool for call in sandbox.acts()]


def test_nothing_is_paid_before_a_person_has_decided(sandbox: Sandbox, store: MemoryStore) -> None:
    info = begin(store, "msg-01")
    assert (info.status, sandbox.calls()) == ("waiting", [])
    asked = question(store)
    assert asked.question.title == "Refund €180.50 to the customer of order 4467?"
    assert asked.args["amount"] == "180.50"
    assert asked.question.risk == "high"
    assert len(asked.question.evidence) == 3
    assert "270.75 paid" in asked.question.reason


def test_an_approved_refund_is_paid_noted_and_answered_once(sandbox: Sandbox, store: MemoryStore) -> None:
    info = begin(store, "msg-01")
    store.decide(question(store).id, "approve")
    info = go_on(store, info)
    assert (info.status, info.output["outcome"], info.output["amount"]) == ("succeeded", "refunded", "180.50")
    assert kinds(sandbox) == ["refund.create", "crm.note", "mail.send"]
    assert sandbox.get("/orders/4467")["balance"] == "90.25"
    assert "€180.50" in sandbox.get("/inbox")[0]["text"]
    assert sandbox.get("/customers/c-1001")["notes"][0]["text"] == "Refunded 180.50 EUR for order 4467."


def test_the_edited_amount_is_what_is_paid_and_told(sandbox: Sandbox, store: MemoryStore) -> None:
    info = begin(store, "msg-01")
    store.decide(question(store).id, "edit", args=edited(question(store), "90.25"))
    info = go_on(store, info)
    assert info.output["amount"] == "90.25"
    assert [call.result["amount"] for call in sandbox.calls("refund.create")] == ["90.25"]
    assert "€90.25" in sandbox.get("/inbox")[0]["text"]


def test_the_order_cannot_be_edited(sandbox: Sandbox, store: MemoryStore) -> None:
    begin(store, "msg-01")
    with pytest.raises(Exception, match="order"):
        store.decide(question(store).id, "edit", args={**question(store).args, "order": "4493"})
    assert sandbox.calls() == []


@pytest.mark.parametrize("verdict", ["reject", "respond", "withdraw"])
def test_without_an_approval_a_mail_is_all_that_happens(sandbox: Sandbox, store: MemoryStore, verdict: Any) -> None:
    info = begin(store, "msg-01")
    store.decide(question(store).id, verdict, message="Ask for the return slip first.")
    info = go_on(store, info)
    assert info.status == "succeeded"
    assert info.output["outcome"] == ("declined" if verdict == "reject" else "answered")
    assert kinds(sandbox) == ["mail.send"]


@pytest.mark.parametrize("message_id", ["msg-07", "msg-08"])
def test_spam_and_injection_end_without_any_side_effect(sandbox: Sandbox, store: MemoryStore, message_id: str) -> None:
    info = begin(store, message_id)
    assert (info.status, info.output["outcome"]) == ("succeeded", "set aside")
    assert sandbox.calls() == []


@pytest.mark.parametrize("message_id", ["msg-05", "msg-10"])
def test_a_complaint_is_answered_without_money(sandbox: Sandbox, store: MemoryStore, message_id: str) -> None:
    info = begin(store, message_id)
    assert (info.status, info.output["outcome"]) == ("succeeded", "answered")
    assert kinds(sandbox) == ["mail.send"]


@pytest.mark.parametrize(
    ("message_id", "amount", "risk"),
    [
        ("msg-02", "49.90", "low"),
        ("msg-03", "129.00", "high"),
        ("msg-04", "42.25", "low"),
        ("msg-06", "1249.00", "high"),
        ("msg-09", "15.00", "low"),
        ("msg-11", "340.00", "high"),  # asks for 400.00, paid 340.00
        ("msg-12", "19.00", "low"),
    ],
)
def test_each_refund_is_proposed_as_the_policy_says(
    sandbox: Sandbox, store: MemoryStore, message_id: str, amount: str, risk: str
) -> None:
    begin(store, message_id)
    assert (question(store).args["amount"], question(store).question.risk) == (amount, risk)


def test_a_customer_who_asks_twice_is_not_paid_twice(sandbox: Sandbox, store: MemoryStore) -> None:
    for _ in range(2):
        info = begin(store, "msg-02")
        for approval in store.open_approvals():
            store.decide(approval.id, "approve")
        info = go_on(store, info)
    assert (info.output["outcome"], len(sandbox.acts("refund.create"))) == ("declined", 1)


def test_an_edit_above_the_balance_is_refused_by_the_shop_and_answered(sandbox: Sandbox, store: MemoryStore) -> None:
    info = begin(store, "msg-02")
    store.decide(question(store).id, "edit", args=edited(question(store), "5000.00"))
    info = go_on(store, info)
    assert (info.status, info.output["outcome"]) == ("succeeded", "answered")
    assert kinds(sandbox) == ["mail.send"]


def test_a_lost_reply_of_the_refund_is_in_doubt_until_a_person_says_it_happened(
    sandbox: Sandbox, store: MemoryStore
) -> None:
    sandbox.behave("refund.create", drop_reply=True)
    info = begin(store, "msg-01")
    store.decide(question(store).id, "edit", args=edited(question(store), "90.25"))
    info = go_on(store, info)
    assert info.status == "in_doubt"
    store.settle(info.run_id, "refund.create#1", "happened")
    info = go_on(store, info)
    assert (info.status, info.output["amount"]) == ("succeeded", "90.25")
    assert len(sandbox.calls("refund.create")) == 1


def test_a_refund_that_did_not_happen_is_sent_once_more_with_the_same_key(sandbox: Sandbox, store: MemoryStore) -> None:
    sandbox.behave("refund.create", fail=500, calls=1)
    info = begin(store, "msg-01")
    store.decide(question(store).id, "approve")
    info = go_on(store, info)
    assert info.status == "in_doubt"
    store.advance(3_600 * 0.4)
    store.settle(info.run_id, "refund.create#1", "not_happened")
    info = go_on(store, info)
    assert info.status == "succeeded"
    assert [call.acted for call in sandbox.calls("refund.create")] == [False, True]
    assert len({call.key for call in sandbox.calls("refund.create")}) == 1


def test_lost_replies_of_note_and_mail_mend_themselves(sandbox: Sandbox, store: MemoryStore) -> None:
    sandbox.behave("crm.note", drop_reply=True, calls=1)
    sandbox.behave("mail.send", probe=True, drop_reply={"value": True, "calls": 1})
    info = begin(store, "msg-01")
    store.decide(question(store).id, "approve")
    info = go_on(store, info)
    assert info.status == "succeeded"
    assert [(call.attempt, call.note) for call in sandbox.calls("crm.note")] == [(1, "lost"), (2, "deduped")]
    assert len(sandbox.calls("mail.send")) == 1  # the probe knew it
    assert kinds(sandbox) == ["refund.create", "crm.note", "mail.send"]


def test_a_shop_that_is_down_is_not_in_doubt_and_is_tried_again(mortal: Sandbox, store: MemoryStore) -> None:
    info = begin(store, "msg-01")
    store.decide(question(store).id, "approve")
    mortal.kill()
    down = go_on(store, info)
    assert (down.status, mortal.calls("refund.create")) == ("failed", [])
    mortal.run()
    store.resume(info.run_id)
    assert go_on(store, info).status == "succeeded"
    assert [call.acted for call in mortal.calls("refund.create")] == [True]


def turns_of(store: MemoryStore) -> int:
    info = begin(store, "msg-01")
    store.decide(question(store).id, "edit", args=edited(question(store), "90.25"))
    assert go_on(store, info).status == "succeeded"
    return store.turns


def test_a_crash_at_any_turn_pays_exactly_once(sandbox: Sandbox) -> None:
    """The process dies before or after each turn; a person approves with an edit and settles what is in doubt."""
    settled: list[Verdict] = []
    for at in range(1, turns_of(MemoryStore()) + 1):
        for when in get_args(When):
            sandbox.reset()
            world = Crashing(MemoryStore(), at=at, when=when)
            info = live_through(world, sandbox, settled=settled)
            seen = (at, when, [(call.tool, call.acted) for call in sandbox.calls()])
            assert world.turns >= at, seen
            assert info.status == "succeeded", seen
            assert [call.result["amount"] for call in sandbox.acts("refund.create")] == ["90.25"], seen
            assert len(sandbox.calls("refund.create")) == 1, seen
            assert len(sandbox.acts("crm.note")) == 1, seen
            assert len(sandbox.acts("mail.send")) == 1, seen
    assert sorted(settled) == ["happened", "not_happened"]  # dead just before the call, and just after it


def live_through(world: Crashing, sandbox: Sandbox, *, settled: list[Verdict]) -> RunInfo:
    store: MemoryStore = world.store
    info = run_agent(refund_desk, {"message_id": "msg-01"}, store=world)
    while info.status in ("waiting", "in_doubt"):
        for approval in store.open_approvals():
            store.decide(approval.id, "edit", args=edited(approval, "90.25"))
        if info.status == "in_doubt":
            settled += settle_by_the_ledger(store, info, sandbox)
        info = run_agent(refund_desk, run_id=info.run_id, store=world)
    return info


def settle_by_the_ledger(store: MemoryStore, info: RunInfo, sandbox: Sandbox) -> Iterator[Verdict]:
    """As a person would who follows the lookup link."""
    for row in store.steps(info.run_id):
        if row.status == "in_doubt":
            store.advance(600)  # until the call cannot be on its way any more
            verdict: Verdict = "happened" if sandbox.acts(row.name, row.key) else "not_happened"
            store.settle(info.run_id, row.identity, verdict)
            yield verdict


def test_no_step_depends_on_being_run_in_one_go(sandbox: Sandbox, store: MemoryStore) -> None:
    info = run_agent(refund_desk, {"message_id": "msg-01"}, store=store, suspend_always=True)
    store.decide(question(store).id, "approve")
    info = run_agent(refund_desk, run_id=info.run_id, store=store, suspend_always=True)
    assert info.status == "succeeded"
    assert kinds(sandbox) == ["refund.create", "crm.note", "mail.send"]


def test_every_model_call_is_a_recorded_step_with_tokens_and_cost(sandbox: Sandbox, store: MemoryStore) -> None:
    info = begin(store, "msg-10")
    steps = [row for row in store.steps(info.run_id) if row.kind == "model"]
    assert [row.name for row in steps] == ["read-message", "write-letter"]
    run = store.runs[info.run_id]
    assert run.tokens > 100
    assert run.cost > 0


def test_the_start_form_offers_the_messages_of_the_mailbox(sandbox: Sandbox) -> None:
    offered = [choice["const"] for choice in INPUT["properties"]["message_id"]["oneOf"]]  # type: ignore[index]
    assert offered == [message["message_id"] for message in sandbox.get("/mailbox")]
