"""Changing the policies of memory: each change is a setting of the tenant, with its audit entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connection
from django.db.models import JSONField, Value

from agentstate.audit import trail
from agentstate.core import canonical, clock
from agentstate.core.errors import Invalid
from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import TenantSetting
from memory.policies import (
    ANY_AGENT,
    PREFIX,
    TENANT_KEYS,
    AgentPolicy,
    TenantPolicy,
    for_agent,
    for_tenant,
    stored_for,
    validated,
)

__all__ = [
    "ANY_AGENT",
    "AgentPolicy",
    "TenantPolicy",
    "for_agent",
    "for_tenant",
    "set_for_agent",
    "set_for_tenant",
    "stored_for",
]


def set_for_agent(agent: str, fields: Mapping[str, Any], *, actor: Actor, reason: str = "") -> AgentPolicy:
    """These fields and no others are set for the agent (ANY_AGENT: for all); the policy that results.

    Raises: Forbidden, Invalid naming the field. Locks: the setting. Idempotent.
    """
    actors.require(actor, "admin.members")
    canonical.check(agent, where="/agent")
    if not agent or len(agent) > NAME_CHARS_MAX - len(PREFIX):
        raise Invalid(f"An agent's name has 1 to {NAME_CHARS_MAX - len(PREFIX)} characters.", field="/agent")
    validated(AgentPolicy, dict(fields), f"{PREFIX}{agent}")
    _store(f"{PREFIX}{agent}", dict(fields), actor=actor, reason=reason)
    return for_agent(agent)


def set_for_tenant(field: str, value: Any, *, actor: Actor, reason: str = "") -> TenantPolicy:
    """One field of the tenant's policy. Raises: Forbidden, Invalid. Locks: the setting. Idempotent."""
    actors.require(actor, "admin.members")
    if field not in TENANT_KEYS:
        raise Invalid(f"Memory has no setting {field}; it has {', '.join(TENANT_KEYS)}.", field="/field")
    validated(TenantPolicy, {field: value}, TENANT_KEYS[field])
    _store(TENANT_KEYS[field], value, actor=actor, reason=reason)
    return for_tenant()


def _store(key: str, value: Any, *, actor: Actor, reason: str) -> None:
    assert connection.in_atomic_block, "a setting changes together with its audit entry"
    stored = Value(None, JSONField()) if value is None else value  # Django takes a bare None for SQL's NULL
    setting, made = TenantSetting.objects.get_or_create(key=key, defaults={"value": stored})
    if not made:
        if setting.value == value:
            return
        trail.record(setting, action="changed", actor=actor, reason=reason, detail={"key": key})
        TenantSetting.objects.filter(pk=setting.pk).update(value=stored, updated=clock.now())
        return
    trail.record(setting, action="set", actor=actor, reason=reason, detail={"key": key})
