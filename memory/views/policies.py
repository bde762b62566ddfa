"""Settings of memory: what holds for the tenant, for every agent and for one; set, cleared, rehearsed, restored.

A save sends the version that was seen; another one answers 409 with both sides of each field. A rehearsal is the save
itself, taken back, with what it would reach and the context that an agent would get under it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agentstate.core.errors import Conflict, DomainError, Invalid
from agentstate.http import schema_form
from agentstate.http.pages import TenantRequest, see_other, show, tenant_page, twin
from agentstate.http.schema_form import Reading
from agentstate.tenants.actors import allows, require
from agentstate.tenants.scope import tenant_scope
from memory import policies
from memory.context import building
from memory.context.building import ContextRequest
from memory.policies import ANY_AGENT
from memory.selectors import policies as reads
from memory.selectors import review, sessions
from memory.selectors.policies import TENANT, Held, Version, Whose
from memory.selectors.sessions import SessionRow
from memory.services import drafts, reach
from memory.services import policies as service
from memory.services.reach import Reach
from memory.views import effects, forms
from memory.views.effects import Asking, Contexts
from memory.views.forms import Form

TYPED = ("reason", "expected_version", "session", "question")
SESSIONS_OFFERED = 20
VERSIONS_SHOWN = 20
NEVER = "never"  # how a person types null
GROUPS = {
    "Contexts": ("strategy", "budget_tokens", "retrieval", "recall_k", "mask_over_tokens"),
    "Sessions": ("persistence", "batch_n", "batch_s", "idle_s", "lifetime_s", "reopen"),
    "Summaries": ("summarise_at_messages", "summarise_with", "summary_tokens"),
    "What is learned": ("extraction", "accept"),
    "Search": ("fulltext", "language"),
    "Items": ("cap_bytes", "expiry_days"),
    "Retention": ("session_keep_days", "ledger_keep_days"),
}
LABELS = {
    "recall_k": "Units recalled",
    "batch_n": "Batch, messages",
    "batch_s": "Batch, seconds",
    "fulltext": "Full text",
    "accept": "Accept proposals",
    "mask_over_tokens": "Mask tool messages over, tokens",
    "summarise_at_messages": "Summarise at, messages",
    "session_keep_days": "Keep ended sessions, days",
    "ledger_keep_days": "Keep the ledger, days",
}
TITLES = {None: "Memory of this tenant", ANY_AGENT: "Memory of every agent"}
LEDE = "What is set here holds for this agent alone. What is left empty is as every agent has it."
LEDES = {
    None: "What holds for all memory of this tenant. What is left empty is the default.",
    ANY_AGENT: "What holds for every agent that has nothing of its own set. What is left empty is the default.",
}
UNITS = {"s": "seconds", "bytes": "bytes", "days": "days", "tokens": "tokens"}


@dataclass(frozen=True, slots=True)
class Row:
    """One field of the form, as it is in force and as it was typed."""

    field: reads.Field
    control: schema_form.Field

    @property
    def inherited(self) -> str:
        return f"{shown(self.field.inherited)}, {_from(self.field.inherited_from)}"

    @property
    def otherwise(self) -> str:
        """What holds when it is left empty, without from where: short enough for a narrow control."""
        return shown(self.field.inherited)

    @property
    def in_force(self) -> str:
        return shown(self.field.value)


@dataclass(frozen=True, slots=True)
class Change:
    """One field before and after, as they are in force."""

    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Sides:
    """One field on which two people differ."""

    label: str
    base: str
    theirs: str
    yours: str


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a save would do."""

    changes: Sequence[Change]
    reach: Reach | None = None
    contexts: Contexts | None = None
    contexts_problem: str = ""


@dataclass(frozen=True, slots=True)
class Editing:
    """One showing of the editor: what stands, what was typed, and what it would do."""

    held: Held
    over: Held | None
    form: Form
    reading: Reading
    rehearsed: Rehearsed | None = None
    sides: Sequence[Sides] = ()
    by: str = ""  # who was faster

    @property
    def next_version(self) -> int:
        return self.held.version + 1

    @property
    def groups(self) -> dict[str, list[Row]]:
        """The form's rows under their headings; a field that none names stands last."""
        in_force = {each.name: each for each in reads.in_force(self.held, self.over)}
        rows = {each.path[0]: Row(in_force[each.path[0]], each) for each in self.reading.fields}
        found = {title: [rows.pop(name) for name in names if name in rows] for title, names in GROUPS.items()}
        return {title: group for title, group in {**found, "Other": list(rows.values())}.items() if group}

    @property
    def strangers(self) -> list[policies.Unusable]:
        """Stored values that cannot be used and that no row shows."""
        known = self.held.whose.model.model_fields
        return [each for each in self.held.trouble if each.field not in known]


@require_GET
@tenant_page("runs.read")
def settings(request: TenantRequest) -> HttpResponse:
    asked = request.GET.get("agent", "").strip()
    if asked and asked != ANY_AGENT:
        return HttpResponseRedirect(address_of(request, Whose(asked)))
    found = reads.every()
    if request.GET.get("format") == "json":
        return twin([{"of": each.whose.key, "version": each.version, "fields": each.fields} for each in found])
    tenant, every, *others = found
    context: dict[str, object] = {
        "section": "memories",
        "tab": "settings",
        "waiting": review.pending_count(),
        "tenant_fields": _told(tenant),
        "tenant_held": tenant,
        "places": [(each, _told(each), address_of(request, each.whose)) for each in (every, *others)],
        "agents_max": reads.AGENTS_MAX if len(others) >= reads.AGENTS_MAX else 0,
        "unset": sorted(set(reads.agents()) - {each.whose.agent for each in others}),
        "troubles": [trouble for each in found for trouble in each.trouble],
        "may_change": allows(request.actor, service.VERB),
    }
    return show(request, "memory/policies.html", context)


def _told(held: Held) -> list[tuple[str, str, str]]:
    """What is set in one place as (name, label, value); of the tenant all that is in force."""
    found = reads.in_force(held)
    own = found if held.whose == TENANT else [each for each in found if each.name in held.usable]
    return [(each.origin, label(each.name), shown(each.value)) for each in own]


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def policy(request: TenantRequest, of: str) -> HttpResponse:
    if request.method == "POST":
        return _save(request, _whose(request, of))
    whose = _whose(request, of)
    held, over = _stored(whose)
    if request.GET.get("format") == "json":
        found = reads.in_force(held, over)
        return twin({"of": whose.key, "version": held.version, "fields": [dataclasses.asdict(each) for each in found]})
    values = {"reason": "", "expected_version": str(held.version), "session": "", "question": ""}
    return _page(request, Editing(held, over, forms.fresh(**values), _reading(held)))


def _whose(request: TenantRequest, of: str) -> Whose:
    """From the address. Raises: Invalid."""
    if of == "tenant":
        return TENANT
    agent = request.GET.get("agent", "") or ANY_AGENT
    if "\0" in agent or len(agent) > service.AGENT_CHARS_MAX:
        raise Invalid(f"An agent's name has 1 to {service.AGENT_CHARS_MAX} characters.", field="/agent")
    return Whose(agent)


def address_of(request: TenantRequest, whose: Whose, act: str = "") -> str:
    name = ("tenant-policy" if whose == TENANT else "agent-policy") + (f"-{act}" if act else "")
    query = f"?{urlencode({'agent': whose.agent})}" if whose.agent is not None else ""
    return reverse(name, args=[request.tenant.slug]) + query


def _stored(whose: Whose) -> tuple[Held, Held | None]:
    return reads.held(whose), reads.held(whose.over) if whose.over is not None else None


def _page(request: TenantRequest, editing: Editing) -> HttpResponse:
    whose = editing.held.whose
    versions = reads.history(whose, rows_max=VERSIONS_SHOWN)
    context: dict[str, object] = {
        "section": "memories",
        "whose": whose,
        "title": TITLES.get(whose.agent) or whose.agent,
        "lede": LEDES.get(whose.agent, LEDE),
        "editing": editing,
        "form": editing.form,
        "versions": [(each, _lines(each)) for each in versions],
        "here": address_of(request, whose),
        "preview_at": address_of(request, whose, "preview"),
        "restore_at": address_of(request, whose, "restore"),
        "offered": _offered(whose),
        "may_change": allows(request.actor, service.VERB),
    }
    return show(request, "memory/policy.html", context, status=editing.form.status)


def _offered(whose: Whose) -> list[SessionRow]:
    """Sessions to try a change on."""
    if whose == TENANT:
        return []
    agent = "" if whose.agent == ANY_AGENT else str(whose.agent)
    return sessions.latest(agent=agent, rows_max=SESSIONS_OFFERED).rows


def _lines(version: Version) -> list[Change]:
    none = "not set"
    return [
        Change(label(each.field), shown(each.was) if each.was_set else none, shown(each.now) if each.is_set else none)
        for each in version.differences
    ]


def _read(request: TenantRequest, whose: Whose) -> Editing:
    """What stands with what was typed over it."""
    held, over = _stored(whose)
    names = [f"arg.{name}" for name in whose.model.model_fields]
    return Editing(held, over, forms.typed(request.POST, *TYPED, *names), _reading(held, request.POST))


def _reading(held: Held, posted: Mapping[str, str] | None = None) -> Reading:
    """The fields that are set here, as a form: an empty one is not set, and `never` is null."""
    model = held.whose.model
    schema, endless = _schema(model)
    if posted is None:
        own = {name: value for name, value in held.fields.items() if name in model.model_fields}
        plain = {name: value for name, value in own.items() if value is not None}
        never = {name for name, value in own.items() if value is None}
        found = Reading(own, schema_form.fields(schema, plain))
    else:
        never = {name for name in endless if posted.get(f"arg.{name}", "").strip().lower() == NEVER}
        sent = {name: text.strip() for name, text in posted.items() if name.removeprefix("arg.") not in never}
        read = schema_form.read(schema, {}, sent)
        found = Reading({**read.value, **dict.fromkeys(never)}, read.fields)
    return Reading(found.value, [_labelled(each, endless, never) for each in found.fields])


def _labelled(control: schema_form.Field, endless: set[str], never: set[str]) -> schema_form.Field:
    name = control.path[0]
    hint = re.sub(r"\d{4,}", lambda found: f"{int(found[0]):,}", control.hint)
    hint = f"{hint} Or “{NEVER}”." if name in endless else hint
    return replace(control, label=label(name), hint=hint, value=NEVER if name in never else control.value)


def _schema(model: type[Any]) -> tuple[dict[str, Any], set[str]]:
    """The model's schema as a form fills it: nothing is required, nothing has a default; which fields may be null."""
    properties, endless = {}, set()
    for name, part in model.model_json_schema()["properties"].items():
        kinds = [each for each in part.get("anyOf", []) if each.get("type") != "null"]
        if kinds:
            endless.add(name)
        plain = {key: value for key, value in part.items() if key not in ("anyOf", "default", "title")}
        properties[name] = {**plain, **(kinds[0] if kinds else {})}
    return {"type": "object", "properties": properties, "additionalProperties": False}, endless


def _save(request: TenantRequest, whose: Whose) -> HttpResponse:
    require(request.actor, service.VERB)
    try:
        with tenant_scope(request.tenant.id):
            editing = _read(request, whose)
            reason = drafts.checked_reason(editing.form.values["reason"], request.actor)
            fields = _fields(editing)
            version = forms.once(
                editing.form,
                lambda: _set(request, editing, fields, reason=reason).version,
                actor=request.actor,
                what=whose.key,
            )
    except (Invalid, Conflict) as refusal:
        return _again(request, whose, refusal)
    messages.success(request, f"Version {version} stands. What begins from now on goes by it.")
    return see_other(request, address_of(request, whose))


def _fields(editing: Editing) -> dict[str, Any]:
    """Raises: Invalid naming the first marked field."""
    for each in editing.reading.errors:
        raise Invalid(f"{each.label}: {each.error}", field=each.path[0])
    return dict(editing.reading.value)


def _set(request: TenantRequest, editing: Editing, fields: Mapping[str, Any], *, reason: str) -> Held:
    seen = forms.number(editing.form.values["expected_version"]) or 0
    return service.replace(editing.held.whose, fields, expected_version=seen, actor=request.actor, reason=reason)


def _again(request: TenantRequest, whose: Whose, refusal: DomainError) -> HttpResponse:
    """The same page with what was typed. After somebody else's change the next save is meant to replace theirs."""
    with tenant_scope(request.tenant.id):
        editing = _read(request, whose)
        form = editing.form.refused(refusal)
        if isinstance(refusal, Conflict) and "theirs" in refusal.data:
            typed = {name: value for name, value in form.values.items() if not name.startswith("arg.")}
            fresh = forms.fresh(**{**typed, "expected_version": str(refusal.data["version"])})
            form = replace(form, values={**form.values, **fresh.values}, token=fresh.token)
            sides = _sides(refusal, editing)
            editing = replace(editing, sides=sides, by=refusal.data["theirs"]["by"])
        return _page(request, replace(editing, form=form))


def _sides(refusal: Conflict, editing: Editing) -> list[Sides]:
    base = (refusal.data.get("base") or {}).get("fields")
    theirs, yours = refusal.data["theirs"]["fields"], editing.reading.value
    unset = object()
    sides = []
    for name in editing.held.whose.model.model_fields:
        three = [(base or {}).get(name, unset), theirs.get(name, unset), yours.get(name, unset)]
        if any(one != three[0] for one in three[1:]):
            told = ["not set" if one is unset else shown(one) for one in three]
            sides.append(Sides(label(name), told[0] if base is not None else "", told[1], told[2]))
    return sides


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def preview(request: TenantRequest, of: str) -> HttpResponse:
    """What the typed settings would do; nothing of it is done."""
    whose = _whose(request, of)
    if request.method == "GET":
        return HttpResponseRedirect(address_of(request, whose))
    require(request.actor, service.VERB)
    try:
        asked = effects.asking(request.tenant.id, {"asked": request.POST.get("question", "")}, text="")
        with tenant_scope(request.tenant.id):
            editing = _read(request, whose)
            return _page(request, replace(editing, rehearsed=_rehearsed(request, editing, asked)))
    except (Invalid, Conflict) as refusal:
        return _again(request, whose, refusal)


def _rehearsed(request: TenantRequest, editing: Editing, asked: Asking) -> Rehearsed:
    """The save itself, taken back, with the context of the chosen session before it and while it is in force."""
    fields, whose = _fields(editing), editing.held.whose
    wanted = _chosen(editing, asked)
    before_fields = {each.name: each for each in reads.in_force(editing.held, editing.over)}
    before_tenant = policies.for_tenant()
    problem, contexts = "", None
    before = after = None
    try:
        before = building.build(wanted[1], record=False) if wanted is not None else None
    except Invalid as refusal:
        problem = f"Before: {refusal.message}"
    with transaction.atomic():
        held = _set(request, editing, fields, reason="rehearsed")
        after_fields = reads.in_force(held, editing.over)
        reached = reach.of_tenant(before_tenant, policies.for_tenant()) if whose == TENANT else None
        try:
            after = building.build(wanted[1], record=False) if wanted is not None else None
        except Invalid as refusal:
            problem = f"{problem} Afterwards: {refusal.message}".strip()
        transaction.set_rollback(True)
    if wanted is not None and before is not None and after is not None:
        contexts = effects.compared(wanted[0].title or wanted[0].key, wanted[1].agent, before, after)
    changes = [
        Change(label(each.name), _in_force(before_fields[each.name]), _in_force(each))
        for each in after_fields
        if _in_force(each) != _in_force(before_fields[each.name])
    ]
    return Rehearsed(changes, reached, contexts, problem)


def _chosen(editing: Editing, asked: Asking) -> tuple[SessionRow, ContextRequest] | None:
    """The session to try the change on, and what is asked in it. Raises: NotFound."""
    chosen = editing.form.values["session"].strip()
    if not chosen or editing.held.whose == TENANT:
        return None
    session = sessions.find(chosen)
    agent = editing.held.whose.agent
    of = "" if agent in (None, ANY_AGENT) else str(agent)
    if asked.question is None:
        return session, ContextRequest(session_id=session.id, agent=of)
    return session, ContextRequest(session_id=session.id, agent=of, question=asked.question)


@require_POST
@tenant_page("runs.read")
def restore(request: TenantRequest, of: str) -> HttpResponse:
    """An earlier version as a new one."""
    require(request.actor, service.VERB)
    whose = _whose(request, of)
    form = forms.typed(request.POST, "reason", "expected_version", "version")
    wanted = forms.number(form.values["version"]) or 0
    try:
        with tenant_scope(request.tenant.id):
            reason = drafts.checked_reason(form.values["reason"], request.actor)
            version = forms.once(
                form, lambda: _restored(request, whose, form, reason), actor=request.actor, what=f"restore {whose.key}"
            )
    except (Invalid, Conflict) as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, f"Version {wanted} is restored as version {version}.")
    return see_other(request, address_of(request, whose))


def _restored(request: TenantRequest, whose: Whose, form: Form, reason: str) -> int:
    seen, wanted = (forms.number(form.values[name]) or 0 for name in ("expected_version", "version"))
    return service.restore(whose, version=wanted, expected_version=seen, actor=request.actor, reason=reason).version


def label(name: str) -> str:
    """`idle_s`: "Idle, seconds"."""
    if name in LABELS:
        return LABELS[name]
    words, _, unit = name.rpartition("_")
    return (f"{words}, {UNITS[unit]}" if words and unit in UNITS else name).replace("_", " ").capitalize()


def shown(value: Any) -> str:
    """A field's value as people read it."""
    if value is None:
        return NEVER
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,g}" if isinstance(value, float) else orjson.dumps(value).decode()


def _in_force(each: reads.Field) -> str:
    return f"{shown(each.value)}, {_from(each.origin)}"


def _from(origin: str) -> str:
    return {"default": "the default", "this agent": "set here", "this tenant": "set here"}.get(origin, origin)
