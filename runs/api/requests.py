"""What endpoints read out of a request: who asks, which run, under which fence; and how protocol replies leave."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from agentstate.core.errors import Invalid
from agentstate.http import problems
from agentstate.sdk import wire
from agentstate.sdk.store import Claim
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.engine.store import LocalStore

AnyType = TypeVar("AnyType")

FENCE = re.compile(r"[0-9]{1,18}")
TOKEN = re.compile(r"[\x21-\x7e]{1,200}")
STORES_MAX = 64  # tenants whose claims this process remembers; another one's are loaded again
VOTE_TOKEN_CHARS = 64
TRACE_ID = re.compile(r"[0-9a-f]{32}")

FENCE_HEADER = {
    "in": "header",
    "name": "Run-Fence",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
    "description": "The fencing token of your claim. A lower one than the run's is refused with 409 `fenced`.",
}
IDEMPOTENCY_HEADER = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "maxLength": 200},
    "description": "The same key is the same act: a repeat gives the first answer.",
}
TRACE_HEADER = {
    "in": "header",
    "name": "traceparent",
    "required": False,
    "schema": {"type": "string"},
    "description": "W3C trace context; a new run takes its trace id from here.",
}
IF_MATCH_HEADER = {
    "in": "header",
    "name": "If-Match",
    "required": True,
    "schema": {"type": "string"},
    "description": 'The version you saw, as in the ETag: `"1"`.',
}


def allowed(request: HttpRequest, verb: str) -> Actor:
    """The actor behind the key. Raises: Forbidden without the scope."""
    actor: Actor = request.auth  # type: ignore[attr-defined]
    actors.require(actor, verb)
    return actor


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


def scoped(actor: Actor, read: Callable[[], AnyType]) -> AnyType:
    """Run a selector inside the actor's tenant."""
    with tenant_scope(actors.tenant_of(actor)):
        return read()


def held(request: HttpRequest, run_id: str) -> Claim:
    """The claim that this caller says to hold; the store compares the fence in the statement that writes."""
    return Claim(run_id=run_id, agent="", fence=fence(request), lease_s=0.0)


def fence(request: HttpRequest) -> int:
    """Raises: Invalid(field="Run-Fence")."""
    text = request.headers.get("Run-Fence", "")
    if not FENCE.fullmatch(text):
        raise Invalid("Send the fence of your claim as the header Run-Fence, a whole number.", field="Run-Fence")
    return int(text)


def idempotency_key(request: HttpRequest) -> str:
    """Empty when none was sent. Raises: Invalid(field="Idempotency-Key")."""
    text = request.headers.get("Idempotency-Key", "")
    if text and not TOKEN.fullmatch(text):
        raise Invalid("An Idempotency-Key has 1 to 200 printable ASCII characters.", field="Idempotency-Key")
    return text


def client_token(request: HttpRequest) -> str:
    """The Idempotency-Key of a decision, shortened to what the vote keeps. Raises: Invalid."""
    sent = idempotency_key(request)
    return sent if len(sent) <= VOTE_TOKEN_CHARS else hashlib.sha256(sent.encode()).hexdigest()


def expected_version(request: HttpRequest) -> int:
    """The number in If-Match, quoted or not. Raises: Invalid(field="If-Match")."""
    text = request.headers.get("If-Match", "").removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid('Send the version you saw as If-Match, for example If-Match: "1".', field="If-Match")
    return int(text)


def refuse_others(request: HttpRequest, *names: str) -> None:
    """A misspelt filter would silently show everything. Raises: Invalid naming the parameter."""
    for name in request.GET:
        if name not in names:
            raise Invalid(f"There is no parameter {name[:80]!r} here; use {', '.join(names)}.", field=name[:80])


def trace_id(request: HttpRequest, sent: str = "") -> str:
    """The trace a new run belongs to: named in the body, else the caller's own. Raises: Invalid(field="/trace_id")."""
    if sent and not TRACE_ID.fullmatch(sent):
        raise Invalid("A trace id has 32 lower-case hex digits.", field="/trace_id")
    return sent or problems.trace_id(request)


def body(request: HttpRequest) -> dict[str, Any]:
    """The parsed body; none is an empty object. Raises: Invalid."""
    if not request.body:
        return {}
    found = wire.loads(request.body)
    if type(found) is not dict:
        raise Invalid("The body must be a JSON object.")
    return found


def answer(value: Any, *, status: int = 200) -> HttpResponse:
    """A protocol object as the wire writes it."""
    return HttpResponse(wire.reply(value), status=status, content_type="application/json")


def documented(schema: type[Any]) -> dict[str, Any]:
    """The body that an endpoint reads by the wire, for the OpenAPI document."""
    return {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}},
    }
