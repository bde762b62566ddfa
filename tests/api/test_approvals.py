"""Questions and decisions over REST: bound to version and proposal; the loser is told who won; one click is one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agentstate.sdk.store import Claim, Park, Question, StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from tests.api.conftest import AGENT, WORKER, Caller
from tests.api.problems import refused

SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": "number", "maximum": 50}},
    "required": ["amount"],
    "additionalProperties": False,
}
ASK = StepStart(
    "refund#1",
    "refund",
    kind="tool",
    effect="destructive",
    payload={"amount": 40},
    question=Question("Refund?", tool="refund", args={"amount": 40}, schema=SCHEMA, reason="CANARY-7f3a", risk="high"),
)


@pytest.fixture
def asked(claimed: tuple[Caller, Claim]) -> tuple[Caller, Claim, dict[str, Any]]:
    """A run that waits for a person, and its question."""
    api, claim = claimed
    begun = api.store().turn(claim, Turn(start=[ASK])).begun[0]
    api.store().turn(claim, Turn(then=Park("approval")))
    return api, claim, api("GET", f"/approvals/{begun.approval_id}").json()


def decide(api: Caller, question: dict[str, Any], body: dict[str, Any], **given: Any) -> Any:
    headers = {"If-Match": f'"{question["version"]}"', **given.pop("headers", {})}
    body = {"proposal_hash": question["proposal_hash"], **body}
    return api("POST", f"/approvals/{question['approval_id']}/decision", body, headers=headers)


def test_the_inbox_shows_the_question_with_its_proposal(asked: tuple[Caller, Claim, dict[str, Any]]) -> None:
    api, claim, question = asked
    inbox = api("GET", "/approvals").json()
    assert inbox["pending"] == 1 and inbox["approvals"][0] == question
    assert (question["tool"], question["args"], question["risk"]) == ("refund", {"amount": 40}, "high")
    assert question["schema"] == SCHEMA and question["run_id"] == claim.run_id and question["status"] == "pending"
    assert api("GET", f"/approvals/{question['approval_id']}").headers["ETag"] == '"1"'
    assert api("GET", "/approvals?risk=low").json()["approvals"] == []
    refused(api("GET", "/approvals?risk=none"), 422, "invalid", "risk")
    refused(api("GET", f"/approvals/apr_{'0' * 32}"), 404, "not-found")


def test_an_edit_is_checked_and_reaches_the_agent(asked: tuple[Caller, Claim, dict[str, Any]]) -> None:
    api, claim, question = asked
    refused(decide(api, question, {"decision": "edit", "args": {"amount": 90}}), 422, "invalid", "/args/amount")
    refused(decide(api, question, {"decision": "edit", "args": {"amount": 1, "to": "me"}}), 422, "invalid", "/args")
    decided = decide(api, question, {"decision": "edit", "args": {"amount": 25}})
    assert (decided.json()["status"], decided.json()["decision"]["args"]) == ("edited", {"amount": 25})
    again = api.store().claim(WORKER, agents={"cleaner": AGENT}, run_id=claim.run_id)
    assert again is not None
    begun = api.store().turn(again, Turn(start=[ASK])).begun[0]
    assert (begun.action, begun.args, begun.edited) == ("execute", {"amount": 25}, True)


def test_a_decision_names_what_it_is_about(asked: tuple[Caller, Claim, dict[str, Any]]) -> None:
    api, _, question = asked
    body = {"decision": "approve", "proposal_hash": question["proposal_hash"]}
    path = f"/approvals/{question['approval_id']}/decision"
    refused(api("POST", path, body), 422, "invalid", "If-Match")
    refused(api("POST", path, {"decision": "approve"}, headers={"If-Match": '"1"'}), 422, "invalid", "/proposal_hash")
    refused(decide(api, question, {"decision": "maybe"}), 422, "invalid", "/decision")
    refused(decide(api, question, {"decision": "reject"}), 422, "invalid", "message")
    stale = decide(api, {**question, "version": 2}, {"decision": "approve"})
    assert refused(stale, 409, "conflict")["version"] == 1
    refused(decide(api, {**question, "proposal_hash": "0" * 64}, {"decision": "approve"}), 409, "conflict")
    assert api("GET", f"/approvals/{question['approval_id']}").json()["status"] == "pending"


def test_one_of_many_clickers_wins_and_the_others_are_told_who(asked: tuple[Caller, Claim, dict[str, Any]]) -> None:
    api, _, question = asked
    answers: list[Any] = []

    def click(number: int) -> None:
        word = {"decision": "approve"} if number % 2 else {"decision": "reject", "message": "no"}
        answers.append(decide(api, question, word, headers={"Idempotency-Key": f"click-{number}"}))

    clickers = [threading.Thread(target=click, args=[number]) for number in range(8)]
    for clicker in clickers:
        clicker.start()
    for clicker in clickers:
        clicker.join(30)
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(answers) == 8 and len(won) == 1
    for answer in answers:
        if answer is not won[0]:
            problem = refused(answer, 409, "conflict")
            assert problem["winner"] == "tests"
            assert api("GET", f"/approvals/{question['approval_id']}").json()["status"] in problem["detail"]


def test_the_same_click_is_one_decision(asked: tuple[Caller, Claim, dict[str, Any]]) -> None:
    api, _, question = asked
    headers = {"Idempotency-Key": "click-1" * 20}
    first, again = (decide(api, question, {"decision": "approve"}, headers=headers) for _ in range(2))
    assert first.status_code == again.status_code == 200 and first.json() == again.json()
    refused(decide(api, question, {"decision": "approve"}), 409, "conflict")


def test_a_waiting_script_is_told_at_once(asked: tuple[Caller, Claim, dict[str, Any]]) -> None:
    api, claim, question = asked
    told: list[Any] = []
    path = f"/runs/{claim.run_id}/steps/{question['step_seq']}"
    poll = threading.Thread(target=lambda: told.append(api.client.get(f"/api/v1{path}?wait=20").json()))
    poll.start()
    decide(api, question, {"decision": "reject", "message": "not this one"})
    poll.join(25)
    [step] = told
    assert step["next"] == "begin" and step["approval"]["status"] == "rejected"
    again = api.store().claim(WORKER, agents={"cleaner": AGENT}, run_id=claim.run_id)
    assert again is not None
    begun = api.store().turn(again, Turn(start=[ASK])).begun[0]
    assert (begun.action, begun.message, begun.decision) == ("rejected", "not this one", "rejected")


def test_an_effect_in_doubt_is_settled_by_who_may_decide(claimed: tuple[Caller, Claim], bob: Actor) -> None:
    api, claim = claimed
    store = api.store()
    store.turn(claim, Turn(start=[StepStart("pay#1", "pay", kind="tool", effect="destructive", payload=1)]))
    store.turn(claim, Turn(finish=[StepFinish(1, outcome="unknown")], then=Park("in_doubt")))
    step = api("GET", f"/runs/{claim.run_id}/steps/1").json()
    assert step["status"] == "in_doubt" and step["next"] == "wait"
    doubt = step["approval"]
    body = {"proposal_hash": doubt["proposal_hash"], "verdict": "happened", "output": {"paid": 1}}
    path, headers = f"/runs/{claim.run_id}/steps/1/settle", {"If-Match": f'"{doubt["version"]}"'}
    refused(api("POST", path, body, headers=headers), 422, "invalid", "/reason")
    refused(decide(api, doubt, {"decision": "approve"}), 422, "invalid", "decision")
    known = {**body, "reason": "seen in the ledger"}
    refused(api("POST", f"/runs/{claim.run_id}/steps/2/settle", known, headers=headers), 404, "not-found")
    assert api("POST", path, known, headers=headers).json()["status"] == "approved"
    assert api("GET", f"/runs/{claim.run_id}/steps/1").json()["output"] == {"paid": 1}
    assert store.get(claim.run_id).status == "queued"
    assert refused(api("POST", path, known, headers=headers), 409, "conflict")["winner"] == "tests"
