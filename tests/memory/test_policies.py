"""Policies: an agent's settings over everybody's over the defaults; changed by admins, refused by name, audited."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from agentstate.audit import trail
from agentstate.audit.models import AuditEntry
from agentstate.core import clock
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope
from memory.models import Session
from memory.selectors import policies as reads
from memory.services import items, messages, policies, reach, retention, sessions, subjects
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage
from memory.services.policies import ANY_AGENT, AgentPolicy, TenantPolicy, Whose

DESK, EVERYBODY = Whose("desk"), Whose(ANY_AGENT)


def test_without_settings_the_defaults_hold(scope: None) -> None:
    assert policies.for_agent("desk") == AgentPolicy() and policies.for_tenant() == TenantPolicy()
    assert (TenantPolicy().cap_bytes, TenantPolicy().expiry_days, TenantPolicy().fulltext) == (8_192, 90, "plain")


def test_an_agents_field_wins_over_everybodys(scope: None, alice: Actor) -> None:
    policies.set_for_agent(ANY_AGENT, {"strategy": "window", "recall_k": 3}, actor=alice)
    policies.set_for_agent("desk", {"strategy": "hierarchical"}, actor=alice)
    desk, other = policies.for_agent("desk"), policies.for_agent("other")
    assert (desk.strategy, desk.recall_k) == ("hierarchical", 3)
    assert (other.strategy, other.recall_k) == ("window", 3)
    assert policies.stored_for("desk") == {"strategy": "hierarchical"}


def test_reading_a_policy_is_one_query(scope: None) -> None:
    with CaptureQueriesContext(connection) as seen:
        policies.for_agent("desk")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"strategy": "magic"}, "strategy"),
        ({"budget_tokens": 1}, "budget_tokens"),
        ({"budget_tokens": 10**9}, "budget_tokens"),
        ({"batch_n": 0}, "batch_n"),
        ({"batch_n": 100_000}, "batch_n"),
        ({"batch_s": 3_600}, "batch_s"),
        ({"idle_s": 1}, "idle_s"),
        ({"recall_k": "many"}, "recall_k"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_stored(
    scope: None, alice: Actor, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        policies.set_for_agent("desk", fields, actor=alice)
    assert refusal.value.field == f"/{field}" and field in refusal.value.message
    assert not TenantSetting.objects.exists()


@pytest.mark.parametrize(
    ("field", "value"), [("cap_bytes", 1_000), ("cap_bytes", 10**6), ("fulltext", "loud"), ("expiry_days", 0), ("x", 1)]
)
def test_a_bad_setting_of_the_tenant_is_refused(scope: None, alice: Actor, field: str, value: Any) -> None:
    with pytest.raises(Invalid):
        policies.set_for_tenant(field, value, actor=alice)
    assert policies.for_tenant() == TenantPolicy()


def test_a_retention_is_a_number_of_days_or_none(scope: None, alice: Actor) -> None:
    assert (TenantPolicy().session_keep_days, TenantPolicy().ledger_keep_days) == (365, 365)
    for field in ("session_keep_days", "ledger_keep_days"):
        for value in (30, None, None, 7, None):
            assert getattr(policies.set_for_tenant(field, value, actor=alice), field) == value
        for bad in (0, -1, 36_501, "long", 1.5):
            with pytest.raises(Invalid):
                policies.set_for_tenant(field, bad, actor=alice)
        assert getattr(policies.for_tenant(), field) is None
    assert AuditEntry.objects.filter(detail__key="memory.tenant").count() == 8  # a value set again says nothing


@pytest.mark.parametrize("name", ["", "a\0", "n" * 200])
def test_an_agent_has_a_name(scope: None, alice: Actor, name: str) -> None:
    with pytest.raises(Invalid):
        policies.set_for_agent(name, {}, actor=alice)


def test_a_change_is_audited_once(scope: None, alice: Actor) -> None:
    for value in (5_000, 5_000, 6_000):
        policies.set_for_tenant("cap_bytes", value, actor=alice, reason="smaller")
    assert policies.for_tenant().cap_bytes == 6_000
    setting = TenantSetting.objects.get()
    actions = AuditEntry.objects.filter(object_id=setting.id).order_by("object_seq").values_list("action", flat=True)
    assert list(actions) == ["set", "changed"]


def test_only_admins_change_policies(scope: None, agent: Actor, victor: Actor, olga: Actor) -> None:
    for nobody in (agent, victor, olga):
        with pytest.raises(Forbidden):
            policies.set_for_agent("desk", {"strategy": "window"}, actor=nobody)
        with pytest.raises(Forbidden):
            policies.set_for_tenant("cap_bytes", 5_000, actor=nobody)


def test_a_value_that_cannot_be_used_stops_nobody_and_is_named(scope: None) -> None:
    stored = {"strategy": "magic", "recall_k": 3, "gone_since": 1, "accept": "by nobody"}
    TenantSetting.objects.create(key="memory.agent:*", value={"recall_k": 5, "strategy": "window", "accept": "auto"})
    TenantSetting.objects.create(key="memory.agent:desk", value=stored)
    TenantSetting.objects.create(key="memory.agent:list", value=["window"])
    desk = policies.for_agent("desk")
    assert (desk.strategy, desk.recall_k, desk.accept) == ("window", 3, "review"), "who accepts is never guessed"
    other = policies.for_agent("other")
    assert other.accept == "auto" and policies.for_agent("list") == other.model_copy(update={"accept": "review"})
    named = {(each.key, each.field) for each in reads.troubles()}
    desks = {("memory.agent:desk", field) for field in ("strategy", "gone_since", "accept")}
    assert named == desks | {("memory.agent:list", "")}
    fields = {field.name: field for field in reads.in_force(reads.held(DESK), reads.held(EVERYBODY))}
    assert {name: field.value for name, field in fields.items()} == desk.model_dump(), "the page says what is in force"
    assert fields["strategy"].origin == "every agent" and fields["strategy"].problem


@pytest.mark.parametrize("stored", [17, [], "x", {"fulltext": "secret", "cap_bytes": "all", "ledger_keep_days": -1}])
def test_a_broken_setting_of_the_tenant_never_writes_readable_words_nor_deletes(scope: None, stored: Any) -> None:
    TenantSetting.objects.create(key="memory.tenant", value=stored)
    found = policies.for_tenant()
    assert found.cap_bytes == TenantPolicy().cap_bytes
    assert (found.fulltext, found.ledger_keep_days) == ("blind", None)
    assert reads.troubles()
    fields = reads.in_force(reads.held(policies.TENANT))
    assert {field.name: field.value for field in fields} == found.model_dump()


def test_more_agents_than_a_page_shows_hide_neither_the_tenants_settings_nor_what_is_broken(
    scope: None, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads.every, "__kwdefaults__", {"agents_max": 2})
    policies.set_for_tenant("cap_bytes", 5_000, actor=alice)
    TenantSetting.objects.bulk_create([TenantSetting(key=f"memory.agent:a{n}", value={"k": 1}) for n in range(4)])
    assert [each.whose.agent for each in reads.every()] == [None, "*", "a0", "a1"]
    assert reads.every()[0].fields == {"cap_bytes": 5_000} and len(reads.troubles()) == 4


def test_whoever_changes_a_broken_setting_mends_it(scope: None, alice: Actor) -> None:
    row = TenantSetting.objects.create(key="memory.agent:desk", value={"strategy": "x" * 9_000, "k" * 300: [1]})
    assert policies.change(DESK, {"recall_k": 4}, actor=alice).fields == {"recall_k": 4}
    assert reads.troubles() == []
    TenantSetting.objects.filter(pk=row.pk).update(value=[])
    assert policies.replace(DESK, {}, actor=alice).is_sound


def test_each_tenant_has_its_own(tenant: Tenant, other_tenant: Tenant, alice: Actor) -> None:
    with tenant_scope(tenant.id):
        policies.set_for_agent("desk", {"strategy": "window"}, actor=alice)
    with tenant_scope(other_tenant.id):
        assert policies.for_agent("desk") == AgentPolicy()


def test_a_version_is_named_and_who_comes_second_is_told_both_sides(scope: None, alice: Actor, agent: Actor) -> None:
    assert policies.replace(DESK, {"recall_k": 3}, expected_version=0, actor=alice).version == 1
    assert policies.change(DESK, {"accept": "auto"}, expected_version=1, actor=alice, reason="r").version == 2
    with pytest.raises(Conflict) as late:
        policies.change(DESK, {"strategy": "window"}, expected_version=1, actor=alice)
    assert late.value.data["theirs"] == {"fields": {"recall_k": 3, "accept": "auto"}, "by": alice.name}
    assert (late.value.data["base"], late.value.data["version"]) == ({"fields": {"recall_k": 3}}, 2)
    assert policies.replace(DESK, {"recall_k": 3, "accept": "auto"}, expected_version=0, actor=alice).version == 2
    assert policies.restore(DESK, version=1, actor=alice, reason="better").fields == {"recall_k": 3}
    assert policies.restore(DESK, version=0, expected_version=3, actor=alice, reason="all").fields == {}
    assert [each.fields for each in reads.history(DESK)] == [
        {},
        {"recall_k": 3},
        {"recall_k": 3, "accept": "auto"},
        {"recall_k": 3},
    ]
    with pytest.raises(NotFound):
        policies.restore(DESK, version=9, actor=alice)
    with pytest.raises(Forbidden):
        policies.restore(DESK, version=1, actor=agent)


def test_two_at_once_make_two_versions_or_a_conflict(committed_db: None, tenant: Tenant, alice: Actor) -> None:
    """Both saw version 0: whoever holds the name first is version 1, the other one is refused."""

    def write(k: int) -> str:
        try:
            with tenant_scope(tenant.id, durable=True):
                held = policies.replace(DESK, {"recall_k": k}, expected_version=0, actor=alice)
            return f"version {held.version}"
        except Conflict:
            return "conflict"
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(write, (3, 4, 5, 6)))
    assert found == ["conflict", "conflict", "conflict", "version 1"]


def test_a_change_made_by_older_code_ends_what_is_known(scope: None, alice: Actor) -> None:
    policies.replace(DESK, {"recall_k": 3}, actor=alice)
    setting = TenantSetting.objects.get()
    trail.record(setting, action="changed", actor=alice, detail={"key": setting.key})
    policies.replace(DESK, {"recall_k": 4}, actor=alice)
    assert [each.fields for each in reads.history(DESK)] == [{"recall_k": 4}, {"recall_k": 3}, None]
    with pytest.raises(NotFound):
        policies.restore(DESK, version=1, actor=alice)


def told(*arguments: str) -> Any:
    out = StringIO()
    call_command("memory_policy", *arguments, stdout=out)
    return json.loads(out.getvalue())


def test_an_operator_reads_and_sets_from_the_shell(tenant: Tenant, other_tenant: Tenant) -> None:
    assert told("acme")["in_force"]["cap_bytes"] == {"value": 8_192, "from": "default"}
    given = ("--set", "strategy=window", "--set", "idle_s=null", "--reason", "long mails")
    made = told("acme", "--agent", "desk", *given)
    assert (made["version"], made["set"]) == (1, {"strategy": "window", "idle_s": None})
    told("acme", "--agent", "desk", "--clear", "idle_s", "--set", "recall_k=4", "--reason", "r", "--expected-version=1")
    newest, _ = told("acme", "--agent", "desk", "--versions")
    assert (newest["was"], newest["now"], newest["by"]) == ({"idle_s": None}, {"recall_k": 4}, "memory_policy")
    assert told("acme", "--agent", "desk", "--restore=1", "--reason", "r")["set"] == made["set"]
    assert told("acme")["agents"] == ["desk"] and told("globex")["agents"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("nobody",),
        ("acme", "--set", "cap_bytes=5000"),
        ("acme", "--set", "cap_bytes=1", "--reason", "r"),
        ("acme", "--set", "cap_bytes", "--reason", "r"),
        ("acme", "--set", "unheard_of=1", "--reason", "r"),
        ("acme", "--clear", "unheard_of", "--reason", "r"),
        ("acme", "--set", "cap_bytes=5000", "--restore=1", "--reason", "r"),
        ("acme", "--set", "cap_bytes=5000", "--expected-version=7", "--reason", "r"),
        ("acme", "--restore=1", "--reason", "r"),
        ("acme", "--agent", "", "--set", "recall_k=1", "--reason", "r"),
    ],
)
def test_the_shell_is_refused_as_everybody(tenant: Tenant, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        told(*arguments)
    with tenant_scope(tenant.id):
        assert not TenantSetting.objects.exists()


class TestReach:
    """What a page says a cap would do is what it does."""

    def test_a_smaller_cap_reaches_the_items_that_then_leave(self, scope: None, alice: Actor) -> None:
        made = [subjects.resolve(external_id=f"s{n}") for n in range(4)]
        for n, subject in enumerate(made[:3]):
            for k in range(7):
                words = " ".join(f"word{n}{k}{i}" for i in range(90))
                new = NewItem(f"{k} {words}", importance=(k * 7 % 5) / 5, pinned=n == 2)
                items.remember(subject.id, new, actor=alice, reason="said")
        subjects.set_cap(made[1].id, cap_bytes=7_000, actor=alice)  # one of its own
        for cap_bytes in (8_192, 5_500, 4_096):
            found = reach.over_cap(cap_bytes)
            left = dict[UUID, int]()
            refused = 0
            for subject in made:
                if subject.id == made[1].id:
                    continue
                with transaction.atomic():
                    policies.set_for_tenant("cap_bytes", cap_bytes, actor=alice)
                    try:
                        left[subject.id] = len(subjects.set_cap(subject.id, cap_bytes=None, actor=alice))
                    except Invalid:
                        refused += 1
                    transaction.set_rollback(True)
            over = sum(count > 0 for count in left.values()) + refused
            assert (found.subjects, found.items.rows, found.refused) == (over, sum(left.values()), refused)
        assert found.subjects == 2 and found.refused == 1 and found.items.rows > 1

    def test_a_shorter_retention_reaches_what_it_then_removes(self, scope: None, alice: Actor) -> None:
        subject = subjects.resolve(external_id="ada")
        for n, days in enumerate((3, 12, 30)):
            made = sessions.open(f"s{n}", subject_id=subject.id, actor=alice)
            messages.append(made.id, [NewMessage("user", "Hello."), NewMessage("assistant", "Hi.")], actor=alice)
            sessions.close(made.id, actor=alice)
            Session.objects.filter(id=made.id).update(ended_at=clock.now() - timedelta(days=days))
        for days in (40, 20, 7, 1):
            policy = policies.set_for_tenant("session_keep_days", days, actor=alice)
            found, plan = reach.of_tenant(TenantPolicy(), policy), retention.plan()
            assert found.sessions is not None
            assert (found.sessions.rows, found.messages) == (plan.sessions, plan.messages)
        assert plan.sessions == 3
        assert reach.of_tenant(policy, policy.model_copy(update={"session_keep_days": None})).is_silent

    def test_counts_end_somewhere_and_say_so(self, scope: None, alice: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
        subject = subjects.resolve(external_id="ada")
        for n in range(5):
            items.remember(subject.id, NewItem(f"Lamp {n} stands in room {n}."), actor=alice, reason="said")
        monkeypatch.setattr(reach, "COUNTED_MAX", 3)
        after = TenantPolicy(fulltext="off", expiry_days=1, session_keep_days=1, ledger_keep_days=1)
        found = reach.of_tenant(TenantPolicy(), after)
        assert found.reworded == reach.Counted(3, True) and found.cap is None
        assert found.ageing is not None and found.ageing.items == reach.Counted(3, True)
        assert found.sessions == found.given == reach.Counted(0) and not found.is_silent
        assert reach.of_tenant(TenantPolicy(), TenantPolicy(cap_bytes=8_192)).is_silent
