"""The editor of one memory: what is typed is shown before it counts, and survives whoever was faster.

A preview is the edit itself, taken back. Saving sends the version that was seen; another one answers 409 with both
sides of the difference. A form that is sent twice counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from agentstate.core import clock
from agentstate.core.errors import Conflict, DomainError, Invalid
from agentstate.core.limits import FACTS_BYTES_MAX, ITEM_BYTES_MAX
from agentstate.http import schema_form
from agentstate.http.pages import TenantRequest, see_other, show, tenant_page
from agentstate.http.schema_form import Reading
from agentstate.tenants.actors import allows, require
from agentstate.tenants.scope import tenant_scope
from memory import facts
from memory.context.building import Context
from memory.selectors import directory, history, questions
from memory.selectors.directory import SubjectRow
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemRow
from memory.services import editing as service
from memory.services import locking, rehearsing
from memory.services.drafts import UNSET, ItemChanges
from memory.views import effects, forms
from memory.views.effects import Asking, Effect
from memory.views.forms import Form
from memory.views.items import head, reading_page

PREVIEWED = ("question", "asked", "agent", "session")
TYPED = ("text", "importance", "pinned", "expires", "reason", "expected_version", *PREVIEWED)


@dataclass(frozen=True, slots=True)
class Editing:
    """One showing of the editor: the memory as it is, what was typed, and what it would do."""

    subject: SubjectRow
    item: ItemRow
    words: Words
    form: Form
    reading: Reading | None  # of the facts
    effect: Effect | None = None
    theirs: Mapping[str, Any] = field(default_factory=dict)  # what somebody else saved meanwhile
    base: Mapping[str, Any] = field(default_factory=dict)  # what both began from

    @property
    def is_locked(self) -> bool:
        return self.item.locked_until is not None and self.item.locked_until > clock.now()

    @property
    def facts(self) -> Any:
        return self.reading.value if self.reading is not None else self.item.facts

    @property
    def bytes(self) -> int:
        """What the typed memory would take of the cap."""
        return len(self.form.values["text"].strip().encode()) + facts.size_of(self.facts)

    @property
    def bytes_max(self) -> int:
        return ITEM_BYTES_MAX + (FACTS_BYTES_MAX if self.item.fact_kind else 0)

    @property
    def subject_bytes(self) -> int:
        return self.subject.item_bytes - (self.item.bytes if self.item.in_recall else 0) + self.bytes

    @property
    def percent(self) -> float:
        return 100 * self.bytes / self.bytes_max

    @property
    def subject_percent(self) -> float:
        return 100 * self.subject_bytes / self.subject.cap_bytes

    @property
    def next_version(self) -> int:
        return self.item.version + 1


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def item(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    if request.method == "POST":
        return _save(request, subject, item)
    if request.GET.get("format") == "json" or not _may_edit(request) or request.GET.get("version"):
        return reading_page(request, subject, item)
    row, words = directory.find(subject)
    found = history.item(row.id, item, words)
    if not found.in_recall:
        return reading_page(request, subject, item)
    return _page(request, Editing(row, found, words, _as_it_is(found, request), _facts_of(found)))


def _may_edit(request: TenantRequest) -> bool:
    return allows(request.actor, "memory.write")


def _as_it_is(found: ItemRow, request: TenantRequest) -> Form:
    return forms.fresh(
        text=found.text,
        importance=f"{found.importance:g}",
        pinned="1" if found.pinned else "",
        expires=_day(found.expires_at),
        reason="",
        question="",
        asked="",
        agent="",
        session=request.GET.get("session", ""),
        expected_version=str(found.version),
    )


def _day(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}" if moment else ""


def _facts_of(found: ItemRow) -> Reading | None:
    if not found.fact_kind or found.facts_problem:
        return None
    return Reading(found.facts, schema_form.fields(facts.schema(found.fact_kind), found.facts))


def _page(request: TenantRequest, editing: Editing) -> HttpResponse:
    asked = questions.asked(editing.subject.id, editing.words)
    context: dict[str, object] = {
        **head(editing.subject, editing.item, editing.words),
        "editing": editing,
        "form": editing.form,
        "asked": asked,
        "agents": sorted({each.agent for each in asked if each.agent}),
        "offered": effects.offered(editing.subject.id, editing.words, chosen=editing.form.values["session"]),
        "mine": editing.is_locked and editing.item.locked_by == request.actor.id,
    }
    return show(request, "memory/item_edit.html", context, status=editing.form.status)


def _read(request: TenantRequest, subject: str, item: str) -> Editing:
    """The memory as it is now with what was typed over it."""
    row, words = directory.find(subject)
    found = history.item(row.id, item, words)
    form = forms.typed(request.POST, *TYPED)
    reading = None
    if found.fact_kind and not found.facts_problem:
        reading = schema_form.read(facts.schema(found.fact_kind), found.facts, request.POST)
    return Editing(row, found, words, form, reading)


def _changes(editing: Editing) -> ItemChanges:
    """What was typed that is not as it was. Raises: Invalid naming the field."""
    typed, found = editing.form.values, editing.item
    if editing.reading is not None and editing.reading.errors:
        raise Invalid("Correct the marked facts.", field="facts")
    changes = ItemChanges()
    if typed["text"].strip() != found.text:
        changes = replace(changes, text=typed["text"])
    if editing.reading is not None and editing.reading.value != found.facts:
        changes = replace(changes, facts=editing.reading.value)
    if typed["importance"].strip() != f"{found.importance:g}":
        changes = replace(changes, importance=unit(typed["importance"]))
    if not typed["pinned"] and typed["expires"] != _day(found.expires_at):
        changes = replace(changes, expires_at=end_of(typed["expires"]))
    return changes


def unit(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise Invalid("Write the importance as a number from 0 to 1, such as 0.7.", field="importance") from None


def end_of(day: str) -> datetime | None:
    """The end of a day in UTC; None for no day: then the tenant's number of days counts."""
    if not day:
        return None
    try:
        return datetime.combine(datetime.fromisoformat(day).date(), time(23, 59, 59), tzinfo=UTC)
    except ValueError:
        raise Invalid("Write the day of expiry as 2027-01-31.", field="expires") from None


def _save(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    require(request.actor, "memory.write")
    editing: Editing | None = None
    try:
        with tenant_scope(request.tenant.id):
            editing = _read(request, subject, item)
            version = forms.once(
                editing.form, lambda: _apply(request, editing), actor=request.actor, what=editing.item.public_id
            )
    except (Invalid, Conflict) as refusal:
        assert editing is not None
        return _again(request, subject, item, refusal)
    messages.success(request, f"Saved as version {version}. Calls that begin from now on get it.")
    return see_other(request, _address(request, subject, item))


def _apply(request: TenantRequest, editing: Editing | None) -> int:
    """The edit and the pin in one transaction; the version that stands afterwards."""
    assert editing is not None
    typed, found, actor = editing.form.values, editing.item, request.actor
    version = forms.number(typed["expected_version"]) or 0
    changes, reason = _changes(editing), typed["reason"]
    if found.pinned and not typed["pinned"]:
        version = service.unpin(found.id, expected_version=version, reason=reason, actor=actor).version
    edited = service.edit(found.id, expected_version=version, changes=changes, reason=reason, actor=actor)
    if typed["pinned"] and not found.pinned:
        edited = service.pin(found.id, expected_version=edited.version, reason=reason, actor=actor)
    return edited.version


def _again(request: TenantRequest, subject: str, item: str, refusal: DomainError) -> HttpResponse:
    """The same page with what was typed. After somebody else's change the next save is meant to replace theirs."""
    with tenant_scope(request.tenant.id):
        editing = _read(request, subject, item)
        form = editing.form.refused(refusal)
        if isinstance(refusal, Conflict) and "theirs" in refusal.data:
            fresh = forms.fresh(**{**form.values, "expected_version": str(refusal.data["version"])})
            form = replace(form, values=fresh.values, token=fresh.token)
            editing = replace(editing, theirs=refusal.data["theirs"] or {}, base=refusal.data["base"] or {})
        return _page(request, replace(editing, form=form))


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def preview(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    """What the typed memory would do; nothing of it is done."""
    if request.method == "GET":
        return HttpResponseRedirect(_address(request, subject, item))
    require(request.actor, "memory.write")
    if request.htmx and request.htmx.target == "item-bytes":
        return _meter(request, subject, item)
    try:
        asked = effects.asking(request.tenant.id, request.POST, text=request.POST.get("text", ""))
        with tenant_scope(request.tenant.id):
            editing = _read(request, subject, item)
            effect = _rehearsed(request, editing, asked)
            return _page(request, replace(editing, effect=effect))
    except (Invalid, Conflict) as refusal:
        return _again(request, subject, item, refusal)


def _meter(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    """How many bytes the typed text takes, while it is typed."""
    with tenant_scope(request.tenant.id):
        editing = _read(request, subject, item)
        context: dict[str, object] = {"editing": editing, "subject": editing.subject, "item": editing.item}
        return show(request, "memory/item_edit.html", context, partial="item-bytes")


def _rehearsed(request: TenantRequest, editing: Editing, asked: Asking) -> Effect:
    """The save itself, taken back, with a look at what an agent would get before it and while it is in force."""
    typed, found, actor = editing.form.values, editing.item, request.actor
    version = forms.number(typed["expected_version"]) or 0
    changes = _changes(editing)
    look = effects.looking(editing.subject.id, editing.words, asked)
    before = look.build() if look is not None else None

    def within() -> Context | None:
        if typed["pinned"] and not found.pinned:
            service.pin(found.id, reason="rehearsed", actor=actor)
        if look is None:
            return None
        return look.build() if changes.text is UNSET else look.build_with(found.id)

    with transaction.atomic():
        if found.pinned and not typed["pinned"]:
            version = service.unpin(found.id, expected_version=version, reason="rehearsed", actor=actor).version
        rehearsal = rehearsing.edit(found.id, expected_version=version, changes=changes, actor=actor, look=within)
        transaction.set_rollback(True)
    return effects.told(editing.subject.id, editing.words, rehearsal, look, before)


@require_POST
@tenant_page("memory.write")
def lock(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    """Tell others that you are editing it, or that you are done."""
    try:
        with tenant_scope(request.tenant.id):
            row, words = directory.find(subject)
            found = history.item(row.id, item, words)
            act = locking.unlock if request.POST.get("act") == "unlock" else locking.lock
            act(found.id, actor=request.actor)
    except (Conflict, Invalid) as refusal:
        messages.error(request, refusal.message)
    return see_other(request, _address(request, subject, item))


@require_POST
@tenant_page("memory.write")
def forget(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    return _move(request, subject, item, "forget")


@require_POST
@tenant_page("memory.write")
def restore(request: TenantRequest, subject: str, item: str) -> HttpResponse:
    return _move(request, subject, item, "restore")


def _move(request: TenantRequest, subject: str, item: str, act: str) -> HttpResponse:
    form = forms.typed(request.POST, "reason", "expected_version", "version")
    try:
        with tenant_scope(request.tenant.id):
            row, words = directory.find(subject)
            found = history.item(row.id, item, words)
            moved = forms.once(
                form, lambda: _moved(request, found, form, act), actor=request.actor, what=f"{act} {found.public_id}"
            )
    except (Conflict, Invalid) as refusal:
        messages.error(request, refusal.message)
        return see_other(request, _address(request, subject, item))
    messages.success(request, moved)
    return see_other(request, _address(request, subject, item))


def _moved(request: TenantRequest, found: ItemRow, form: Form, act: str) -> str:
    seen, reason = forms.number(form.values["expected_version"]) or 0, form.values["reason"]
    if act == "forget":
        service.forget(found.id, expected_version=seen, reason=reason, actor=request.actor)
        return "Forgotten: no call gets it any more. Its history stays; any version can be restored."
    version = forms.number(form.values["version"]) or 0
    done = service.restore(found.id, version=version, expected_version=seen, reason=reason, actor=request.actor)
    return f"Version {version} is restored as version {done.version}."


def _address(request: TenantRequest, subject: str, item: str) -> str:
    return reverse("item", args=[request.tenant.slug, subject, item])
