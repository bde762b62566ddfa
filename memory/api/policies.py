"""Policies of memory: read, set as a whole, changed field by field; of the tenant, of every agent, of one."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import BaseModel

from agentstate.http import requests
from agentstate.http.schemas import Problem
from agentstate.http.waiting import offloaded
from agentstate.tenants.actors import Actor
from memory.api import acting
from memory.schemas.policies import (
    AgentPolicyIn,
    AgentPolicyPatch,
    DifferenceOut,
    PolicyListOut,
    PolicyOut,
    PolicyQuery,
    PolicyVersionOut,
    PolicyVersionsOut,
    TenantPolicyIn,
    TenantPolicyPatch,
    UnusableOut,
    VersionsQuery,
)
from memory.selectors import policies as reads
from memory.selectors.policies import TENANT, Held, Whose
from memory.services import policies

router = Router()
REFUSALS = {(403, 409, 422): Problem}


@router.get("/memory/policies", response={200: PolicyListOut, 422: Problem}, operation_id="list_policies")
@offloaded
def list_policies(request: HttpRequest, response: HttpResponse, wanted: Query[PolicyQuery]) -> PolicyListOut:
    """All that is set; of one `agent` what is in force for it, with its version as ETag."""
    actor = acting.reader(request)
    acting.only(request, wanted)
    if wanted.agent:
        found = _read(actor, Whose(wanted.agent))
        acting.versioned(response, found.version)
        return PolicyListOut(policies=[found])

    def read() -> list[PolicyOut]:
        every = reads.every()
        over = next(each for each in every if each.whose == Whose(policies.ANY_AGENT))
        return [_policy(each, over if each.whose.over is not None else None) for each in every]

    return PolicyListOut(policies=acting.read(actor, read))


@router.put(
    "/memory/policies",
    response={200: PolicyOut, **REFUSALS},
    operation_id="set_agent_policy",
    openapi_extra=acting.BOTH,
)
@offloaded
def set_agent_policy(request: HttpRequest, response: HttpResponse, wanted: AgentPolicyIn) -> PolicyOut:
    """A new version, in force at the agent's next context or message. 409 says what stands."""
    return _written(request, response, Whose(wanted.agent), wanted, _replace(wanted))


@router.patch(
    "/memory/policies",
    response={200: PolicyOut, **REFUSALS},
    operation_id="change_agent_policy",
    openapi_extra=acting.BOTH,
)
@offloaded
def change_agent_policy(request: HttpRequest, response: HttpResponse, wanted: AgentPolicyPatch) -> PolicyOut:
    """Single fields set and cleared."""
    return _written(request, response, Whose(wanted.agent), wanted, _change(wanted))


@router.get("/memory/policies/tenant", response={200: PolicyOut}, operation_id="get_tenant_policy")
@offloaded
def get_tenant_policy(request: HttpRequest, response: HttpResponse) -> PolicyOut:
    """What holds for all memory of the tenant, with its version as ETag."""
    found = _read(acting.reader(request), TENANT)
    acting.versioned(response, found.version)
    return found


@router.put(
    "/memory/policies/tenant",
    response={200: PolicyOut, **REFUSALS},
    operation_id="set_tenant_policy",
    openapi_extra=acting.BOTH,
)
@offloaded
def set_tenant_policy(request: HttpRequest, response: HttpResponse, wanted: TenantPolicyIn) -> PolicyOut:
    """A new version. A smaller cap counts at the next write about each subject, another full text by upkeep."""
    return _written(request, response, TENANT, wanted, _replace(wanted))


@router.patch(
    "/memory/policies/tenant",
    response={200: PolicyOut, **REFUSALS},
    operation_id="change_tenant_policy",
    openapi_extra=acting.BOTH,
)
@offloaded
def change_tenant_policy(request: HttpRequest, response: HttpResponse, wanted: TenantPolicyPatch) -> PolicyOut:
    """Single fields set and cleared."""
    return _written(request, response, TENANT, wanted, _change(wanted))


@router.get(
    "/memory/policies/versions",
    response={200: PolicyVersionsOut, 422: Problem},
    operation_id="list_policy_versions",
)
@offloaded
def list_policy_versions(request: HttpRequest, wanted: Query[VersionsQuery]) -> PolicyVersionsOut:
    """Who changed what, when and why; PUT the `fields` of a version to have it again."""
    actor = acting.reader(request)
    acting.only(request, wanted)
    found = acting.read(actor, lambda: reads.history(Whose(wanted.agent or None)))
    own = {"differences"}
    return PolicyVersionsOut(
        versions=[
            PolicyVersionOut(
                differences=[DifferenceOut.model_validate(difference) for difference in each.differences],
                **{name: getattr(each, name) for name in PolicyVersionOut.model_fields.keys() - own},
            )
            for each in found
        ]
    )


Act = Callable[[Actor, Whose, int], Held]


def _replace(wanted: AgentPolicyIn | TenantPolicyIn) -> Act:
    fields = wanted.fields.model_dump(mode="json", exclude_unset=True)
    return lambda actor, whose, version: policies.replace(
        whose, fields, expected_version=version, actor=actor, reason=wanted.reason
    )


def _change(wanted: AgentPolicyPatch | TenantPolicyPatch) -> Act:
    fields = wanted.fields.model_dump(mode="json", exclude_unset=True)
    return lambda actor, whose, version: policies.change(
        whose, fields, clear=wanted.clear, expected_version=version, actor=actor, reason=wanted.reason
    )


def _written(request: HttpRequest, response: HttpResponse, whose: Whose, wanted: BaseModel, act: Act) -> PolicyOut:
    actor = requests.allowed(request, policies.VERB)
    version = requests.expected_version(request)
    number = acting.once(request, actor, wanted, lambda: act(actor, whose, version).version)
    acting.versioned(response, number)
    return _read(actor, whose)


def _read(actor: Actor, whose: Whose) -> PolicyOut:
    def read() -> PolicyOut:
        return _policy(reads.held(whose), reads.held(whose.over) if whose.over is not None else None)

    return acting.read(actor, read)


def _policy(held: Held, over: Held | None) -> PolicyOut:
    in_force = reads.in_force(held, over)
    return PolicyOut(
        agent=held.whose.agent,
        version=held.version,
        fields=dict(held.fields),
        in_force={each.name: each.value for each in in_force},
        origins={each.name: each.origin for each in in_force},
        unusable=[UnusableOut.model_validate(each) for each in held.trouble],
        updated_at=held.updated,
    )
