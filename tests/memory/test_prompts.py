"""Procedural prompts: versions per agent and name, one in force, restored as a new one."""

from __future__ import annotations

import pytest

from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.models import PromptVersion
from memory.selectors import prompts as reads
from memory.services import prompts


def test_the_newest_version_is_in_force(scope: None, alice: Actor) -> None:
    assert prompts.in_force("desk") is None
    prompts.write("desk", "Be brief.", reason="first", actor=alice)
    prompts.write("desk", "Be brief and kind.", expected_version=1, reason="kinder", actor=alice)
    prompts.write("desk", "Sort by date.", name="triage", reason="other", actor=alice)
    found = prompts.in_force("desk")
    assert found is not None and (found.version, found.text, found.actor_name) == (2, "Be brief and kind.", "Alice")
    assert [(row.version, row.is_in_force, row.reason) for row in reads.versions(found.prompt_id)] == [
        (2, True, "kinder"), (1, False, "first"),
    ]  # fmt: skip
    assert [(row.agent, row.name) for row in reads.every()] == [("desk", "main"), ("desk", "triage")]


def test_the_same_words_make_no_version(scope: None, alice: Actor) -> None:
    first = prompts.write("desk", "Be brief.", reason="x", actor=alice)
    assert prompts.write("desk", "Be brief.", expected_version=7, reason="x", actor=alice) == first
    assert PromptVersion.objects.count() == 1


def test_a_writer_who_read_another_version_is_refused(scope: None, alice: Actor) -> None:
    prompts.write("desk", "a", expected_version=0, reason="x", actor=alice)
    with pytest.raises(Conflict) as refusal:
        prompts.write("desk", "b", expected_version=0, reason="x", actor=alice)
    assert refusal.value.data["version"] == 1


def test_a_restore_is_a_new_version(scope: None, alice: Actor) -> None:
    first = prompts.write("desk", "a", reason="x", actor=alice)
    prompts.write("desk", "b", reason="x", actor=alice)
    again = prompts.restore(first.prompt_id, version=1, expected_version=2, reason="b was worse", actor=alice)
    assert (again.version, again.text, again.is_in_force) == (3, "a", True)
    with pytest.raises(NotFound):
        prompts.restore(first.prompt_id, version=9, reason="x", actor=alice)


@pytest.mark.parametrize(
    ("agent_name", "body", "name", "error"),
    [
        ("", "x", "main", Invalid),
        ("desk", " ", "main", Invalid),
        ("desk", "a\0", "main", Invalid),
        ("desk", "\ud800", "main", Invalid),
        ("desk", "x" * (20 * 2**20), "main", TooLarge),
        ("desk", "x", "", Invalid),
        ("desk", "x", "n" * 101, TooLarge),
    ],
)
def test_bad_prompts_are_refused(scope: None, agent: Actor, agent_name: str, body: str, name: str, error: type) -> None:
    with pytest.raises(error):
        prompts.write(agent_name, body, name=name, actor=agent)
    assert not PromptVersion.objects.exists()


def test_prompts_are_sealed_and_the_tenants_own(
    tenant: Tenant, other_tenant: Tenant, agent: Actor, victor: Actor
) -> None:
    with tenant_scope(tenant.id):
        prompts.write("desk", "the canary sings", actor=agent)
        assert b"canary" not in bytes(PromptVersion.objects.get().body)
        with pytest.raises(Forbidden):
            prompts.write("desk", "x", reason="x", actor=victor)
    with tenant_scope(other_tenant.id):
        assert prompts.in_force("desk") is None and reads.every() == []
