"""Agents and tools as their authors declared them, and the difference when an agent's code changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import Max

from agentstate.core import canonical
from agentstate.core.errors import Invalid, NotFound
from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.sdk.store import AgentSpec, ToolSpec
from runs.models import AgentVersion, Tool
from runs.services import clock

SEEN_EVERY = timedelta(seconds=60)


def register(spec: AgentSpec) -> AgentVersion:
    """Record this version of an agent and its tools. Asserts a tenant scope. Idempotent by the digest.

    Every claim comes by here: what is known, the newest, and was seen a moment ago is only read, since a write would
    make all claims of one agent wait for each other.
    """
    _check(spec)
    now = clock.database_now()
    newest = _newest(spec.name)
    if newest is None or not _is_same(newest, spec) or now - newest.seen_at > SEEN_EVERY:
        newest = _see(spec, now=now)
    known = {tool.name: tool for tool in Tool.objects.filter(agent=spec.name)}
    for tool in spec.tools:
        columns = _columns(tool)
        if not _is_on_record(known.get(tool.name), columns, now=now):
            Tool.objects.update_or_create(agent=spec.name, name=tool.name, defaults={**columns, "seen_at": now})
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
        AgentVersion.objects.filter(id=version.id).update(seen_at=now, context_budget_tokens=spec.context_budget_tokens)
    return version


def _is_same(version: AgentVersion, spec: AgentSpec) -> bool:
    return version.digest == digest(spec) and version.context_budget_tokens == spec.context_budget_tokens


def _is_on_record(tool: Tool | None, columns: Mapping[str, object], *, now: datetime) -> bool:
    if tool is None or now - tool.seen_at > SEEN_EVERY:
        return False
    return all(getattr(tool, name) == value for name, value in columns.items())


def _newest(agent: str) -> AgentVersion | None:
    return AgentVersion.objects.filter(agent=agent).order_by("-seen_at", "-id").first()


def current(agent: str) -> AgentVersion:
    """The version seen last. Raises: NotFound naming what to do."""
    found = _newest(agent)
    if found is None:
        known = ", ".join(names()) or "none"
        raise NotFound(
            f"No worker has registered an agent named {agent!r} here (known: {known}). Start one with st.worker(...).",
            field="/agent",
        )
    return found


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
