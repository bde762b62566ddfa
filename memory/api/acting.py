"""How endpoints of memory act: in the tenant's scope, and once for each Idempotency-Key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from pydantic import BaseModel

from agentstate.core.errors import Invalid, NotFound
from agentstate.core.ids import public_id
from agentstate.http import requests
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.selectors import directory
from memory.services import receipts

AnyType = TypeVar("AnyType")

KEYED = {"parameters": [requests.IDEMPOTENCY_HEADER]}
VERSIONED = {"parameters": [requests.IF_MATCH_HEADER]}
IF_SEEN = {"parameters": [{**requests.IF_MATCH_HEADER, "required": False}]}
BOTH = {"parameters": [requests.IF_MATCH_HEADER, requests.IDEMPOTENCY_HEADER]}


def reader(request: HttpRequest) -> Actor:
    return requests.allowed(request, "runs.read")


def writer(request: HttpRequest) -> Actor:
    return requests.allowed(request, "memory.write")


def once(request: HttpRequest, actor: Actor, wanted: BaseModel | None, act: Callable[[], Any]) -> Any:
    """Do it, in one transaction; with an Idempotency-Key that was sent before, what it answered then.

    `act` answers ids, versions and counts: no text is kept for a repeat.
    """
    key = requests.idempotency_key(request)
    with pointing(), tenant_scope(actors.tenant_of(actor)):
        if not key:
            return act()
        sent = [request.method, request.path, request.headers.get("If-Match", "")]
        body = wanted.model_dump(mode="json") if wanted is not None else None
        return receipts.once(key, [sent, body], act, by=f"{actor.kind}:{actor.id}")


def read(actor: Actor, find: Callable[[], AnyType]) -> AnyType:
    """Run a selector in the actor's tenant; what its list calls `after` is the parameter `cursor`."""
    try:
        return requests.scoped(actor, find)
    except Invalid as error:
        error.field = "cursor" if error.field == "after" else error.field
        raise


@contextmanager
def pointing() -> Iterator[None]:
    """Services name fields (`facts/about`); a problem points into the body (`/facts/about`)."""
    try:
        yield
    except Invalid as error:
        if error.field and not error.field.startswith("/"):
            error.field = "/" + error.field.replace(".", "/")
        raise


def subject_of(named: str) -> UUID:
    """By public id, the caller's own, or an alias. Raises: NotFound."""
    found = directory.named(named)
    if found is None:
        raise NotFound("There is no such subject.")
    return found


def named(prefix: str, id: UUID | None) -> str | None:
    return None if id is None else public_id(prefix, id)


def versioned(response: HttpResponse, version: int) -> None:
    response["ETag"] = f'"{version}"'


def optional_version(request: HttpRequest) -> int | None:
    """The number in If-Match, None when it was not sent. Raises: Invalid(field="If-Match")."""
    return requests.expected_version(request) if request.headers.get("If-Match") else None


def only(request: HttpRequest, query: BaseModel) -> None:
    """A misspelt filter would silently show everything. Raises: Invalid naming the parameter."""
    fields = type(query).model_fields
    requests.refuse_others(request, *(field.alias or name for name, field in fields.items()))
    for name in fields:
        value = getattr(query, name)
        if isinstance(value, str) and "\0" in value:
            raise Invalid("A NUL character is in no name.", field=name)
