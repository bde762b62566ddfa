"""Admission, lists, one run, and what people do to it."""

from __future__ import annotations

from collections.abc import Callable

from agentstate.sdk.store import Claim, End, Turn
from agentstate.tenants.actors import Actor
from tests.api.conftest import AGENT, WORKER, Caller
from tests.api.problems import refused


def test_the_same_external_id_is_the_same_run(api: Caller) -> None:
    body = {"agent": "cleaner", "input": {"n": 1}, "external_id": "t-1", "tags": ["nightly"]}
    first, second = api("POST", "/runs", body), api("POST", "/runs", body)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["run_id"] == second.json()["run_id"]
    refused(api("POST", "/runs", {**body, "agent": "nobody"}), 404, "not-found", "/agent")


def test_the_same_idempotency_key_is_the_same_run_and_another_body_is_a_conflict(api: Caller) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = api("POST", "/runs", {"agent": "cleaner", "input": 1}, headers=headers)
    again = api("POST", "/runs", {"agent": "cleaner", "input": 1}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["run_id"] == again.json()["run_id"]
    other = api("POST", "/runs", {"agent": "cleaner", "input": 2}, headers=headers)
    assert refused(other, 409, "conflict")["run"] == first.json()["run_id"]


def test_a_run_joins_the_trace_of_its_caller(api: Caller) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    run_id = api("POST", "/runs", {"agent": "cleaner"}, headers=sent).json()["run_id"]
    assert api("GET", f"/runs/{run_id}").json()["trace_id"] == trace


def test_a_list_is_filtered_and_paged_by_a_cursor_that_only_its_list_takes(api: Caller) -> None:
    ids = [
        api("POST", "/runs", {"agent": "cleaner", "external_id": f"e-{n}", "tags": [f"t{n % 2}"]}).json()["run_id"]
        for n in range(5)
    ]
    page = api("GET", "/runs?limit=2").json()
    assert [run["run_id"] for run in page["runs"]] == ids[:2:-1] and page["next"]
    rest = api("GET", f"/runs?limit=200&cursor={page['next']}").json()
    assert [run["run_id"] for run in rest["runs"]] == ids[2::-1] and rest["next"] == ""
    assert len(api("GET", "/runs?tag=t1").json()["runs"]) == 2
    assert [run["run_id"] for run in api("GET", "/runs?external_id=e-3").json()["runs"]] == [ids[3]]
    assert api("GET", "/runs?state=succeeded").json()["runs"] == []
    assert api("GET", "/runs?from=2999-01-01T00:00:00Z").json()["runs"] == []
    refused(api("GET", f"/runs?tag=t1&cursor={page['next']}"), 422, "invalid", "cursor")
    refused(api("GET", "/runs?state=asleep"), 422, "invalid", "state")
    refused(api("GET", "/runs?colour=red"), 422, "invalid", "colour")


def test_a_run_shows_input_output_and_failure(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    api.store().turn(claim, Turn(then=End("succeeded", output={"done": True})))
    shown = api("GET", f"/runs/{claim.run_id}").json()
    assert shown["input"] == {"canary": "CANARY-7f3a"} and shown["output"] == {"done": True}
    assert shown["status"] == "succeeded" and shown["fence"] == 1
    refused(api("GET", f"/runs/run_{'0' * 32}"), 404, "not-found")
    refused(api("GET", "/runs/nonsense"), 404, "not-found")


def test_pause_resume_and_cancel_are_refused_where_they_make_no_sense(api: Caller) -> None:
    run_id = api("POST", "/runs", {"agent": "cleaner"}).json()["run_id"]
    assert api("POST", f"/runs/{run_id}/pause", {"reason": "lunch"}).json()["status"] == "paused"
    refused(api("POST", f"/runs/{run_id}/resume", {}), 422, "invalid", "reason")
    assert api("POST", f"/runs/{run_id}/resume", {"reason": "back"}).json()["status"] == "queued"
    assert api("POST", f"/runs/{run_id}/cancel", {}).json()["status"] == "cancelled"
    assert refused(api("POST", f"/runs/{run_id}/pause", {}), 409, "conflict")["code"] == "conflict"


def test_a_running_run_shows_what_was_asked_for_and_its_worker_is_told(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    asked = api("POST", f"/runs/{claim.run_id}/pause", {}).json()
    assert (asked["status"], asked["control"]) == ("running", "pause")
    assert api.store().renew(claim).control == "pause"


def test_each_verb_needs_its_scope(api: Caller, caller: Callable[..., Caller], alice: Actor) -> None:
    run_id = api("POST", "/runs", {"agent": "cleaner"}).json()["run_id"]
    reader = caller(alice, "runs.read")
    assert reader("GET", f"/runs/{run_id}").status_code == 200
    problem = refused(reader("POST", f"/runs/{run_id}/pause", {}), 403, "forbidden")
    assert problem["verb"] == "runs.control"
    assert refused(reader("POST", "/runs", {"agent": "cleaner"}), 403, "forbidden")["verb"] == "runs.start"
    assert refused(reader("POST", "/runs/claim", {"worker": {"name": "x"}}), 403, "forbidden")["verb"] == "runs.work"
    assert refused(caller(alice, "runs.start")("GET", "/runs"), 403, "forbidden")["verb"] == "runs.read"


def test_agents_are_listed_with_what_their_workers_registered(api: Caller) -> None:
    [agent] = api("GET", "/agents").json()["agents"]
    assert (agent["name"], agent["version"], agent["tools"]) == ("cleaner", "1", 1)
    api.store().claim(WORKER, agents={"cleaner": AGENT})
    assert api("GET", "/agents").json()["agents"][0]["workers"] == 1
    refused(api("POST", "/agents", {"name": "x"}), 422, "invalid", "/version")


def test_an_emergency_stop_holds_claims_until_it_is_lifted(api: Caller) -> None:
    store = api.store()
    store.admit("cleaner", None)
    refused(api("POST", "/stop", {}), 422, "invalid", "reason")
    assert api("POST", "/stop", {"agent": "cleaner", "reason": "wrong prices"}).json()["stopped"]
    assert store.claim(WORKER, agents={"cleaner": AGENT}) is None
    assert api("DELETE", "/stop?agent=cleaner&reason=fixed").json() == {"agent": "cleaner", "stopped": False}
    assert store.claim(WORKER, agents={"cleaner": AGENT}) is not None
    refused(api("DELETE", "/stop?agent=cleaner"), 404, "not-found")
