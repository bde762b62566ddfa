"""Policies of memory over REST: the same as on the pages; versions, bounds and scopes; in force at the next context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

import agentstate as st
from agentstate.tenants.actors import VERBS, Actor
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope
from agentstate.testing import run_agent
from memory.selectors import policies as reads
from memory.selectors.policies import TENANT, Whose
from tests.api.conftest import Caller
from tests.api.problems import refused
from tests.conformance.served import ServedWorld

AGENT, OF_TENANT = "/memory/policies", "/memory/policies/tenant"


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def put(
    api: Caller, body: dict[str, Any], seen: int, *, to: str = AGENT, by: str = "PUT", **more: str
) -> httpx.Response:
    return api(by, to, body, headers={"If-Match": f'"{seen}"', **more})


def test_what_is_set_is_in_force_with_where_it_is_from(api: Caller, tenant: Tenant) -> None:
    first = put(api, {"agent": "desk", "fields": {"recall_k": 3, "idle_s": None}, "reason": "long mails"}, 0)
    assert (ok(first)["version"], first.headers["ETag"]) == (1, '"1"')
    ok(put(api, {"agent": "*", "fields": {"strategy": "window", "recall_k": 9}}, 0))
    found = api("GET", AGENT, params={"agent": "desk"})
    (desk,) = ok(found)["policies"]
    assert found.headers["ETag"] == '"1"' and desk["fields"] == {"recall_k": 3, "idle_s": None}
    assert (desk["in_force"]["strategy"], desk["in_force"]["recall_k"]) == ("window", 3)
    assert (desk["origins"]["strategy"], desk["origins"]["recall_k"]) == ("every agent", "this agent")
    patch = {"agent": "desk", "fields": {"accept": "auto"}, "clear": ["recall_k"]}
    changed = ok(put(api, patch, 1, by="PATCH"))
    assert changed["fields"] == {"idle_s": None, "accept": "auto"} and changed["in_force"]["recall_k"] == 9
    everything = ok(api("GET", AGENT))["policies"]
    assert [each["agent"] for each in everything] == [None, "*", "desk"]
    assert everything[2] == ok(api("GET", AGENT, params={"agent": "desk"}))["policies"][0]
    with tenant_scope(tenant.id):
        assert reads.held(Whose("desk")).fields == changed["fields"], "pages and the API read the same"
    (newest, oldest) = ok(api("GET", f"{AGENT}/versions", params={"agent": "desk"}))["versions"]
    assert (oldest["reason"], oldest["fields"]) == ("long mails", {"recall_k": 3, "idle_s": None})
    told = {each["field"]: (each["was"], each["now"], each["is_set"]) for each in newest["differences"]}
    assert told == {"recall_k": (3, None, False), "accept": (None, "auto", True)}


def test_who_writes_second_is_told_what_stands_and_a_repeat_is_the_same(api: Caller) -> None:
    body = {"fields": {"expiry_days": 60}, "reason": "r"}
    keyed = {"Idempotency-Key": "policy-1"}
    first, second = (ok(put(api, body, 0, to=OF_TENANT, **keyed)) for _ in range(2))
    assert first == second and ok(put(api, body, 0, to=OF_TENANT))["version"] == 1, "what stands already is no conflict"
    late = refused(put(api, {"fields": {"cap_bytes": 5000}}, 0, to=OF_TENANT), 409, "conflict")
    assert (late["version"], late["theirs"]["fields"]) == (1, {"expiry_days": 60}) and late["base"] == {"fields": {}}
    refused(api("PUT", OF_TENANT, {"fields": {}}), 422, "invalid", "If-Match")
    both = put(api, {"fields": {"cap_bytes": 5000}, "clear": ["cap_bytes"]}, 1, to=OF_TENANT, by="PATCH")
    refused(both, 422, "invalid", "/cap_bytes")
    refused(put(api, {"clear": ["cap_byte"]}, 1, to=OF_TENANT, by="PATCH"), 422, "invalid", "/clear")
    assert ok(api("GET", OF_TENANT))["fields"] == {"expiry_days": 60}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recall_k", 0),
        ("recall_k", 101),
        ("recall_k", "7"),
        ("recall_k", True),
        ("recall_k", 7.5),
        ("recall_k", None),
        ("recall_k", 10**40),
        ("budget_tokens", -1),
        ("idle_s", 59),
        ("batch_s", "5\0"),
        ("strategy", "window\0"),
        ("strategy", ["window"]),
        ("accept", {"auto": 1}),
        ("unheard_of", 1),
        ("reopen", "false"),
    ],
)
def test_a_bad_value_names_its_field_and_nothing_is_stored(
    api: Caller, tenant: Tenant, field: str, value: object
) -> None:
    for by in ("PUT", "PATCH"):
        answer = put(api, {"agent": "desk", "fields": {"summary_tokens": 77, field: value}}, 0, by=by)
        assert answer.status_code in (400, 413, 422), answer.text
        assert field in answer.json()["field"], answer.text
    assert put(api, {"agent": "", "fields": {}}, 0).status_code == 422
    assert put(api, {"agent": "a\0", "fields": {}}, 0).status_code == 422
    assert put(api, {"agent": "n" * 188, "fields": {}}, 0).status_code == 422
    with tenant_scope(tenant.id):
        assert not TenantSetting.objects.exists()


def test_an_agents_own_key_reads_and_changes_nothing(
    caller: Callable[..., Caller], alice: Actor, charlie: Actor, tenant: Tenant
) -> None:
    body = {"agent": "desk", "fields": {"accept": "auto"}}
    for scopes in (("runs.read",), tuple(verb for verb in VERBS if verb != "admin.members")):
        writer = caller(alice, *scopes)
        for to in (AGENT, OF_TENANT):
            sent = body if to == AGENT else {"fields": {"expiry_days": 1}}
            for by in ("PUT", "PATCH"):
                refused(put(writer, sent, 0, to=to, by=by), 403, "forbidden")
        assert ok(writer("GET", OF_TENANT))["version"] == 0
    refused(caller(alice, "memory.write")("GET", AGENT), 403, "forbidden")
    ok(put(caller(alice, "admin.members", "runs.read"), body, 0))
    theirs = caller(charlie)
    assert ok(theirs("GET", AGENT, params={"agent": "desk"}))["policies"][0]["version"] == 0
    ok(put(theirs, {"fields": {"expiry_days": 1}}, 0, to=OF_TENANT))
    with tenant_scope(tenant.id):
        assert reads.held(TENANT).fields == {} and reads.held(Whose("desk")).fields == {"accept": "auto"}


def test_a_running_agent_goes_by_the_change_from_its_next_context_and_message_on(api: Caller, alice: Actor) -> None:
    fields = {"strategy": "window", "budget_tokens": 300, "persistence": "batched"}

    @st.step
    def an_admin_changes_the_policy() -> int:
        return int(ok(put(api, {"agent": "policied", "fields": fields, "reason": "r"}, 0))["version"])

    @st.agent("policied", tools=[an_admin_changes_the_policy])
    def main() -> list[Any]:
        session = st.memory.session("user:1")
        first = [session.say("user", f"Lamp {n} is broken again, as it was last week.") for n in range(20)]
        before = session.context()
        an_admin_changes_the_policy()
        after = session.context()
        last = session.say("user", "And one more.")
        return [first[0].durable, before.budget_tokens, after.budget_tokens, before.used_tokens > 300, last.durable]

    store = api.store()
    info = run_agent(main, {}, store=store, controls=ServedWorld(alice, store))
    assert info.status == "succeeded", info
    assert info.output == [True, 8_000, 300, True, False]
