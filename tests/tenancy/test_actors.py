from __future__ import annotations

from uuid import UUID

import pytest

from agentstate.core.errors import Forbidden
from agentstate.tenants.actors import ROLE_VERBS, VERBS, Actor, allows, require, system, tenant_of
from agentstate.tenants.models import Membership

# The whole matrix, by hand: role -> what it may do.
MATRIX = {
    "viewer": "runs.read audit.read",
    "operator": "runs.read audit.read runs.start runs.control",
    "approver": "runs.read audit.read approvals.decide",
    "admin": "runs.read audit.read runs.start runs.control runs.work approvals.decide memory.write memory.erase "
    "admin.members admin.keys admin.stop",
}
TENANT = UUID(int=1)


def person(role: str) -> Actor:
    return Actor(kind="user", id="u", name="Alice", tenant_id=TENANT, role=role, scopes=frozenset(VERBS))


@pytest.mark.parametrize("role", ["viewer", "operator", "approver", "admin", "", "owner"])
@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_role_may_do_what_the_matrix_says_and_nothing_else(role: str, verb: str) -> None:
    expected = verb in MATRIX.get(role, "").split()
    assert allows(person(role), verb) is expected  # and scopes on a person mean nothing
    if expected:
        require(person(role), verb)
    else:
        with pytest.raises(Forbidden, match="may not"):
            require(person(role), verb)


def test_every_role_of_the_model_is_in_the_matrix() -> None:
    assert set(ROLE_VERBS) == set(MATRIX) == set(Membership.Role.values)


@pytest.mark.parametrize("kind", ["key", "worker"])
@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_key_may_do_what_its_scopes_say_and_nothing_else(kind: str, verb: str) -> None:
    having = Actor(kind=kind, id="k", name="K", tenant_id=TENANT, scopes=frozenset({verb}))  # type: ignore[arg-type]
    lacking = Actor(
        kind=kind,  # type: ignore[arg-type]
        id="k",
        name="K",
        tenant_id=TENANT,
        role="admin",  # a role on a key means nothing
        scopes=frozenset(VERBS) - {verb},
    )
    require(having, verb)
    with pytest.raises(Forbidden, match=verb):
        require(lacking, verb)


def test_a_misspelt_verb_is_a_programmers_error() -> None:
    with pytest.raises(AssertionError):
        allows(person("admin"), "runs.fly")


def test_our_own_code_may_act_in_the_tenant_it_names() -> None:
    sweep = system("sweep", tenant_id=TENANT)
    assert all(allows(sweep, verb) for verb in VERBS)
    assert (sweep.kind, sweep.id, tenant_of(sweep)) == ("system", "sweep", TENANT)


def test_an_actor_without_a_tenant_administers_none() -> None:
    with pytest.raises(AssertionError):
        tenant_of(Actor(kind="system", id="x", name="x", tenant_id=None))
