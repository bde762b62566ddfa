"""The calls of a worker over REST: claim, heartbeat, turn, the small calls of a script, late replies, events."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from agentstate.core.errors import Conflict, Fenced, Forbidden, Invalid, NonDeterminism
from agentstate.sdk.store import Claim, End, Entry, Park, StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from tests.api.conftest import AGENT, WORKER, Caller
from tests.api.problems import refused

STEP = {"name": "look_up", "payload": {"order": 7}}


def fence(claim: Claim) -> dict[str, str]:
    return {"Run-Fence": str(claim.fence)}


def test_a_turn_ends_one_step_and_begins_the_next_and_may_be_sent_twice(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    store = api.store()
    first = store.turn(claim, Turn(start=[StepStart("a#1", "a")]))
    both = Turn(finish=[StepFinish(first.begun[0].seq, output={"x": [1, None]})], start=[StepStart("b#1", "b")])
    replies = [store.turn(claim, both) for _ in range(2)]
    assert [reply.begun[0].action for reply in replies] == ["execute", "execute"]
    assert replies[0].begun[0].seq == replies[1].begun[0].seq == 2
    again = store.turn(claim, Turn(start=[StepStart("a#1", "a")])).begun[0]
    assert (again.action, again.output) == ("replay", {"x": [1, None]})
    with pytest.raises(Conflict):
        store.turn(claim, Turn(finish=[StepFinish(1, output="another")]))
    with pytest.raises(NonDeterminism) as refusal:
        store.turn(claim, Turn(start=[StepStart("a#1", "a", payload="another")]))
    assert refusal.value.field == "/start/payload" and refusal.value.data["step"] == 1


def test_an_old_fence_is_refused_everywhere_and_writes_nothing(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    run = f"/runs/{claim.run_id}"
    old = {"Run-Fence": str(claim.fence - 1)}
    start = {"start": [{"identity": "a#1", "name": "a"}]}
    calls: list[tuple[str, str, Any]] = [("PUT", f"{run}/lease", None), ("POST", f"{run}/turn", start)]
    calls += [("POST", f"{run}/steps", STEP), ("POST", f"{run}/complete", {}), ("POST", f"{run}/fail", {})]
    calls += [("PUT", f"{run}/steps/1", {"output": 1}), ("POST", f"{run}/scratchpad", {"entries": [note(1)]})]
    for method, path, body in calls:
        refused(api(method, path, body, headers=old), 409, "fenced")
        refused(api(method, path, body), 422, "invalid", "Run-Fence")
    assert api("GET", f"{run}/steps/1").status_code == 404
    assert api("PUT", f"{run}/lease", headers=fence(claim)).json() == {"lease_s": 5.0, "control": None}


def note(n: int) -> dict[str, object]:
    return {"n": n, "kind": "note", "text": f"entry {n}"}


def test_a_script_begins_waits_and_finishes_with_small_calls(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    run, held = f"/runs/{claim.run_id}", fence(claim)
    begun = api("POST", f"{run}/steps", STEP, headers=held).json()
    assert (begun["action"], begun["seq"]) == ("execute", 1)
    assert api("PUT", f"{run}/steps/1", {"output": "found"}, headers=held).json()["status"] == "running"
    refused(api("PUT", f"{run}/steps/1", {"output": "else"}, headers=held), 409, "conflict", "/finish/output")
    assert api("POST", f"{run}/steps", STEP, headers=held).json()["output"] == "found"
    other = api("POST", f"{run}/steps", {**STEP, "payload": 8}, headers=held)
    refused(other, 422, "non-determinism", "/start/payload")
    assert api("POST", f"{run}/steps", {**STEP, "payload": 8, "key": "order-8"}, headers=held).json()["seq"] == 2
    assert api("GET", f"{run}/steps/2").json()["identity"] == "look_up:order-8"
    api("PUT", f"{run}/steps/2", {"output": 2}, headers=held)
    assert api("POST", f"{run}/complete", {"output": "all"}, headers=held).json()["status"] == "succeeded"
    assert api.store().get(claim.run_id).output == "all"


def test_a_step_that_waits_for_a_person_gives_the_run_back(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    question = {"title": "Refund 40 EUR?", "tool": "refund", "args": {"amount": 40}}
    asked = {"name": "refund", "kind": "tool", "effect": "destructive", "payload": {"amount": 40}, "question": question}
    begun = api("POST", f"/runs/{claim.run_id}/steps", asked, headers=fence(claim)).json()
    assert begun["action"] == "wait" and begun["approval_id"].startswith("apr_")
    assert api.store().get(claim.run_id).status == "waiting"
    step = api("GET", f"/runs/{claim.run_id}/steps/{begun['seq']}").json()
    assert step["next"] == "wait" and step["approval"]["approval_id"] == begun["approval_id"]


def test_a_claim_waits_for_a_run_and_is_woken_by_its_admission(api: Caller) -> None:
    found: list[tuple[float, Claim | None]] = []

    def wait() -> None:
        claim = api.store().claim(WORKER, agents={"cleaner": AGENT}, wait_s=20)
        found.append((time.monotonic(), claim))

    waiting = threading.Thread(target=wait)
    waiting.start()
    hub_is_listening(api)
    admitted_at = time.monotonic()
    run = api.store().admit("cleaner", None)
    waiting.join(25)
    [(woken_at, claim)] = found
    assert claim is not None and claim.run_id == run.run_id
    assert woken_at - admitted_at < 15  # far below wait_s; the hint makes it a few milliseconds


def hub_is_listening(api: Caller) -> None:
    """The poll is in its wait when the server can answer something else meanwhile."""
    assert api("GET", "/agents").status_code == 200


def test_a_claim_of_a_run_that_is_taken_gives_nothing(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    wanted = {"worker": {"name": "other"}, "agents": {"cleaner": {"name": "cleaner", "version": "1"}}}
    assert api("POST", f"/runs/{claim.run_id}/claim", wanted).status_code == 204
    assert api("POST", "/runs/claim", wanted).status_code == 204
    refused(api("POST", "/runs/claim", {**wanted, "wait_s": 26}), 422, "invalid", "/wait_s")
    refused(api("POST", "/runs/claim", {**wanted, "worker": {}}), 422, "invalid", "/worker/name")


def test_fifty_polls_leave_room_for_everybody_else(api: Caller) -> None:
    def poll_once() -> None:
        assert api.store().claim(WORKER, agents={"cleaner": AGENT}, wait_s=4) is None

    polls = [threading.Thread(target=poll_once) for _ in range(50)]
    for poll in polls:
        poll.start()
    for _ in range(10):
        assert api("GET", "/runs").status_code == 200
    for poll in polls:
        poll.join(30)
    assert not any(poll.is_alive() for poll in polls)


def test_a_late_reply_is_kept_as_evidence_and_the_step_is_not_touched(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    store = api.store()
    store.turn(claim, Turn(start=[StepStart("pay#1", "pay", kind="tool", effect="destructive")]))
    store.late(claim, StepFinish(1, output="paid after all"))
    assert api("GET", f"/runs/{claim.run_id}/steps/1").json()["status"] == "started"
    refused(api("POST", f"/runs/{claim.run_id}/late", {"seq": 9}, headers=fence(claim)), 404, "not-found")


def test_entries_are_shown_at_once_and_durable_when_asked(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    path = f"/runs/{claim.run_id}/scratchpad"
    assert api("POST", path, {"entries": [note(1)]}, headers=fence(claim)).status_code == 204
    assert api("POST", path, {"entries": [note(1)], "durable": True}, headers=fence(claim)).status_code == 204
    texts = [event["entry"]["text"] for event in events(api, claim) if event["kind"] == "entry"]
    assert texts == ["entry 1"]


def events(api: Caller, claim: Claim) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api("GET", f"/runs/{claim.run_id}/events").json()["events"]
    return found


def test_events_have_no_holes_and_a_stream_tells_them_until_the_run_is_over(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    store = api.store()
    store.turn(claim, Turn(start=[StepStart("a#1", "a")], entries=[Entry(1, "note", "hello")]))
    store.turn(claim, Turn(then=End("succeeded", output=1)))
    found = events(api, claim)
    numbers = [event["seq"] for event in found]
    assert numbers == list(range(1, len(numbers) + 1))
    page = api("GET", f"/runs/{claim.run_id}/events?after=1&limit=1").json()
    assert [event["seq"] for event in page["events"]] == [2] and page["next"] == 2
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
    streamed = api("GET", f"/runs/{claim.run_id}/events", headers=headers)
    assert streamed.headers["Content-Type"] == "text/event-stream"
    told = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith('data: {"')]
    assert [event["seq"] for event in told] == numbers[1:]
    assert streamed.text.rstrip().endswith("event: over\ndata: {}")
    assert refused(api("GET", f"/runs/run_{'0' * 32}/events", headers=headers), 404, "not-found")


def test_a_stop_a_pause_and_a_cancel_reach_a_script(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    api("POST", f"/runs/{claim.run_id}/cancel", {})
    problem = refused(api("POST", f"/runs/{claim.run_id}/steps", STEP, headers=fence(claim)), 409, "conflict")
    assert problem["control"] == "cancel"
    ended = api("POST", f"/runs/{claim.run_id}/turn", {"then": {"end": {"outcome": "cancelled"}}}, headers=fence(claim))
    assert ended.json()["status"] == "cancelled"


def test_a_parked_run_is_claimed_again_with_its_history(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    store = api.store()
    store.turn(claim, Turn(start=[StepStart("a#1", "a", result=StepFinish(0, output=5))], state={"n": 1}))
    store.turn(claim, Turn(then=Park("shutdown")))
    again = store.claim(WORKER, agents={"cleaner": AGENT})
    assert again is not None and again.fence == claim.fence + 1 and again.state == {"n": 1}
    assert [(step.identity, step.status, step.output) for step in again.history] == [("a#1", "done", 5)]
    with pytest.raises(Fenced):
        store.renew(claim)


def test_a_fence_without_the_scope_is_no_right_to_work(
    claimed: tuple[Caller, Claim], caller: Callable[..., Caller], alice: Actor
) -> None:
    api, claim = claimed
    with pytest.raises(Forbidden):
        caller(alice, "runs.read").store().turn(claim, Turn())
    with pytest.raises(Invalid):
        api.store().turn(claim, Turn(start=[StepStart("a#1", "a", kind="nonsense")]))  # type: ignore[arg-type]
