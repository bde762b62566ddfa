"""API keys: issued by admins, shown once, resolved on every request, revoked for ever."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import Q

from agentstate.core import clock
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound, Unauthorised
from agentstate.core.limits import API_KEYS_MAX, KEY_LAST_USED_S, NAME_CHARS_MAX
from agentstate.tenants import recording
from agentstate.tenants.actors import VERBS, Actor, require, tenant_of
from agentstate.tenants.models import ApiKey, Tenant
from agentstate.tenants.scope import tenant_scope

_TOKEN_START = "as_"  # noqa: S105 - how every token begins, so that scanners of secrets can find one
_SECRET_BYTES = 24
_PREFIX_CHARS = 10
_RESOLVE = "SELECT id, tenant_id, name, scopes, expires_at, last_used_at, revoked_at FROM agentstate_resolve_key(%s)"


def issue(*, name: str, scopes: Iterable[str], actor: Actor, expires_at: datetime | None = None) -> tuple[str, ApiKey]:
    """A new key of the actor's tenant: its token, which is kept nowhere, and its row.

    Raises: Forbidden without admin.keys, or for a key that would give more than it has; Invalid; Conflict over the cap.
    Locks: the tenant.
    """
    require(actor, "admin.keys")
    tenant_id = tenant_of(actor)
    now = clock.now()
    wanted = _checked_scopes(scopes, actor)
    name = _checked_name(name)
    if expires_at is not None and expires_at <= now:
        raise Invalid("The key would have expired already: choose a later date.", field="expires_at")
    token = _TOKEN_START + secrets.token_hex(_SECRET_BYTES)
    with tenant_scope(tenant_id):
        _refuse_too_many(tenant_id, now)
        key = ApiKey.objects.create(
            name=name,
            prefix=token[:_PREFIX_CHARS],
            digest=_digest(token),
            scopes=wanted,
            created_by=actor.name[:NAME_CHARS_MAX],
            expires_at=expires_at,
        )
        recording.record(key, action="issued", actor=actor, detail={"scopes": wanted, "prefix": key.prefix})
    return token, key


def resolve(token: str) -> Actor:
    """Who holds this token. The same work for every token, right or wrong: one digest, one look-up.

    Raises: Unauthorised.
    """
    with connection.cursor() as cursor:
        cursor.execute(_RESOLVE, [_digest(token)])
        found = cursor.fetchone()
    if found is None:
        raise Unauthorised("This API key is not valid.")
    id, tenant_id, name, scopes, expires_at, last_used_at, revoked_at = found
    now = clock.now()
    if revoked_at is not None:
        raise Unauthorised("This API key is not valid.")  # as if unknown: a finder learns nothing
    if expires_at is not None and expires_at <= now:
        raise Unauthorised(
            f"This API key expired on {expires_at:%Y-%m-%d}. An admin issues another under Settings, API keys."
        )
    if last_used_at is None or (now - last_used_at).total_seconds() >= KEY_LAST_USED_S:
        _note_use(tenant_id, id, now)
    return Actor(kind="key", id=str(id), name=name, tenant_id=tenant_id, scopes=frozenset(scopes) & VERBS.keys())


def revoke(key_id: UUID, *, actor: Actor, reason: str = "") -> ApiKey:
    """End a key at once and for ever. Idempotent. Raises: Forbidden, NotFound. Locks: the key."""
    require(actor, "admin.keys")
    with tenant_scope(tenant_of(actor)):
        key = ApiKey.objects.select_for_update().filter(pk=key_id).first()
        if key is None:
            raise NotFound("There is no such API key, or it belongs to another tenant.")
        if key.revoked_at is None:
            key.revoked_at = clock.now()
            key.save(update_fields=["revoked_at"])
            recording.record(key, action="revoked", actor=actor, reason=reason)
    return key


def _digest(token: str) -> bytes:
    # Plain SHA-256: the token holds 192 random bits, so there is nothing to guess and nothing to stretch.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > NAME_CHARS_MAX:
        raise Invalid(f"Give the key a name of 1 to {NAME_CHARS_MAX} characters.", field="name")
    return name


def _checked_scopes(scopes: Iterable[str], actor: Actor) -> list[str]:
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in VERBS]
    if unknown or not wanted:
        raise Invalid(f"Choose scopes from: {', '.join(VERBS)}.", field="scopes", unknown=unknown)
    if actor.kind != "system" and actor.kind != "user" and not set(wanted) <= actor.scopes:
        raise Forbidden("A key cannot issue another one with scopes that it lacks itself.", field="scopes")
    return wanted


def _refuse_too_many(tenant_id: UUID, now: datetime) -> None:
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)  # else two issues at once both pass the count
    alive = ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None).count()
    if alive >= API_KEYS_MAX:
        raise Conflict(f"There are {alive} API keys in use, the most a tenant may have. Revoke one that is not needed.")


def _note_use(tenant_id: UUID, key_id: UUID, now: datetime) -> None:
    due = Q(last_used_at=None) | Q(last_used_at__lte=now - timedelta(seconds=KEY_LAST_USED_S))
    with tenant_scope(tenant_id):
        ApiKey.objects.filter(due, pk=key_id).update(last_used_at=now)
