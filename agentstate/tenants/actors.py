"""Who acts, and what that actor may do. Roles cover people, scopes cover keys; both are sets of the same verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from agentstate.core.errors import Forbidden
from agentstate.tenants import scope

Kind = Literal["user", "key", "worker", "system"]

VERBS = {
    "runs.read": "read runs, steps, approvals and memories",
    "runs.start": "start runs",
    "runs.control": "pause, resume, cancel, fork and undo runs",
    "runs.work": "work on runs: claim them and report their steps",
    "approvals.decide": "decide approvals",
    "memory.write": "change memories",
    "memory.erase": "erase, export and import subjects",
    "admin.members": "change members and settings",
    "admin.keys": "issue and revoke API keys",
    "admin.stop": "stop agents",
    "audit.read": "read the audit trail",
}
_READS = frozenset({"runs.read", "audit.read"})
ROLE_VERBS: dict[str, frozenset[str]] = {
    "viewer": _READS,
    "operator": _READS | {"runs.start", "runs.control"},
    "approver": _READS | {"approvals.decide"},
    "admin": frozenset(VERBS),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """A person, an API key, a worker or ourselves, in one tenant."""

    kind: Kind
    id: str  # of the user or key; a name for the others
    name: str  # as pages and the audit trail show it
    tenant_id: UUID | None
    role: str = ""  # of a person
    scopes: frozenset[str] = frozenset()  # of a key or worker: verbs


def allows(actor: Actor, verb: str) -> bool:
    assert verb in VERBS, f"{verb} is no verb"
    if actor.kind == "system":
        return True
    if actor.kind == "user":
        return verb in ROLE_VERBS.get(actor.role, frozenset())
    return verb in actor.scopes


def require(actor: Actor, verb: str) -> None:
    """Raises: Forbidden, saying what is missing and who can help."""
    if allows(actor, verb):
        return
    if actor.kind == "user":
        raise Forbidden(f"Your role ({actor.role or 'none'}) may not {VERBS[verb]}. An admin can change it.", verb=verb)
    raise Forbidden(
        f"The API key “{actor.name}” lacks the scope {verb}. An admin can issue one that has it.", verb=verb
    )


def tenant_of(actor: Actor) -> UUID:
    """The tenant this actor acts in. Asserts there is one: an actor of no tenant cannot administer any."""
    assert actor.tenant_id is not None, f"{actor.name} belongs to no tenant"
    return actor.tenant_id


def system(name: str, *, tenant_id: UUID | None = None) -> Actor:
    """Our own code acting by itself ("sweep", "seed"); in the tenant of the open scope unless told."""
    if tenant_id is None and scope.in_scope():
        tenant_id = scope.current_tenant()
    return Actor(kind="system", id=name, name=name, tenant_id=tenant_id)
