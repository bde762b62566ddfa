"""Changing the policies of memory: each change is a setting of the tenant, with its audit entry.

A version of a policy is the number of its audit entry, which tells what each field was and is: so a change can name the
version it saw, and any earlier version can be put in force again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db import connection

from agentstate.audit import trail
from agentstate.core import canonical, clock
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.limits import NAME_CHARS_MAX, REASON_CHARS_MAX
from agentstate.db import locks
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import TenantSetting
from agentstate.tenants.scope import current_tenant
from memory.policies import (
    ANY_AGENT,
    PREFIX,
    AgentPolicy,
    TenantPolicy,
    for_agent,
    for_tenant,
    unusable,
    validated,
)
from memory.selectors import policies as reads
from memory.selectors.policies import TENANT, Held, Whose

__all__ = [
    "ANY_AGENT",
    "TENANT",
    "AgentPolicy",
    "TenantPolicy",
    "Whose",
    "change",
    "for_agent",
    "for_tenant",
    "replace",
    "restore",
    "set_for_agent",
    "set_for_tenant",
    "stored_for",
]
VERB = "admin.members"  # not memory.write: agents have that, and would decide over what they may keep unseen
AGENT_CHARS_MAX = NAME_CHARS_MAX - len(PREFIX)
TOLD_FIELDS_MAX, TOLD_CHARS_MAX = 24, 60  # of what an entry says was there


def set_for_agent(agent: str, fields: Mapping[str, Any], *, actor: Actor, reason: str = "") -> AgentPolicy:
    """These fields and no others are set for the agent (ANY_AGENT: for all); the policy that results. As replace()."""
    replace(Whose(agent), fields, actor=actor, reason=reason)
    return for_agent(agent)


def stored_for(agent: str) -> dict[str, Any]:
    """What the tenant has set for exactly this agent (or for ANY_AGENT), and nothing that is inherited."""
    return dict(reads.held(Whose(agent)).fields)


def set_for_tenant(field: str, value: Any, *, actor: Actor, reason: str = "") -> TenantPolicy:
    """One field of the tenant's policy, the others as they were; the policy that results. As change()."""
    change(TENANT, {field: value}, actor=actor, reason=reason)
    return for_tenant()


def replace(
    whose: Whose, fields: Mapping[str, Any], *, expected_version: int | None = None, actor: Actor, reason: str = ""
) -> Held:
    """These fields and no others are set; what stands now. The same fields again change nothing.

    `expected_version`: what the writer has seen; 0 where nothing was ever set, None for whatever stands.
    Raises: Forbidden, Invalid naming the field, Conflict with what stands. Locks: the policy's name, the setting.
    """
    _check(whose, fields, actor=actor, reason=reason)
    held = _held(whose)
    return _written(whose, held, dict(fields), expected_version, actor=actor, reason=reason)


def change(
    whose: Whose,
    fields: Mapping[str, Any],
    *,
    clear: Collection[str] = (),
    expected_version: int | None = None,
    actor: Actor,
    reason: str = "",
) -> Held:
    """These fields are set and those in `clear` are not; the others stay as they are, but for what cannot be used.

    Raises and locks: as replace().
    """
    _check(whose, fields, actor=actor, reason=reason)
    for field in clear:
        if field in fields:
            raise Invalid(f"{field} cannot be set and cleared at once.", field=f"/{field}")
    held = _held(whose)
    for field in clear:
        if field not in whose.model.model_fields and field not in held.fields:
            raise Invalid(f"There is no field {field[:TOLD_CHARS_MAX]!r} to clear.", field="/clear")
    bad = {each.field for each in unusable(whose.model, whose.key, held.fields)}
    kept = {field: value for field, value in held.fields.items() if field not in {*clear, *bad}}
    return _written(whose, held, {**kept, **fields}, expected_version, actor=actor, reason=reason)


def restore(whose: Whose, *, version: int, expected_version: int | None = None, actor: Actor, reason: str = "") -> Held:
    """The fields of an earlier version as a new one. Raises: as replace(), NotFound; Invalid when they hold no more."""
    actors.require(actor, VERB)
    fields = reads.at(whose, version)
    if fields is None:
        raise NotFound(f"It is not known what version {version} of {whose} was.")
    return replace(whose, fields, expected_version=expected_version, actor=actor, reason=reason)


def _check(whose: Whose, fields: Mapping[str, Any], *, actor: Actor, reason: str) -> None:
    actors.require(actor, VERB)
    if whose.agent is not None:
        canonical.check(whose.agent, where="/agent")
        if not whose.agent.strip() or len(whose.agent) > AGENT_CHARS_MAX:
            raise Invalid(f"An agent's name has 1 to {AGENT_CHARS_MAX} characters.", field="/agent")
    canonical.check(dict(fields))
    validated(whose.model, fields, whose.key)
    canonical.check(reason, where="/reason")
    if len(reason) > REASON_CHARS_MAX:
        raise Invalid(f"The reason is longer than {REASON_CHARS_MAX:,} characters.", field="/reason")


def _held(whose: Whose) -> Held:
    """What stands, and stands still until the transaction ends. Raises: LockTimeout."""
    assert connection.in_atomic_block, "a setting changes together with its audit entry"
    locks.hold("memory.policy", current_tenant(), whose.key)
    return reads.held(whose)


def _written(
    whose: Whose, held: Held, fields: dict[str, Any], expected_version: int | None, *, actor: Actor, reason: str
) -> Held:
    policy = validated(whose.model, fields, whose.key)
    fields = policy.model_dump(mode="json", exclude_unset=True)
    if fields == held.fields and held.is_sound:
        return held
    if expected_version not in (None, held.version):
        raise _overtaken(whose, held, expected_version)
    setting = TenantSetting.objects.filter(key=whose.key).first()
    if setting is None:
        setting = TenantSetting.objects.create(key=whose.key, value=fields)
    else:
        TenantSetting.objects.filter(pk=setting.pk).update(value=fields, updated=clock.now())
    touched = [name for name in {**held.fields, **fields} if _differs(name, held.fields, fields)]
    detail = {
        "key": whose.key,
        "was": _told({name: held.fields[name] for name in touched if name in held.fields}),
        "now": {name: fields[name] for name in touched if name in fields},
    }
    trail.record(setting, action="changed" if held.version else "set", actor=actor, reason=reason, detail=detail)
    return reads.held(whose)


def _overtaken(whose: Whose, held: Held, expected_version: int | None) -> Conflict:
    newest = next(iter(reads.history(whose, rows_max=1)), None)
    base = reads.at(whose, expected_version or 0)
    return Conflict(
        f"The settings of {whose} are at version {held.version} by now, not {expected_version}. Read them again and "
        "bring your change over.",
        version=held.version,
        expected=expected_version,
        theirs={"fields": held.fields, "by": newest.by if newest is not None else ""},
        base=None if base is None else {"fields": base},
    )


def _differs(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return (name in before) != (name in after) or before.get(name) != after.get(name)


def _told(was: dict[str, Any]) -> dict[str, Any]:
    """What cannot be used may be anything, and an audit entry has its bound."""
    plain = (str, int, float, bool, type(None))
    return {
        name[:TOLD_CHARS_MAX]: value if isinstance(value, plain) and len(str(value)) <= TOLD_CHARS_MAX else "…"
        for name, value in list(was.items())[:TOLD_FIELDS_MAX]
    }
