"""What is set of a policy, by whom and when: of the tenant, of every agent, of one agent; and where each field is from.

Versions are told by the audit of the setting. Its entries say what each field was and is, so a former version is what
stands now with the changes since taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from agentstate.audit import history as audit
from agentstate.audit import notes
from agentstate.audit.models import AuditEntry
from agentstate.tenants.models import TenantSetting
from memory.models import Prompt, Session
from memory.policies import (
    ANY_AGENT,
    PREFIX,
    TENANT_KEY,
    AgentPolicy,
    TenantPolicy,
    Unusable,
    unusable,
    usable,
)

VERSIONS_MAX = 200
AGENTS_MAX = 200
AGENTS_CHECKED_MAX = 5_000
SESSIONS_LOOKED_AT = 1_000


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose policy it is: the tenant's (None), every agent's (ANY_AGENT), or one agent's."""

    agent: str | None

    @property
    def key(self) -> str:
        return TENANT_KEY if self.agent is None else f"{PREFIX}{self.agent}"

    @property
    def model(self) -> type[BaseModel]:
        return TenantPolicy if self.agent is None else AgentPolicy

    @property
    def over(self) -> Whose | None:
        """Whose fields stand where it has none of its own; None: only the defaults do."""
        return Whose(ANY_AGENT) if self.agent not in (None, ANY_AGENT) else None

    def __str__(self) -> str:
        return {None: "the tenant", ANY_AGENT: "every agent"}.get(self.agent) or f"the agent {self.agent}"


TENANT = Whose(None)


@dataclass(frozen=True, slots=True)
class Held:
    """What is set in one place. `version` 0: nothing ever was."""

    whose: Whose
    fields: Mapping[str, Any]  # as they are stored
    usable: Mapping[str, Any]  # as they are in force
    version: int = 0
    updated: datetime | None = None
    trouble: Sequence[Unusable] = ()

    @property
    def is_sound(self) -> bool:
        return not self.trouble


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it is in force, and where it is from: "default", "every agent", "this agent", "this tenant"."""

    name: str
    value: Any
    origin: str
    inherited: Any  # what it would be, were it not set here
    inherited_from: str
    is_own: bool
    problem: str = ""  # why what is stored here is not what is in force


@dataclass(frozen=True, slots=True)
class Difference:
    field: str
    was: Any
    now: Any
    was_set: bool
    is_set: bool


@dataclass(frozen=True, slots=True)
class Version:
    """One change. `fields` are those that stood after it; None when what came later does not tell."""

    version: int
    differences: Sequence[Difference]
    by: str
    reason: str
    at: datetime
    fields: Mapping[str, Any] | None


def held(whose: Whose) -> Held:
    """One read."""
    return _held(whose, TenantSetting.objects.filter(key=whose.key).first())


def every(*, agents_max: int = AGENTS_MAX) -> list[Held]:
    """What is set in this tenant: the tenant's, every agent's, then of agents by their names. Two reads."""
    first = (TENANT, Whose(ANY_AGENT))
    found = {row.key: row for row in TenantSetting.objects.filter(key__in=[whose.key for whose in first])}
    others = TenantSetting.objects.filter(key__startswith=PREFIX).exclude(key=first[1].key).order_by("key")
    own = [_held(Whose(row.key.removeprefix(PREFIX)), row) for row in others[:agents_max]]
    return [*(_held(whose, found.get(whose.key)) for whose in first), *own]


def troubles() -> list[Unusable]:
    """Every stored value of this tenant that is not in force because it cannot be used. Two reads."""
    return [trouble for each in every(agents_max=AGENTS_CHECKED_MAX) for trouble in each.trouble]


def in_force(one: Held, over: Held | None = None) -> list[Field]:
    """The fields of a policy. `over`: what every agent's says, for one agent's."""
    defaults = {name: info.get_default() for name, info in one.whose.model.model_fields.items()}
    upper = over.usable if over is not None else {}
    own = one.usable
    problems = {each.field: each.why for each in one.trouble}
    fields = []
    for name, default in defaults.items():
        inherited, inherited_from = (upper[name], "every agent") if name in upper else (default, "default")
        value, origin = (own[name], _here(one.whose)) if name in own else (inherited, inherited_from)
        fields.append(Field(name, value, origin, inherited, inherited_from, name in one.fields, problems.get(name, "")))
    return fields


def history(whose: Whose, *, rows_max: int = VERSIONS_MAX) -> list[Version]:
    """The changes, the newest first. Three reads. Index: audit_entry_object."""
    setting = TenantSetting.objects.filter(key=whose.key).first()
    if setting is None:
        return []
    entries = list(audit.of("tenantsetting", setting.id).order_by("-object_seq")[:rows_max])
    reasons = notes.read(entries)
    fields: dict[str, Any] | None = dict(setting.value) if isinstance(setting.value, dict) else None
    found = []
    for entry in entries:
        differences = _differences(entry)
        reason = reasons.get(entry.note_id, "") if entry.note_id else ""
        found.append(Version(entry.object_seq, differences, entry.actor_name, reason, entry.at, fields))
        fields = _before(fields, entry)
    return found


def at(whose: Whose, version: int) -> Mapping[str, Any] | None:
    """The fields that stood at this version; None when that is not known. Reads: as history()."""
    if version == 0:
        return {}
    return next((each.fields for each in history(whose) if each.version == version), None)


def agents() -> list[str]:
    """Agents with settings, with prompts, and of the latest sessions, by name. Three reads."""
    keys = TenantSetting.objects.filter(key__startswith=PREFIX).values_list("key", flat=True)[:AGENTS_MAX]
    names = {key.removeprefix(PREFIX) for key in keys}
    names |= set(Prompt.objects.values_list("agent", flat=True).distinct()[:AGENTS_MAX])
    latest = Session.objects.order_by("-last_active_at", "-id")[:SESSIONS_LOOKED_AT]  # index: memory_session_recent
    names |= set(latest.values_list("agent", flat=True))
    return sorted(names - {"", ANY_AGENT})[:AGENTS_MAX]


def _held(whose: Whose, row: TenantSetting | None) -> Held:
    if row is None:
        return Held(whose, {}, {})
    fields = row.value if isinstance(row.value, dict) else {}
    trouble = tuple(unusable(whose.model, whose.key, row.value))
    return Held(whose, fields, usable(whose.model, row.value), row.audit_seq, row.updated, trouble)


def _here(whose: Whose) -> str:
    if whose.agent is None:
        return "this tenant"
    return "every agent" if whose.agent == ANY_AGENT else "this agent"


def _differences(entry: AuditEntry) -> list[Difference]:
    was, now = entry.detail.get("was") or {}, entry.detail.get("now") or {}
    return [Difference(name, was.get(name), now.get(name), name in was, name in now) for name in {**was, **now}]


def _before(fields: dict[str, Any] | None, entry: AuditEntry) -> dict[str, Any] | None:
    """What stood before this change, from what stood after it."""
    if fields is None or "now" not in entry.detail:
        return None
    was, now = entry.detail["was"], entry.detail["now"]
    return {**{name: value for name, value in fields.items() if name not in now}, **was}
