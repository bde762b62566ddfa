"""What endpoints read out of a request: which run, under which fence, in which trace. The rest is every tier's."""

from __future__ import annotations

import re
from functools import lru_cache
from uuid import UUID

from django.http import HttpRequest

from agentstate.core.errors import Invalid
from agentstate.http import problems
from agentstate.http.requests import (
    IDEMPOTENCY_HEADER,
    IF_MATCH_HEADER,
    allowed,
    answer,
    body,
    client_token,
    documented,
    expected_version,
    idempotency_key,
    parsed,
    refuse_others,
    scoped,
)
from agentstate.sdk.store import Claim
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from runs.engine.store import LocalStore

__all__ = [
    "FENCE_HEADER",
    "IDEMPOTENCY_HEADER",
    "IF_MATCH_HEADER",
    "TRACE_HEADER",
    "allowed",
    "answer",
    "body",
    "client_token",
    "documented",
    "expected_version",
    "fence",
    "fence_in",
    "held",
    "idempotency_key",
    "parsed",
    "refuse_others",
    "scoped",
    "store",
    "trace_id",
    "worker_store",
]

FENCE = re.compile(r"[0-9]{1,18}")
STORES_MAX = 64  # tenants whose claims this process remembers; another one's are loaded again
TRACE_ID = re.compile(r"[0-9a-f]{32}")

FENCE_HEADER = {
    "in": "header",
    "name": "Run-Fence",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
    "description": "The fencing token of your claim. A lower one than the run's is refused with 409 `fenced`.",
}
TRACE_HEADER = {
    "in": "header",
    "name": "traceparent",
    "required": False,
    "schema": {"type": "string"},
    "description": "W3C trace context; a new run takes its trace id from here.",
}


def store(actor: Actor) -> LocalStore:
    """For acts: the run's record says who did them."""
    return LocalStore(actor, kind="http")


def worker_store(actor: Actor) -> LocalStore:
    """For the calls of workers: one store per tenant, which remembers the claims it serves.

    What a claim may do comes from its fence; the key was asked for its scope before.
    """
    return _worker_store(actors.tenant_of(actor))


@lru_cache(STORES_MAX)
def _worker_store(tenant_id: UUID) -> LocalStore:
    scopes = frozenset({"runs.work"})
    return LocalStore(Actor("worker", "http", "worker over HTTP", tenant_id, scopes=scopes), kind="http")


def held(request: HttpRequest, run_id: str) -> Claim:
    """The claim that this caller says to hold; the store compares the fence in the statement that writes."""
    return Claim(run_id=run_id, agent="", fence=fence(request), lease_s=0.0)


def fence(request: HttpRequest) -> int:
    """Raises: Invalid(field="Run-Fence")."""
    return fence_in(request.headers.get("Run-Fence", ""))


def fence_in(text: str) -> int:
    """The number in a Run-Fence header. Raises: Invalid(field="Run-Fence")."""
    if not FENCE.fullmatch(text):
        raise Invalid("Send the fence of your claim as the header Run-Fence, a whole number.", field="Run-Fence")
    return int(text)


def trace_id(request: HttpRequest, sent: str = "") -> str:
    """The trace a new run belongs to: named in the body, else the caller's own. Raises: Invalid(field="/trace_id")."""
    if sent and not TRACE_ID.fullmatch(sent):
        raise Invalid("A trace id has 32 lower-case hex digits.", field="/trace_id")
    return sent or problems.trace_id(request)
