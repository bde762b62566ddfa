"""Hosting agents in a Celery worker: which agents, who this process is, and driving one run to its next stop."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from uuid import UUID

import structlog
from django.conf import settings

from agentstate.core.errors import DomainError
from agentstate.core.ids import public_id
from agentstate.sdk.agents import Agent
from agentstate.sdk.executor import Executor
from agentstate.sdk.store import AgentSpec, WorkerInfo
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from runs.engine import summariser
from runs.engine.presence import Presence
from runs.engine.store import LocalStore
from runs.models import Worker
from runs.services import registry, workers

log = structlog.get_logger(__name__)
# Set in the main process when the worker is asked to stop; its children inherit it by their fork.
stopping = get_context("fork").Event()


@dataclass(frozen=True, slots=True)
class Self:
    """This worker process."""

    info: WorkerInfo
    worker: Worker
    presence: Presence


@cache
def agents() -> dict[str, Agent]:
    """The agents of the modules in AGENTSTATE_AGENTS, by name. Raises: ImportError naming the module."""
    found: dict[str, Agent] = {}
    for module in settings.HOSTED_AGENTS:
        for value in vars(import_module(module)).values():
            if isinstance(value, Agent):
                found[value.name] = value
    return found


@cache
def specs() -> dict[str, AgentSpec]:
    return {name: agent.spec() for name, agent in agents().items()}


def register_everywhere() -> None:
    """Tell every tenant which agents are hosted here, so that they can be started before they ever ran."""
    for tenant_id in Tenant.objects.values_list("id", flat=True):
        with tenant_scope(tenant_id):
            for spec in specs().values():
                registry.register(spec)


def drive(tenant_id: UUID, run_id: UUID) -> str:
    """Claim the run if it is free, and drive it until it ends, waits, or is lost. Returns what became of it.

    Idempotent: a run that is not free, or not hosted here, is left alone.
    """
    myself = this_process(os.getpid())
    store = LocalStore(_actor(tenant_id), presence=myself.presence, worker=myself.worker, shared=True)
    asked_at = time.monotonic()
    claim = store.claim(myself.info, agents=specs(), run_id=public_id("run", run_id))
    if claim is None:
        return "not free"
    with structlog.contextvars.bound_contextvars(run_id=claim.run_id, fence=claim.fence, tenant=str(tenant_id)):
        log.info("run.claimed", agent=claim.agent, attempt=claim.attempt, reason=claim.reason)
        agent, by_model = agents()[claim.agent], summariser.by_setting()
        executor = Executor(store, claim, agent, asked_at=asked_at, summarise=by_model)
        store.on_turn = lambda: executor.shut_down() if stopping.is_set() else None
        try:
            driven = executor.run()
        except DomainError as error:
            log.warning("run.given_up", code=error.code, detail=error.message)
            return error.code
        log.info("run.driven", status=driven.status, why_lost=driven.why_lost)
        return driven.status


@cache
def this_process(pid: int) -> Self:
    """Once per process, after the fork: its row, its lock, its connection for heartbeats."""
    info = workers.this_process()
    worker = workers.register(info, kind="hosted", agents=sorted(specs()))
    return Self(info, worker, Presence(worker.no))


def _actor(tenant_id: UUID) -> Actor:
    return actors.Actor(
        kind="worker", id="hosted", name="worker", tenant_id=tenant_id, scopes=frozenset({"runs.work", "runs.start"})
    )
