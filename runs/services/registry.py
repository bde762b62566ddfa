"""Agents and tools as their authors declared them, and the difference when an agent's code changed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import transaction
from django.db.models import Max

from agentstate.core import canonical
from agentstate.core.errors import Invalid, NotFound
from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.db import sql
from agentstate.sdk.store import AgentSpec, ToolSpec
from agentstate.tenants.scope import current_tenant, scope_of, tenant_scope
from runs.models import AgentVersion, Tool
from runs.services import clock

SEEN_EVERY = timedelta(seconds=60)
REMEMBERED_S = 30.0
AGENTS_CACHED_MAX = 1_024  # of all tenants


class _Recorded(NamedTuple):
    digest: bytes
    version: AgentVersion
    until: float  # time.monotonic


class Declared(NamedTuple):
    agent: str
    mode: str
    input_schema: Mapping[str, Any]


_DECLARED = """SELECT mode, input_schema FROM runs_agentversion WHERE agent = %s
  ORDER BY seen_at DESC, id DESC LIMIT 1"""
_lock = threading.Lock()
_recorded: OrderedDict[tuple[UUID, str], _Recorded] = OrderedDict()
_digests: OrderedDict[int, tuple[AgentSpec, bytes]] = OrderedDict()


def register(spec: AgentSpec) -> AgentVersion:
    """Record this version of an agent and its tools. Asserts a tenant scope. Idempotent by the digest.

    Every claim comes by here: what this process has recorded or read a moment ago is not even looked at, and what is
    known, the newest, and was seen a moment ago is only read. A refresh of seen_at that another claim is just writing
    is left to it. So claims of one agent never wait for each other.
    """
    tenant_id = current_tenant()
    version = known(tenant_id, spec)
    if version is not None:
        return version
    recorded = _record(spec)
    transaction.on_commit(lambda: _remember(tenant_id, spec, recorded))  # what is rolled back was never registered
    return recorded


def known(tenant_id: UUID, spec: AgentSpec) -> AgentVersion | None:
    """What this process has registered for this agent a moment ago, if the agent is still the same."""
    found = _recorded.get((tenant_id, spec.name))
    if found is None or time.monotonic() >= found.until or found.digest != _whole_digest(spec):
        return None
    return found.version


def forget() -> None:
    """Remember nothing: the next claim of every agent registers it."""
    with _lock:
        _recorded.clear()


def _remember(tenant_id: UUID, spec: AgentSpec, version: AgentVersion) -> None:
    recorded = _Recorded(_whole_digest(spec), version, time.monotonic() + REMEMBERED_S)
    with _lock:
        _recorded[tenant_id, spec.name] = recorded
        _recorded.move_to_end((tenant_id, spec.name))
        while len(_recorded) > AGENTS_CACHED_MAX:
            _recorded.popitem(last=False)


def _whole_digest(spec: AgentSpec) -> bytes:
    """Over all that register() records. A host asks with the same object for each claim: made once for it."""
    known = _digests.get(id(spec))
    if known is None or known[0] is not spec:
        tools = [[tool.name, _columns(tool)] for tool in spec.tools]
        whole = [digest(spec), tools, spec.description, spec.context_budget_tokens]
        known = spec, canonical.digest(whole)
        with _lock:
            _digests[id(spec)] = known  # holds the spec, so that no other one gets its id
            while len(_digests) > AGENTS_CACHED_MAX:
                _digests.popitem(last=False)
    return known[1]


def _record(spec: AgentSpec) -> AgentVersion:
    _check(spec)
    now = clock.database_now()
    newest = _newest(spec.name)
    if newest is None or not _is_same(newest, spec) or now - newest.seen_at > SEEN_EVERY:
        newest = _see(spec, now=now)
    on_record = {tool.name: tool for tool in Tool.objects.filter(agent=spec.name)}
    for tool in spec.tools:
        columns, before = _columns(tool), on_record.get(tool.name)
        if before is None or any(getattr(before, name) != value for name, value in columns.items()):
            Tool.objects.update_or_create(agent=spec.name, name=tool.name, defaults={**columns, "seen_at": now})
        elif now - before.seen_at > SEEN_EVERY:
            _refresh("runs_tool", before.id, now)
    return newest


def _see(spec: AgentSpec, *, now: datetime) -> AgentVersion:
    version, created = AgentVersion.objects.get_or_create(
        agent=spec.name,
        digest=digest(spec),
        defaults={
            "version": spec.version[:64],
            "mode": spec.mode,
            "fingerprint": dict(spec.fingerprint),
            "input_schema": dict(spec.input_schema),
            "description": spec.description,
            "on_code_change": spec.on_code_change,
            "context_budget_tokens": spec.context_budget_tokens,
            "created_at": now,
            "seen_at": now,
        },
    )
    if not created:
        _refresh("runs_agentversion", version.id, now)
        if version.context_budget_tokens != spec.context_budget_tokens:  # no part of the code
            AgentVersion.objects.filter(id=version.id).update(context_budget_tokens=spec.context_budget_tokens)
        version.seen_at = now
    return version


def _is_same(version: AgentVersion, spec: AgentSpec) -> bool:
    return version.digest == digest(spec) and version.context_budget_tokens == spec.context_budget_tokens


def _refresh(table: str, id: UUID, now: datetime) -> None:
    """It was seen now. Whoever holds the row has just written the same."""
    held = f"SELECT id FROM {table} WHERE id = %s FOR NO KEY UPDATE SKIP LOCKED"
    sql.execute(f"UPDATE {table} SET seen_at = %s WHERE id = ({held})", [now, id])


def _newest(agent: str) -> AgentVersion | None:
    return AgentVersion.objects.filter(agent=agent).order_by("-seen_at", "-id").first()


def declared(tenant_id: UUID, agent: str) -> Declared:
    """What the version seen last says of an admission. Raises: NotFound naming what to do."""
    _, found = sql.together(scope_of(tenant_id), (_DECLARED, [agent]))
    if not found:
        with tenant_scope(tenant_id):
            known = ", ".join(names()) or "none"
        raise NotFound(
            f"No worker has registered an agent named {agent!r} here (known: {known}). Start one with st.worker(...).",
            field="/agent",
        )
    mode, input_schema = found[0]
    return Declared(agent, mode, orjson.loads(input_schema))


def names() -> list[str]:
    return list(AgentVersion.objects.values_list("agent", flat=True).annotate(Max("seen_at")).order_by("agent"))


def digest(spec: AgentSpec) -> str:
    """Over what decides whether a run may go on: the code's parts, the mode and the input's schema."""
    parts = [dict(spec.fingerprint), spec.version, spec.mode, dict(spec.input_schema), spec.on_code_change]
    return canonical.digest(parts).hex()


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, list[str]]:
    """Parts of the code that changed, came and went, by name."""
    return {
        "changed": sorted(name for name in old if name in new and old[name] != new[name]),
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
    }


def _check(spec: AgentSpec) -> None:
    canonical.check([spec.name, spec.version, spec.description, dict(spec.input_schema)], where="/agent")
    if not spec.name or len(spec.name) > NAME_CHARS_MAX:
        raise Invalid(f"An agent's name has 1 to {NAME_CHARS_MAX} characters.", field="/name")
    for tool in spec.tools:
        canonical.check([tool.name, dict(tool.schema), tool.note, tool.lookup_url], where=f"/tools/{tool.name[:40]}")
        if tool.lookup_url and not tool.lookup_url.startswith(("https://", "http://")):
            raise Invalid(f"lookup_url of {tool.name} must be an http(s) address.", field="/tools/lookup_url")
        if tool.effect == "keyed" and not tool.window_s:
            raise Invalid(
                f"{tool.name} is keyed: say for how long downstream remembers a key (window).", field="/tools"
            )
        if tool.effect == "probed" and not tool.has_probe:
            raise Invalid(f"{tool.name} is probed but has no probe.", field="/tools")


def _columns(tool: ToolSpec) -> dict[str, object]:
    return {
        "effect": tool.effect,
        "schema": dict(tool.schema),
        "approve": tool.approve,
        "window_s": tool.window_s,
        "settles_within_s": tool.settles_within_s,
        "timeout_s": tool.timeout_s,
        "retries": tool.retries,
        "has_probe": tool.has_probe,
        "lookup_url": tool.lookup_url[:500],
        "note": tool.note,
        "risk": tool.risk,
    }
