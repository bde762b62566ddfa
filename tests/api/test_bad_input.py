"""What cannot be kept is refused with the field and the way out, before anything is written."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from agentstate.sdk.store import Claim
from tests.api.conftest import Caller
from tests.api.problems import refused

DEEP = b"[" * 300 + b"]" * 300

# body of POST /runs, status, code, field
BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "NUL": (b'{"agent": "cleaner", "input": {"a": ["x\\u0000"]}}', 422, "invalid", "/input/a/0"),
    "NUL in a name": (b'{"agent": "cle\\u0000aner"}', 422, "invalid", "/agent"),
    "lone surrogate": (b'{"agent": "cleaner", "input": {"a": "\\ud800"}}', 422, "invalid", "/input/a"),
    "NaN": (b'{"agent": "cleaner", "input": {"a": NaN}}', 422, "invalid", "/input/a"),
    "infinity": (b'{"agent": "cleaner", "input": -Infinity}', 422, "invalid", "/input"),
    "2^63": (b'{"agent": "cleaner", "input": {"a": 9223372036854775808}}', 422, "invalid", "/input/a"),
    "2^64 as a whole number": (b'{"agent": "cleaner", "input": 18446744073709551616}', 422, "invalid", "/input"),
    "depth 300": (b'{"agent": "cleaner", "input": ' + DEEP + b"}", 422, "invalid", ""),
    "depth 100,000": (b"[" * 100_000, 422, "invalid", ""),
    "no JSON": (b"{", 400, "malformed", ""),
    "no UTF-8": (b'{"agent": "\xff"}', 400, "malformed", ""),
    "no object": (b"[]", 422, "invalid", ""),
    "empty": (b"", 422, "invalid", ""),
    "unknown field": (b'{"agent": "cleaner", "inputs": 1}', 422, "invalid", "/inputs"),
    "wrong type": (b'{"agent": 7}', 422, "invalid", "/agent"),
    "number as text": (b'{"agent": "cleaner", "budget": {"steps": "7"}}', 422, "invalid", "/budget/steps"),
    "negative budget": (b'{"agent": "cleaner", "budget": {"cost": -1}}', 422, "invalid", "/budget/cost"),
    "missing": (b"{}", 422, "invalid", "/agent"),
    "too many tags": (json.dumps({"agent": "cleaner", "tags": ["t"] * 21}).encode(), 422, "invalid", "/tags"),
    "long tag": (json.dumps({"agent": "cleaner", "tags": ["t" * 65]}).encode(), 422, "invalid", "/tags/0"),
    "long name": (json.dumps({"agent": "c" * 201}).encode(), 422, "invalid", "/agent"),
    "trace id": (b'{"agent": "cleaner", "trace_id": "xyz"}', 422, "invalid", "/trace_id"),
    "unknown agent": (b'{"agent": "nobody"}', 404, "not-found", "/agent"),
}


def post(api: Caller, path: str, body: bytes, **headers: str) -> httpx.Response:
    return api.client.post(f"/api/v1{path}", content=body, headers={"Content-Type": "application/json", **headers})


@pytest.mark.parametrize("name", BODIES)
def test_admission_names_the_field_and_admits_nothing(api: Caller, name: str) -> None:
    body, status, code, field = BODIES[name]
    problem = refused_somewhere(post(api, "/runs", body), status, code, field)
    assert len(str(problem["detail"])) > 10
    assert api("GET", "/runs").json()["runs"] == []
    assert post(api, "/runs", b'{"agent": "cleaner"}').status_code == 201


def refused_somewhere(answer: httpx.Response, status: int, code: str, field: str) -> dict[str, Any]:
    if not field and status == 422:  # of a depth, the place is too long to spell out here
        field = str(answer.json().get("field", ""))
    return refused(answer, status, code, field)


TURNS: dict[str, tuple[bytes, str]] = {
    "unknown member": (b'{"begin": []}', "/begin"),
    "wrong kind": (b'{"start": [{"identity": "a#1", "name": "a", "kind": "dance"}]}', "/start/0/kind"),
    "missing": (b'{"finish": [{"output": 1}]}', "/finish/0/seq"),
    "two ways on": (b'{"then": {"park": {"why": "timer"}, "end": {"outcome": "failed"}}}', "/then"),
    "no way on": (b'{"then": {"sleep": {}}}', "/then"),
    "truth as a number": (b'{"finish": [{"seq": true}]}', "/finish/0/seq"),
    "text as a number": (b'{"start": [{"identity": "a#1", "name": "a", "due_s": "5"}]}', "/start/0/due_s"),
    "NUL in a state": (b'{"state": {"a/b": "\\u0000"}}', "/state/a~1b"),
    "NaN in an output": (b'{"finish": [{"seq": 1, "output": [NaN]}]}', "/finish/0/output/0"),
    "time without an offset": (
        b'{"entries": [{"n": 1, "kind": "note", "text": "x", "at": "2026-01-01T00:00:00"}]}',
        "/entries/0/at",
    ),
    "no object": (b"[]", ""),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_names_the_field_and_writes_nothing(claimed: tuple[Caller, Claim], name: str) -> None:
    api, claim = claimed
    body, field = TURNS[name]
    before = api("GET", f"/runs/{claim.run_id}/events").json()
    fence = {"Run-Fence": str(claim.fence)}
    refused(post(api, f"/runs/{claim.run_id}/turn", body, **fence), 422, "invalid", field)
    assert api("GET", f"/runs/{claim.run_id}/events").json() == before
    assert post(api, f"/runs/{claim.run_id}/turn", b"{}", **fence).status_code == 200


STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "identity of one's own": ({"name": "a", "identity": "a#1"}, "/identity"),
    "a name with a slash": ({"name": "a/b"}, "/name"),
    "ordinal zero": ({"name": "a", "ordinal": 0}, "/ordinal"),
    "key as a number": ({"name": "a", "key": 7}, "/key"),
    "unknown effect": ({"name": "a", "effect": "harmless"}, "/effect"),
    "no name": ({}, "/name"),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_names_the_field(claimed: tuple[Caller, Claim], name: str) -> None:
    api, claim = claimed
    body, field = STEPS[name]
    path, fence = f"/runs/{claim.run_id}/steps", {"Run-Fence": str(claim.fence)}
    refused(api("POST", path, body, headers=fence), 422, "invalid", field)
    assert api("POST", path, {"name": "a"}, headers=fence).status_code == 200


def test_twenty_megabytes_of_payload_are_kept_and_a_larger_body_is_refused(
    claimed: tuple[Caller, Claim],
) -> None:
    api, claim = claimed
    path, fence = f"/runs/{claim.run_id}/steps", {"Run-Fence": str(claim.fence)}
    large = json.dumps({"name": "a", "payload": "x" * (20 * 1024 * 1024 - 2)}).encode()
    assert post(api, path, large, **fence).json()["action"] == "execute"
    over = json.dumps({"name": "b", "payload": "x" * (20 * 1024 * 1024)}).encode()
    refused(post(api, path, over, **fence), 413, "too-large", "/payload")
    refused(post(api, path, b" " * (22 * 1024 * 1024), **fence), 413, "too-large")

    def chunks() -> Any:
        for _ in range(23):
            yield b" " * 1024 * 1024

    streamed = api.client.post(f"/api/v1{path}", content=chunks(), headers=fence)
    refused(streamed, 413, "too-large")


def test_addresses_methods_and_headers_are_refused_as_problems(api: Caller) -> None:
    refused(api("GET", "/nothing"), 404, "not-found")
    refused(api.client.get("/api/v2/runs"), 404, "not-found")
    answer = api("DELETE", "/runs")
    refused(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "POST"}
    body = {"agent": "cleaner"}
    refused(api("POST", "/runs", body, headers={"Idempotency-Key": "x" * 201}), 422, "invalid", "Idempotency-Key")
    refused(api("GET", "/runs?limit=0"), 422, "invalid", "limit")
    refused(api("GET", "/runs?from=yesterday"), 422, "invalid", "from")
    refused(api("GET", "/runs?tag=%00"), 422, "invalid", "tag")
    refused(api("GET", "/runs?cursor=zzz"), 422, "invalid", "cursor")


def test_a_worker_that_does_not_fit_is_refused(api: Caller) -> None:
    agents = {"cleaner": {"name": "cleaner", "version": "1"}}
    for worker, field in (
        ({"name": "w", "pid": 2**40}, "/worker/pid"),
        ({"name": "w", "boot_id": "b" * 65}, "/worker/boot_id"),
        ({"name": "w" * 201}, "/worker/name"),
    ):
        refused(api("POST", "/runs/claim", {"worker": worker, "agents": agents}), 422, "invalid", field)
    other = {"cleaner": {"name": "other", "version": "1"}}
    refused(
        api("POST", "/runs/claim", {"worker": {"name": "w"}, "agents": other}), 422, "invalid", "/agents/cleaner/name"
    )


def test_every_problem_carries_the_request_id_of_its_answer(api: Caller) -> None:
    answer = api("GET", "/nothing", headers={"X-Request-ID": "mine-1"})
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"] == "mine-1"
