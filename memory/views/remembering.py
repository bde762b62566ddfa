"""A new memory by hand: the same checks, cap and merging as an agent's, rehearsed before it counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from agentstate.core.errors import Conflict, Invalid
from agentstate.core.ids import public_id
from agentstate.http import schema_form
from agentstate.http.pages import TenantRequest, see_other, show, tenant_page
from agentstate.http.schema_form import ABSENT, Reading
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from memory import facts
from memory.selectors import directory, shelf
from memory.selectors.directory import SubjectRow
from memory.selectors.opening import Words
from memory.services import items, rehearsing
from memory.services.drafts import NewItem
from memory.services.rehearsing import Rehearsal
from memory.views import editor, effects, forms
from memory.views.effects import Effect
from memory.views.forms import Form

TYPED = ("text", "kind", "namespace", "attribute", "fact_kind", "importance", "pinned", "expires", "reason", "act")
SAID = {
    "created": "Remembered. Calls that begin from now on get it.",
    "merged": "Something very like it was known: that memory was revised with these words.",
    "duplicate": "This is known already; nothing new was written.",
}


@dataclass(frozen=True, slots=True)
class Drafting:
    """One showing of the form."""

    subject: SubjectRow
    words: Words
    form: Form
    reading: Reading | None  # of the facts
    effect: Effect | None = None


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def remember(request: TenantRequest, subject: str) -> HttpResponse:
    require(request.actor, "memory.write")
    if request.method == "POST":
        return _post(request, subject)
    row, words = directory.find(subject)
    kind = request.GET.get("fact_kind", "")
    form = forms.fresh(importance="0.5", kind="semantic", fact_kind=kind if kind in facts.kinds() else "")
    return _page(request, Drafting(row, words, form, _facts(form)))


def _page(request: TenantRequest, drafting: Drafting) -> HttpResponse:
    context: dict[str, object] = {
        "section": "memories",
        "subject": drafting.subject,
        "drafting": drafting,
        "form": drafting.form,
        "kinds": shelf.KINDS,
        "fact_kinds": list(facts.kinds()),
    }
    return show(request, "memory/item_new.html", context, status=drafting.form.status)


def _facts(form: Form) -> Reading | None:
    kind = form.values.get("fact_kind", "")
    return Reading(ABSENT, schema_form.fields(facts.schema(kind))) if kind in facts.kinds() else None


def _read(request: TenantRequest, subject: str) -> Drafting:
    row, words = directory.find(subject)
    form = forms.typed(request.POST, *TYPED)
    kind = form.values["fact_kind"]
    reading = schema_form.read(facts.schema(kind), ABSENT, request.POST) if kind in facts.kinds() else None
    return Drafting(row, words, form, reading)


def _post(request: TenantRequest, subject: str) -> HttpResponse:
    with tenant_scope(request.tenant.id):
        drafting = _read(request, subject)
        if drafting.form.values["act"] == "facts":  # another shape of facts was chosen: its fields, nothing else
            return _page(request, replace(drafting, reading=_facts(drafting.form)))
    try:
        with tenant_scope(request.tenant.id):
            new = _new(drafting)
            if drafting.form.values["act"] == "preview":
                rehearsal: Rehearsal[None] = rehearsing.new_item(drafting.subject.id, new, actor=request.actor)
                effect = effects.told(drafting.subject.id, drafting.words, rehearsal)
                return _page(request, replace(drafting, effect=effect))
            if not drafting.form.values["reason"].strip():
                raise Invalid("Say why, in a few words: the next person will ask.", field="reason")
            kept = forms.once(drafting.form, lambda: _kept(request, drafting, new), actor=request.actor, what=subject)
    except (Invalid, Conflict) as refusal:
        with tenant_scope(request.tenant.id):
            return _page(request, replace(_read(request, subject), form=drafting.form.refused(refusal)))
    messages.success(request, SAID.get(kept["change"], "Nothing was written."))
    if kept["evicted"]:
        messages.warning(request, f"{kept['evicted']} of the oldest left recall to stay under the cap.")
    return see_other(request, reverse("item", args=[request.tenant.slug, subject, kept["item"]]))


def _kept(request: TenantRequest, drafting: Drafting, new: NewItem) -> dict[str, object]:
    reason = drafting.form.values["reason"]
    kept = items.remember(drafting.subject.id, new, actor=request.actor, reason=reason)
    assert kept.item is not None, "a person's words are not refused"
    return {"item": public_id("item", kept.item.id), "change": kept.change, "evicted": len(kept.evicted)}


def _new(drafting: Drafting) -> NewItem:
    """Raises: Invalid naming the field."""
    typed, reading = drafting.form.values, drafting.reading
    if reading is not None and reading.errors:
        raise Invalid("Correct the marked facts.", field="facts")
    pinned = bool(typed["pinned"])
    return NewItem(
        text=typed["text"],
        kind=typed["kind"],
        namespace=typed["namespace"],
        attribute=typed["attribute"],
        fact_kind=typed["fact_kind"],
        facts=reading.value if reading is not None else None,
        importance=editor.unit(typed["importance"]),
        pinned=pinned,
        expires_at=None if pinned else editor.end_of(typed["expires"]),
    )
