"""Every route, asked by its owner, a colleague without the scope, another tenant and nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from agentstate.core.ids import parse_id
from agentstate.sdk.store import Claim, Park, Question, StepFinish, StepStart, Turn
from agentstate.tenants.actors import VERBS, Actor
from tests.api.conftest import AGENT, WORKER, Caller
from tests.api.problems import refused

CANARY = "CANARY-7f3a"
ABSENT_RUN, ABSENT_APPROVAL = f"run_{'0' * 32}", f"apr_{'0' * 32}"
IF_MATCH = {"If-Match": '"1"'}
FENCE = {"Run-Fence": "1"}
HASH = {"proposal_hash": "0" * 64}
SPEC = {"cleaner": {"name": "cleaner", "version": "1"}}


@dataclass(frozen=True)
class Route:
    """How to call one operation; {run}, {approval} and {seq} stand for the owner's, or for nobody's."""

    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    verb: str = "runs.read"
    by_id: bool = True  # names a row in its address; else it lists or makes rows of the caller's own tenant


ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/runs"): Route({"agent": "cleaner"}, verb="runs.start", by_id=False),
    ("GET", "/runs"): Route(by_id=False),
    ("GET", "/runs/{run}"): Route(),
    ("POST", "/runs/{run}/pause"): Route({}, verb="runs.control"),
    ("POST", "/runs/{run}/cancel"): Route({}, verb="runs.control"),
    ("POST", "/runs/{run}/resume"): Route({"reason": "x"}, verb="runs.control"),
    ("GET", "/runs/{run}/events"): Route(),
    ("POST", "/runs/claim"): Route({"worker": {"name": "w"}, "agents": SPEC}, verb="runs.work", by_id=False),
    ("POST", "/runs/{run}/claim"): Route({"worker": {"name": "w"}, "agents": SPEC}, verb="runs.work"),
    ("PUT", "/runs/{run}/lease"): Route(headers=FENCE, verb="runs.work"),
    ("POST", "/runs/{run}/turn"): Route({}, headers=FENCE, verb="runs.work"),
    ("POST", "/runs/{run}/steps"): Route({"name": "a"}, headers=FENCE, verb="runs.work"),
    ("GET", "/runs/{run}/steps/{seq}"): Route(),
    ("PUT", "/runs/{run}/steps/{seq}"): Route({"output": 1}, headers=FENCE, verb="runs.work"),
    ("POST", "/runs/{run}/complete"): Route({}, headers=FENCE, verb="runs.work"),
    ("POST", "/runs/{run}/fail"): Route({}, headers=FENCE, verb="runs.work"),
    ("GET", "/runs/{run}/scratchpad"): Route(),
    ("POST", "/runs/{run}/scratchpad"): Route(
        {"entries": [{"n": 1, "kind": "note", "text": "x"}]}, headers=FENCE, verb="runs.work"
    ),
    ("POST", "/runs/{run}/late"): Route({"seq": 1}, headers=FENCE, verb="runs.work"),
    ("GET", "/approvals"): Route(by_id=False),
    ("GET", "/approvals/{approval}"): Route(),
    ("POST", "/approvals/{approval}/decision"): Route(
        {"decision": "approve", **HASH}, headers=IF_MATCH, verb="approvals.decide"
    ),
    ("POST", "/runs/{run}/steps/{seq}/settle"): Route(
        {"verdict": "happened", "reason": "x", **HASH}, headers=IF_MATCH, verb="approvals.decide"
    ),
    ("POST", "/agents"): Route({"name": "cleaner", "version": "1"}, verb="runs.work", by_id=False),
    ("GET", "/agents"): Route(by_id=False),
    ("POST", "/stop"): Route({"reason": "x"}, verb="admin.stop", by_id=False),
    ("DELETE", "/stop"): Route(verb="admin.stop", by_id=False),
}


@dataclass(frozen=True)
class Owned:
    owner: Caller
    run: str
    approval: str
    before: dict[str, Any]


@pytest.fixture
def owned(claimed: tuple[Caller, Claim]) -> Owned:
    """A run of the owner's whose input, step, question and notes hold the canary."""
    api, claim = claimed
    question = Question(f"May I? {CANARY}", tool="refund", args={"to": CANARY}, reason=CANARY)
    ask = StepStart("refund#1", "refund", kind="tool", effect="destructive", payload=CANARY, question=question)
    looked_up = StepStart("look#1", "look", payload=CANARY, result=StepFinish(0, output=CANARY))
    begun = api.store().turn(claim, Turn(start=[looked_up, ask])).begun[1]
    api.store().turn(claim, Turn(then=Park("approval")))
    return Owned(api, claim.run_id, begun.approval_id, api("GET", f"/runs/{claim.run_id}").json())


def call(caller: Caller, method: str, path: str, route: Route, *, run: str, approval: str) -> httpx.Response:
    return caller(method, path.format(run=run, approval=approval, seq=1), route.body, headers=route.headers)


def test_the_table_names_every_route_of_the_document(api: Caller) -> None:
    document = api("GET", "/openapi.json").json()
    found = {
        (
            method.upper(),
            path.removeprefix("/api/v1").replace("{run_id}", "{run}").replace("{approval_id}", "{approval}"),
        )
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert found == ROUTES.keys()


def test_the_owner_reads_the_canary(owned: Owned) -> None:
    for path in ("/runs/{run}", "/runs/{run}/steps/{seq}", "/approvals", "/approvals/{approval}"):
        answer = call(owned.owner, "GET", path, Route(), run=owned.run, approval=owned.approval)
        assert answer.status_code == 200 and CANARY in answer.text, path


def test_another_tenant_gets_what_it_gets_for_rows_that_are_not_there(
    owned: Owned, caller: Callable[..., Caller], charlie: Actor
) -> None:
    stranger = caller(charlie)
    for (method, path), route in ROUTES.items():
        theirs = call(stranger, method, path, route, run=owned.run, approval=owned.approval)
        absent = call(stranger, method, path, route, run=ABSENT_RUN, approval=ABSENT_APPROVAL)
        assert CANARY not in theirs.text, (method, path)
        if route.by_id:
            assert same(theirs, owned.run) == same(absent, ABSENT_RUN), (method, path)
            assert theirs.status_code in (204, 404, 409), (method, path, theirs.text)
    assert owned.owner("GET", f"/runs/{owned.run}").json() == owned.before
    assert owned.owner("GET", f"/approvals/{owned.approval}").json()["status"] == "pending"


def same(answer: httpx.Response, asked_for: str) -> tuple[int, str]:
    """An answer without what the caller said itself and what differs from one request to the next."""
    text = answer.text.replace(answer.headers["X-Request-ID"], "").replace(asked_for, "RUN")
    return answer.status_code, text.replace(str(parse_id("run", asked_for)), "RUN")


def test_a_stream_of_another_tenants_run_does_not_open(
    owned: Owned, caller: Callable[..., Caller], charlie: Actor
) -> None:
    headers = {"Accept": "text/event-stream"}
    refused(caller(charlie)("GET", f"/runs/{owned.run}/events", headers=headers), 404, "not-found")


def test_a_claim_of_another_tenant_takes_nothing(owned: Owned, caller: Callable[..., Caller], charlie: Actor) -> None:
    owned.owner.store().admit("cleaner", CANARY)
    stranger = caller(charlie).store()
    stranger.register(AGENT)
    assert stranger.claim(WORKER, agents={"cleaner": AGENT}) is None


def test_a_colleague_without_the_scope_is_told_which_one_is_missing(
    owned: Owned, caller: Callable[..., Caller], alice: Actor
) -> None:
    for verb in {route.verb for route in ROUTES.values()}:
        lacking = caller(alice, *(VERBS.keys() - {verb}))
        for (method, path), route in ROUTES.items():
            if route.verb == verb:
                answer = call(lacking, method, path, route, run=owned.run, approval=owned.approval)
                assert refused(answer, 403, "forbidden")["verb"] == verb
                assert CANARY not in answer.text


def test_nobody_gets_the_same_refusal_everywhere(owned: Owned, server: str) -> None:
    with httpx.Client(base_url=server) as client:
        bearers = [{}, {"Authorization": "Bearer as_" + "0" * 48}, {"Authorization": "Basic eDp5"}]
        bearers += [{"Authorization": "Bearer as_1 as_2"}, {"Authorization": f"Bearer {'x' * 5000}"}]
        nobodies = [Caller("", client, owned.owner.actor, server)]
        for (method, path), route in ROUTES.items():
            for bearer in bearers:
                full = Route(route.body, {**route.headers, **bearer}, route.verb)
                answer = call(nobodies[0], method, path, full, run=owned.run, approval=owned.approval)
                refused(answer, 401, "unauthorised")
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_revoked_key_is_refused_by_acts_at_once_and_by_a_workers_calls_within_a_second(
    claimed: tuple[Caller, Claim], alice: Actor
) -> None:
    import time
    from uuid import UUID

    from agentstate.tenants import api_keys

    api, claim = claimed
    held = {"Run-Fence": str(claim.fence)}
    assert api("PUT", f"/runs/{claim.run_id}/lease", headers=held).status_code == 200
    api_keys.revoke(UUID(api.actor.id), actor=alice)
    revoked_at = time.monotonic()
    refused(api("GET", f"/runs/{claim.run_id}"), 401, "unauthorised")
    refused(api("POST", "/runs", {"agent": "cleaner"}), 401, "unauthorised")
    while api("PUT", f"/runs/{claim.run_id}/lease", headers=held).status_code == 200:
        assert time.monotonic() < revoked_at + 10  # one second, and room for a slow machine
