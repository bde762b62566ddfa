"""What endpoints of every tier read out of a request: who asks, which version they saw, under which key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse

from agentstate.core.errors import Invalid
from agentstate.sdk import wire
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope

AnyType = TypeVar("AnyType")

TOKEN = re.compile(r"[\x21-\x7e]{1,200}")
VOTE_TOKEN_CHARS = 64

IDEMPOTENCY_HEADER = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "maxLength": 200},
    "description": "The same key is the same act: a repeat gives the first answer.",
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


def scoped(actor: Actor, read: Callable[[], AnyType]) -> AnyType:
    """Run a selector inside the actor's tenant."""
    with tenant_scope(actors.tenant_of(actor)):
        return read()


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


def body(request: HttpRequest) -> dict[str, Any]:
    """The parsed body; none is an empty object. Raises: Invalid."""
    return parsed(request.body)


def parsed(sent: bytes) -> dict[str, Any]:
    """What `body` gives, of the bytes themselves. Raises: Invalid."""
    if not sent:
        return {}
    found = wire.loads(sent)
    if type(found) is not dict:
        raise Invalid("The body must be a JSON object.")
    return found


def answer(value: Any, *, status: int = 200) -> HttpResponse:
    """A protocol object as the wire writes it."""
    return HttpResponse(wire.reply(value), status=status, content_type="application/json")


def documented(*schemas: type[Any]) -> dict[str, Any]:
    """The body that an endpoint reads by the wire, for the OpenAPI document; of several any one."""
    named = [{"$ref": f"#/components/schemas/{schema.__name__}"} for schema in schemas]
    schema = named[0] if len(named) == 1 else {"anyOf": named}
    return {"required": True, "content": {"application/json": {"schema": schema}}}
