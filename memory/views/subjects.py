"""Subjects: the list, one subject with all that is remembered of it, and what an admin may set about it.

A name and a cap are saved with what was seen of them; who comes second gets both sides, and nothing is lost. What
somebody else did beside it (another name, an export) is no conflict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from agentstate.core.errors import Conflict, Invalid
from agentstate.core.ids import public_id
from agentstate.core.limits import SUBJECT_CAP_BYTES_MAX, SUBJECT_CAP_BYTES_MIN
from agentstate.http.pages import TenantRequest, see_other, show, tenant_page, twin
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from memory.selectors import as_of, conversation, directory, review, shelf, usage
from memory.selectors.directory import SubjectRow
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemRow
from memory.services import subjects as service
from memory.services.subjects import AliasIn
from memory.views import forms
from memory.views.forms import Form

SESSIONS_SHOWN = 5
SEEN = frozenset({"expected_version", "seen_name", "seen_cap"})
NAMES = ("name", "external_id", "alias_kind", "alias")


@require_GET
@tenant_page("runs.read")
def subjects(request: TenantRequest) -> HttpResponse:
    asked = request.GET.get("q", "").strip()
    if asked:
        found = directory.named(asked)
        if found is not None:
            return HttpResponseRedirect(_address(request, public_id("subject", found)))
    page = directory.page(after=request.GET.get("after", ""))
    if request.GET.get("format") == "json":
        return twin([dataclasses.asdict(row) | {"id": row.public_id} for row in page.rows])
    context: dict[str, object] = {
        "section": "memories",
        "tab": "subjects",
        "waiting": review.pending_count(),
        "found": page,
        "asked": asked,
        "first_page": not request.GET.get("after"),
    }
    return show(request, "memory/subjects.html", context)


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def new(request: TenantRequest) -> HttpResponse:
    require(request.actor, "memory.write")
    if request.method == "POST":
        return _make(request)
    asked = request.GET.get("external_id", "")[:200]
    return _new_page(request, forms.fresh(**{"alias": asked} if "@" in asked else {"external_id": asked}))


def _make(request: TenantRequest) -> HttpResponse:
    form = forms.typed(request.POST, *NAMES)
    typed = form.values
    aliases = [AliasIn(typed["alias_kind"] or "email", typed["alias"])] if typed["alias"].strip() else []
    external_id = typed["external_id"].strip() or None
    try:
        with tenant_scope(request.tenant.id):
            known = service.find(external_id=external_id, aliases=aliases)
            subject = service.resolve(
                external_id=external_id, aliases=aliases, name=typed["name"].strip(), actor=request.actor
            )
    except (Invalid, Conflict) as refusal:
        return _new_page(request, form.refused(refusal))
    if known is not None:
        messages.info(request, "There is one already by this name; nothing was made.")
    return see_other(request, _address(request, public_id("subject", subject.id)))


def _new_page(request: TenantRequest, form: Form) -> HttpResponse:
    context: dict[str, object] = {"section": "memories", "form": form, "kinds": directory.KINDS}
    return show(request, "memory/subject_new.html", context, status=form.status)


@require_GET
@tenant_page("runs.read")
def subject_page(request: TenantRequest, subject: str) -> HttpResponse:
    row, words = directory.find(subject)
    wanted, then = shelf.read_filter(request.GET), forms.as_of(request.GET)
    after = request.GET.get("after", "")
    items: shelf.Items | as_of.KnownItems
    if then.moment:
        items = as_of.page(row.id, then.moment, wanted, words, after=after)
    else:
        items = shelf.page(row.id, wanted, words, after=after)
    if request.GET.get("format") == "json":
        shown = [_plain(item) for item in items.rows]
        return twin(dataclasses.asdict(row) | {"id": row.public_id, "items_shown": shown})
    context: dict[str, object] = {
        "section": "memories",
        "subject": row,
        "erased": words.erased,
        "wanted": wanted,
        "then": then,
        "items": items,
        "uses": usage.counts([item.id for item in items.rows]) if isinstance(items, shelf.Items) else {},
        "aliases": directory.aliases_of(row.id, words),
        "sessions": conversation.newest_of(row.id, words, rows_max=SESSIONS_SHOWN),
        "proposals": review.pending_count(row.id),
        "kinds": shelf.KINDS,
        "states": shelf.STATES,
        "first_page": not after,
    }
    return show(request, "memory/subject.html", context, partial="subject-items")


def _plain(item: shelf.ItemRow | as_of.Known) -> dict[str, object]:
    return dataclasses.asdict(item) | {"id": item.public_id}


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def settings(request: TenantRequest, subject: str) -> HttpResponse:
    """Name, other names and cap: what an admin sets about a subject."""
    require(request.actor, "memory.write")
    if request.method == "POST":
        return _set(request, subject)
    row, words = directory.find(subject)
    return _settings_page(request, row, words, _as_set(row))


@dataclass(frozen=True, slots=True)
class Sides:
    """One field on which two people differ."""

    label: str
    base: str
    theirs: str
    yours: str
    by: str


def _as_set(row: SubjectRow) -> Form:
    name, cap_bytes = _set_name(row), str(row.own_cap_bytes or "")
    seen = {"seen_name": name, "seen_cap": cap_bytes, "expected_version": str(row.version)}
    return forms.fresh(name=name, cap=cap_bytes, **seen)


def _set_name(row: SubjectRow) -> str:
    return "" if row.name in (row.external_id, row.public_id) else row.name


def _over(row: SubjectRow, form: Form, posted: Mapping[str, str]) -> Form:
    """What one of the page's forms sent, over what is set: the other forms keep theirs, and the next save sees this."""
    sent = {name: form.values[name] for name in form.values.keys() - SEEN if name in posted}
    return Form({**_as_set(row).values, **sent}, form.token)


def _settings_page(
    request: TenantRequest,
    row: SubjectRow,
    words: Words,
    form: Form,
    *,
    leaving: list[ItemRow] | None = None,
    sides: Sides | None = None,
) -> HttpResponse:
    context: dict[str, object] = {
        "section": "memories",
        "subject": row,
        "form": form,
        "rehearsed": leaving is not None,
        "leaving": leaving,
        "sides": sides,
        "aliases": directory.aliases_of(row.id, words),
        "kinds": directory.KINDS,
        "cap_min": SUBJECT_CAP_BYTES_MIN,
        "cap_max": SUBJECT_CAP_BYTES_MAX,
    }
    return show(request, "memory/subject_settings.html", context, status=form.status)


def _set(request: TenantRequest, subject: str) -> HttpResponse:
    form = forms.typed(request.POST, "act", "name", "cap", "alias_kind", "alias", "alias_id", "reason", *sorted(SEEN))
    try:
        with tenant_scope(request.tenant.id):
            row, words = directory.find(subject)
            if form.values["act"] == "rehearse_cap":
                leaving = _leaving(request, row, words, form)
                return _settings_page(request, row, words, _over(row, form, request.POST), leaving=leaving)
            said = ACTS.get(form.values["act"], _rename)(request, row, form)
    except (Invalid, Conflict) as refusal:
        with tenant_scope(request.tenant.id):
            row, words = directory.find(subject)
            again = _over(row, form, request.POST).refused(refusal)
            return _settings_page(request, row, words, again, sides=_sides(refusal, form))
    messages.success(request, said)
    return see_other(request, reverse("subject-settings", args=[request.tenant.slug, subject]))


def _sides(refusal: Invalid | Conflict, form: Form) -> Sides | None:
    """After somebody else's change of the same field. None: something else was refused."""
    theirs = refusal.data.get("theirs") or {}
    if "name" in theirs:
        return Sides("Name", form.values["seen_name"], theirs["name"], form.values["name"].strip(), theirs["by"])
    if "cap_bytes" in theirs:
        now = str(theirs["cap_bytes"] or "")
        return Sides("Cap, bytes", form.values["seen_cap"], now, form.values["cap"].strip(), theirs["by"])
    return None


def _seen(row: SubjectRow, form: Form, *, unchanged: bool) -> int:
    """The version that a save is over: that of now as well, when nobody has touched this field since it was seen."""
    return row.version if unchanged else forms.number(form.values["expected_version"]) or 0


def _rename(request: TenantRequest, row: SubjectRow, form: Form) -> str:
    seen = _seen(row, form, unchanged=form.values["seen_name"] == _set_name(row))
    name, reason = form.values["name"], form.values["reason"]
    service.rename(row.id, name=name, expected_version=seen, actor=request.actor, reason=reason)
    return "The name is set."


def _add_alias(request: TenantRequest, row: SubjectRow, form: Form) -> str:
    alias = AliasIn(form.values["alias_kind"], form.values["alias"])
    service.add_alias(row.id, alias, actor=request.actor, reason=form.values["reason"])
    return "The name is added; whoever asks for it finds this subject."


def _remove_alias(request: TenantRequest, row: SubjectRow, form: Form) -> str:
    try:
        alias_id = UUID(hex=form.values["alias_id"])
    except ValueError:
        raise Invalid("This name is not among those of the subject.", field="alias") from None
    service.remove_alias(row.id, alias_id, actor=request.actor, reason=form.values["reason"])
    return "The name is removed."


def _leaving(request: TenantRequest, row: SubjectRow, words: Words, form: Form) -> list[ItemRow]:
    """What would leave recall under this cap: the act itself, taken back. Raises: as the act."""
    with transaction.atomic():
        evicted = service.set_cap(row.id, cap_bytes=_typed_cap(form), actor=request.actor, reason="rehearsed")
        transaction.set_rollback(True)
    found = shelf.some(row.id, [each.item_id for each in evicted], words)
    return [found[each.item_id] for each in evicted if each.item_id in found]


def _typed_cap(form: Form) -> int | None:
    typed = form.values["cap"].strip()
    cap_bytes = forms.number(typed) if typed else None
    if typed and cap_bytes is None:
        raise Invalid("Write the cap in bytes, such as 6000, or leave it empty.", field="cap_bytes")
    return cap_bytes


def _cap(request: TenantRequest, row: SubjectRow, form: Form) -> str:
    cap_bytes, reason = _typed_cap(form), form.values["reason"]
    seen = _seen(row, form, unchanged=form.values["seen_cap"] == str(row.own_cap_bytes or ""))
    evicted = service.set_cap(row.id, cap_bytes=cap_bytes, expected_version=seen, actor=request.actor, reason=reason)
    return "The cap is set." + (f" {len(evicted)} items left recall because of it." if evicted else "")


ACTS = {"rename": _rename, "alias": _add_alias, "unalias": _remove_alias, "cap": _cap}


def _address(request: TenantRequest, subject: str) -> str:
    return reverse("subject", args=[request.tenant.slug, subject])
