"""Agents as their workers registered them, and the emergency stop."""

from __future__ import annotations

from django.http import HttpRequest
from ninja import Router

from agentstate.http import waiting
from agentstate.http.schemas import Problem
from agentstate.sdk import wire
from agentstate.sdk.store import AgentSpec
from runs.api import requests
from runs.schemas.agents import AgentOut, AgentPageOut, RegisteredOut, StopOut
from runs.schemas.protocol import AgentSpecIn
from runs.schemas.runs import StopIn
from runs.selectors import agents as registry
from runs.services import control

router = Router()


@router.post(
    "/agents",
    response={200: RegisteredOut, (413, 422): Problem},
    operation_id="register_agent",
    openapi_extra={"requestBody": requests.documented(AgentSpecIn)},
)
@waiting.offloaded
def register(request: HttpRequest) -> RegisteredOut:
    """Tell the service about an agent and its tools. Idempotent by name and fingerprint."""
    actor = requests.allowed(request, "runs.work")
    agent = wire.decode(AgentSpec, requests.body(request))
    requests.store(actor).register(agent)
    return RegisteredOut(name=agent.name, version=agent.version)


@router.get("/agents", response=AgentPageOut, operation_id="list_agents")
@waiting.offloaded
def list_agents(request: HttpRequest) -> AgentPageOut:
    """Every agent that a worker registered here, with the newest version."""
    actor = requests.allowed(request, "runs.read")
    found = requests.scoped(actor, registry.agents)
    return AgentPageOut(agents=[AgentOut.model_validate(row) for row in found])


@router.post("/stop", response={200: StopOut, 409: Problem}, operation_id="emergency_stop")
@waiting.offloaded
def stop(request: HttpRequest, wanted: StopIn) -> StopOut:
    """No claim and no new step of this agent, or of any; calls under way finish and are recorded."""
    actor = requests.allowed(request, "admin.stop")
    control.emergency_stop(agent=wanted.agent, actor=actor, reason=wanted.reason)
    return StopOut(agent=wanted.agent, stopped=True)


@router.delete("/stop", response={200: StopOut, 404: Problem}, operation_id="lift_stop")
@waiting.offloaded
def lift(request: HttpRequest, agent: str = "", reason: str = "") -> StopOut:
    """Let this agent, or all, go on."""
    actor = requests.allowed(request, "admin.stop")
    control.lift(agent=agent, actor=actor, reason=reason)
    return StopOut(agent=agent, stopped=False)
