"""Every route, asked by its owner, a colleague without the scope, another tenant and nobody."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from agentstate.core.ids import parse_id
from agentstate.sdk.store import Claim, Entry, Park, Question, StepFinish, StepStart, Turn
from agentstate.tenants.actors import VERBS, Actor
from tests.api.conftest import AGENT, WORKER, Caller
from tests.api.problems import refused

CANARY = "CANARY-7f3a"
PREFIXES = {"approval": "apr"}
ROWS = ("run", "approval", "subject", "alias", "item", "session", "proposal", "source", "erasure")
ABSENT = {name: f"{PREFIXES.get(name, name)}_{'0' * 32}" for name in ROWS} | {"source": f"item_{'0' * 32}"}
ABSENT |= {"erased": f"subject_{'0' * 32}"}
IF_MATCH = {"If-Match": '"1"'}
FENCE = {"Run-Fence": "1"}
HASH = {"proposal_hash": "0" * 64}
POLICY = {"agent": "cleaner", "fields": {}}
WRITE, ERASE = "memory.write", "memory.erase"
SPEC = {"cleaner": {"name": "cleaner", "version": "1"}}


@dataclass(frozen=True)
class Route:
    """How to call one operation; {run}, {subject} and so on stand for the owner's, or for nobody's.

    In bodies and parameters too: "$subject".
    """

    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    verb: str = "runs.read"
    by_id: bool = True  # names a row; else it lists or makes rows of the caller's own tenant
    query: dict[str, str] = field(default_factory=dict)


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
    ("POST", "/runs/{run}/memory/{act}"): Route(
        {"question": "x"}, headers=FENCE, verb="runs.work", query={"step_seq": "1"}
    ),
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
    ("POST", "/memory/subjects"): Route({"external_id": "x"}, verb=WRITE, by_id=False),
    ("GET", "/memory/subjects"): Route(by_id=False),
    ("GET", "/memory/subjects/{subject}"): Route(),
    ("PATCH", "/memory/subjects/{subject}"): Route({"name": "x"}, verb=WRITE),
    ("POST", "/memory/subjects/{subject}/aliases"): Route({"kind": "email", "value": "x"}, verb=WRITE),
    ("DELETE", "/memory/subjects/{subject}/aliases/{alias}"): Route(verb=WRITE),
    ("GET", "/memory/subjects/{subject}/messages"): Route(),
    ("GET", "/memory/subjects/{subject}/erasure/plan"): Route(verb=ERASE),
    ("POST", "/memory/subjects/{subject}/erase"): Route({"confirm": "x", "reason": "x"}, verb=ERASE),
    ("GET", "/memory/subjects/{erased}/erasure"): Route(verb=ERASE),
    ("GET", "/memory/subjects/{erased}/erasure/receipt"): Route(verb=ERASE),
    ("GET", "/memory/erasures"): Route(verb=ERASE, by_id=False),
    ("GET", "/memory/erasures/{erasure}"): Route(verb=ERASE),
    ("GET", "/memory/subjects/{subject}/as-of"): Route(query={"as_of": "9000-01-01T00:00:00Z"}),
    ("GET", "/memory/subjects/{subject}/export"): Route(verb=ERASE),
    ("POST", "/memory/import"): Route({"type": "header"}, verb=ERASE, by_id=False),
    ("POST", "/memory/items"): Route({"subject": "$subject", "text": "x"}, verb=WRITE),
    ("GET", "/memory/items"): Route(query={"subject": "$subject"}),
    ("GET", "/memory/items/{item}"): Route(),
    ("PATCH", "/memory/items/{item}"): Route({"text": "x"}, headers=IF_MATCH, verb=WRITE),
    ("POST", "/memory/items/{item}/restore"): Route({"version": 1}, headers=IF_MATCH, verb=WRITE),
    ("POST", "/memory/items/{item}/pin"): Route({}, verb=WRITE),
    ("POST", "/memory/items/{item}/unpin"): Route({}, verb=WRITE),
    ("POST", "/memory/items/{item}/forget"): Route({}, verb=WRITE),
    ("POST", "/memory/sessions"): Route({"key": "k", "subject": "$subject"}, verb=WRITE),
    ("GET", "/memory/sessions"): Route(query={"subject": "$subject"}),
    ("GET", "/memory/sessions/{session}"): Route(),
    ("POST", "/memory/sessions/{session}/close"): Route({}, verb=WRITE),
    ("POST", "/memory/sessions/{session}/undo"): Route({"last_n": 1}, headers=IF_MATCH, verb=WRITE),
    ("POST", "/memory/sessions/{session}/messages"): Route({"messages": [{"role": "user", "text": "x"}]}, verb=WRITE),
    ("GET", "/memory/sessions/{session}/messages"): Route(),
    ("POST", "/memory/recall"): Route({"subject": "$subject", "question": CANARY}),
    ("POST", "/memory/context"): Route({"session": "$session"}),
    ("GET", "/memory/ledger/step"): Route(query={"run_id": "$run", "step_seq": "1"}),
    ("GET", "/memory/ledger/sources/{source}"): Route(),
    ("GET", "/memory/ledger/sessions/{session}"): Route(),
    ("GET", "/memory/proposals"): Route(query={"subject": "$subject"}),
    ("GET", "/memory/proposals/{proposal}"): Route(),
    ("POST", "/memory/proposals/{proposal}/accept"): Route({}, verb=WRITE),
    ("POST", "/memory/proposals/{proposal}/reject"): Route({}, verb=WRITE),
    ("GET", "/memory/progress"): Route(query={"key": CANARY}),
    ("PUT", "/memory/progress"): Route({"key": "k", "body": "## Goal"}, headers=IF_MATCH, verb=WRITE, by_id=False),
    ("GET", "/memory/policies"): Route(by_id=False),
    ("PUT", "/memory/policies"): Route(POLICY, headers=IF_MATCH, verb="admin.members", by_id=False),
    ("PATCH", "/memory/policies"): Route(POLICY, headers=IF_MATCH, verb="admin.members", by_id=False),
    ("GET", "/memory/policies/tenant"): Route(by_id=False),
    ("PUT", "/memory/policies/tenant"): Route({"fields": {}}, headers=IF_MATCH, verb="admin.members", by_id=False),
    ("PATCH", "/memory/policies/tenant"): Route({"fields": {}}, headers=IF_MATCH, verb="admin.members", by_id=False),
    ("GET", "/memory/policies/versions"): Route(by_id=False, query={"agent": CANARY}),
    ("GET", "/memory/prompts"): Route(query={"agent": CANARY}),
    ("PUT", "/memory/prompts"): Route({"agent": "a", "text": "x"}, headers=IF_MATCH, verb=WRITE, by_id=False),
}


@dataclass(frozen=True)
class Owned:
    owner: Caller
    names: dict[str, str]  # of each kind of row one of the owner's
    before: dict[str, dict[str, Any]]

    def again(self) -> dict[str, dict[str, Any]]:
        return {path: self.owner("GET", path).json() for path in self.before}


@pytest.fixture
def owned(claimed: tuple[Caller, Claim]) -> Owned:
    """A run of the owner's, and a subject it remembers, in all of whose texts the canary stands."""
    api, claim = claimed
    question = Question(f"May I? {CANARY}", tool="refund", args={"to": CANARY}, reason=CANARY)
    ask = StepStart("refund#1", "refund", kind="tool", effect="destructive", payload=CANARY, question=question)
    looked_up = StepStart("look#1", "look", payload=CANARY, result=StepFinish(0, output=CANARY))
    begun = api.store().turn(claim, Turn(start=[looked_up, ask], entries=[Entry(1, "note", CANARY)])).begun[1]
    api.store().turn(claim, Turn(then=Park("approval")))
    names = {"run": claim.run_id, "approval": begun.approval_id, **remembered(api)}
    paths = [f"/runs/{names['run']}", f"/approvals/{names['approval']}", f"/memory/items/{names['item']}"]
    paths += [f"/memory/subjects/{names['subject']}", f"/memory/proposals/{names['proposal']}"]
    return Owned(api, names, {path: api("GET", path).json() for path in paths})


def remembered(api: Caller) -> dict[str, str]:
    alias = {"kind": "email", "value": f"{CANARY}@example.com"}
    subject = api("POST", "/memory/subjects", {"external_id": "o-1", "aliases": [alias], "name": CANARY}).json()
    named, facts = subject["subject_id"], {"fact_kind": "preference"}
    made = {"subject": named, "text": f"Prefers {CANARY}.", "facts": {"about": "x", "value": CANARY}, **facts}
    item = api("POST", "/memory/items", made).json()["item"]["item_id"]
    other = {**made, "text": f"Likes something else than {CANARY} now.", "facts": {"about": "x", "value": "other"}}
    assert api("POST", "/memory/items", other).json()["contradicts"] == [item]
    (proposal,) = api("GET", "/memory/proposals").json()["proposals"]
    session = api("POST", "/memory/sessions", {"key": CANARY, "subject": named, "title": CANARY}).json()["session_id"]
    api("POST", f"/memory/sessions/{session}/messages", {"messages": [{"role": "user", "text": CANARY}]})
    new = {"If-Match": '"0"'}
    api("PUT", "/memory/progress", {"key": CANARY, "sections": {"goal": CANARY}}, headers=new)
    api("PUT", "/memory/prompts", {"agent": CANARY, "text": CANARY}, headers=new)
    policy = {"agent": CANARY, "fields": {"recall_k": 3}, "reason": CANARY}
    assert api("PUT", "/memory/policies", policy, headers=new).status_code == 200
    gone = api("POST", "/memory/subjects", {"external_id": "o-2"}).json()["subject_id"]
    erased = api("POST", f"/memory/subjects/{gone}/erase", {"confirm": "o-2", "reason": "x"})
    assert erased.status_code == 200
    return {
        "subject": named,
        "erased": gone,
        "erasure": erased.json()["erasure_id"],
        "alias": subject["aliases"][0]["alias_id"],
        "item": item,
        "session": session,
        "proposal": proposal["proposal_id"],
        "source": item,
    }


def call(caller: Caller, method: str, path: str, route: Route, names: dict[str, str]) -> httpx.Response:
    body, query = filled(route.body, names), filled(route.query, names)
    return caller(method, path.format(seq=1, act="recall", **names), body, headers=route.headers, params=query)


def filled(part: Any, names: dict[str, str]) -> Any:
    if isinstance(part, dict):
        return {name: filled(value, names) for name, value in part.items()}
    return names.get(part[1:], part) if isinstance(part, str) and part.startswith("$") else part


def test_the_table_names_every_route_of_the_document(api: Caller) -> None:
    document = api("GET", "/openapi.json").json()
    found = {
        (
            method.upper(),
            re.sub(r"\{(\w+)_id\}", r"{\1}", path.removeprefix("/api/v1")),
        )
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert found == ROUTES.keys()


def test_the_owner_reads_the_canary(owned: Owned) -> None:
    silent = {"/runs", "/runs/{run}/events", "/agents", "/memory/ledger/step"}  # no text of the run's stands there
    silent |= {"/memory/ledger/sources/{source}", "/memory/ledger/sessions/{session}"}
    silent |= {path for _, path in ROUTES if "/erasure" in path}  # ids and counts
    silent.add("/memory/policies/tenant")
    for (method, path), route in ROUTES.items():
        if method == "GET" or path in ("/memory/recall", "/memory/context"):
            answer = call(owned.owner, method, path, route, owned.names)
            assert answer.status_code == 200, (path, answer.text)
            assert path in silent or CANARY in answer.text, path


def test_another_tenant_gets_what_it_gets_for_rows_that_are_not_there(
    owned: Owned, caller: Callable[..., Caller], charlie: Actor
) -> None:
    stranger = caller(charlie)
    for (method, path), route in ROUTES.items():
        theirs = call(stranger, method, path, route, owned.names)
        absent = call(stranger, method, path, route, ABSENT)
        assert CANARY not in theirs.text, (method, path)
        if route.by_id:
            assert same(theirs, owned.names) == same(absent, ABSENT), (method, path)
            assert theirs.status_code in (204, 404, 409) or nothing(theirs), (method, path, theirs.text)
    assert owned.again() == owned.before


def same(answer: httpx.Response, asked_for: dict[str, str]) -> tuple[int, str]:
    """An answer without what the caller said itself and what differs from one request to the next."""
    text = answer.text.replace(answer.headers["X-Request-ID"], "")
    for name, public in asked_for.items():
        text = text.replace(public, name).replace(str(parse_id(public.partition("_")[0], public)), name)
    return answer.status_code, text


def nothing(answer: httpx.Response) -> bool:
    """Of a row that is not there the ledger says that it was never used."""
    found: dict[str, Any] = answer.json()
    return found == {"lines": []} or found.get("runs") == 0


def test_a_stream_of_another_tenants_run_does_not_open(
    owned: Owned, caller: Callable[..., Caller], charlie: Actor
) -> None:
    headers = {"Accept": "text/event-stream"}
    refused(caller(charlie)("GET", f"/runs/{owned.names['run']}/events", headers=headers), 404, "not-found")


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
                answer = call(lacking, method, path, route, owned.names)
                assert refused(answer, 403, "forbidden")["verb"] == verb
                assert CANARY not in answer.text


def test_nobody_gets_the_same_refusal_everywhere(owned: Owned, server: str) -> None:
    with httpx.Client(base_url=server) as client:
        bearers = [{}, {"Authorization": "Bearer as_" + "0" * 48}, {"Authorization": "Basic eDp5"}]
        bearers += [{"Authorization": "Bearer as_1 as_2"}, {"Authorization": f"Bearer {'x' * 5000}"}]
        nobodies = [Caller("", client, owned.owner.actor, server)]
        for (method, path), route in ROUTES.items():
            for bearer in bearers:
                full = replace(route, headers={**route.headers, **bearer})
                answer = call(nobodies[0], method, path, full, owned.names)
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
