"""Sessions: the list, one session word for word with what each answer knew, and taking messages back."""

from __future__ import annotations

import dataclasses
from uuid import UUID

from django.contrib import messages as notes
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import NAME_CHARS_MAX, UNDO_MESSAGES_MAX
from agentstate.http.pages import TenantRequest, see_other, show, tenant_page, twin
from agentstate.tenants.actors import require
from agentstate.tenants.scope import tenant_scope
from memory.selectors import conversation, directory, given, review
from memory.selectors import sessions as selector
from memory.selectors.sessions import SessionRow
from memory.services import messages
from memory.services import sessions as service
from memory.views import forms
from memory.views.forms import Form

STATES = ("open", "closed", "expired")


@require_GET
@tenant_page("runs.read")
def sessions(request: TenantRequest) -> HttpResponse:
    asked = request.GET.get("q", "").strip()[:NAME_CHARS_MAX]
    if asked:
        found = asked if asked.startswith("session_") else conversation.by_key(asked)
        if found:
            return HttpResponseRedirect(_address(request, found))
    state, agent = request.GET.get("state", ""), _name(request.GET.get("agent", ""))
    of = request.GET.get("subject", "")
    subject = directory.find(of)[0] if of else None
    after = request.GET.get("after", "")
    page = selector.of_subject(subject.id, after=after) if subject else _latest(state, agent, after)
    if request.GET.get("format") == "json":
        return twin([_plain(row) for row in page.rows])
    context: dict[str, object] = {
        "section": "memories",
        "tab": "sessions",
        "waiting": 0 if subject else review.pending_count(),
        "found": page,
        "names": directory.names(row.subject_id for row in page.rows),
        "asked": asked,
        "state": state,
        "states": STATES,
        "agent": agent,
        "subject": subject,
        "first_page": not request.GET.get("after"),
    }
    return show(request, "memory/sessions.html", context)


def _latest(state: str, agent: str, after: str) -> selector.Sessions:
    return selector.latest(status=state if state in STATES else "", agent=agent, after=after)


@require_GET
@tenant_page("runs.read")
def session_page(request: TenantRequest, session: str) -> HttpResponse:
    shown = conversation.find(session)
    row = shown.session
    since, until = forms.moment(request.GET.get("since", "")), forms.moment(request.GET.get("until", ""))
    first = forms.number(request.GET.get("from", "")) or 0
    window = conversation.window(shown, first=first, since=since, until=until)
    if request.GET.get("format") == "json":
        return twin(_plain(row) | {"messages_shown": [dataclasses.asdict(each) for each in window.rows]})
    context: dict[str, object] = {
        "section": "memories",
        "shown": shown,
        "session": row,
        "window": window,
        "summaries": conversation.summaries(shown),
        "earlier": max(window.first - conversation.WINDOW, 1),
        "since": since,
        "until": until,
        "undo_max": min(row.message_count, UNDO_MESSAGES_MAX),
    }
    return show(request, "memory/session.html", context, partial="session-messages")


@require_GET
@tenant_page("runs.read")
def call_page(request: TenantRequest, session: str, call: str) -> HttpResponse:
    """What one call was given, word for word."""
    shown = conversation.find(session)
    try:
        found = given.call(shown.session.id, UUID(hex=call))
    except ValueError:
        raise NotFound("There is no such call.") from None
    if request.GET.get("format") == "json":
        return twin(dataclasses.asdict(found))
    context: dict[str, object] = {"section": "memories", "shown": shown, "session": shown.session, "call": found}
    return show(request, "memory/call.html", context)


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def undo(request: TenantRequest, session: str) -> HttpResponse:
    """The plan first: which messages go, then the same form confirms it."""
    require(request.actor, "memory.write")
    if request.method == "POST":
        return _undo(request, session)
    row = selector.find(session)
    form = forms.fresh(last_n=str(forms.number(request.GET.get("n", "")) or 1), expected_version=str(row.version))
    return _plan(request, session, form)


def _plan(request: TenantRequest, session: str, form: Form) -> HttpResponse:
    shown = conversation.find(session)
    last_n = min(forms.number(form.values["last_n"]) or 1, UNDO_MESSAGES_MAX)
    context: dict[str, object] = {
        "section": "memories",
        "shown": shown,
        "session": shown.session,
        "form": form,
        "last_n": last_n,
        "going": conversation.last_standing(shown, last_n=last_n),
    }
    return show(request, "memory/undo.html", context, status=form.status)


def _undo(request: TenantRequest, session: str) -> HttpResponse:
    form = forms.typed(request.POST, "last_n", "expected_version", "reason")
    last_n = forms.number(form.values["last_n"]) or 0
    try:
        with tenant_scope(request.tenant.id):
            row = selector.find(session)
            forms.once(form, lambda: _taken_back(request, row, form, last_n), actor=request.actor, what=row.public_id)
    except (Invalid, Conflict) as refusal:
        return _refused(request, session, form.refused(refusal))
    notes.success(request, f"{last_n} {'message is' if last_n == 1 else 'messages are'} taken back.")
    return see_other(request, _address(request, session))


def _taken_back(request: TenantRequest, row: SessionRow, form: Form, last_n: int) -> int:
    undone = messages.undo(
        row.id,
        last_n=last_n,
        expected_version=forms.number(form.values["expected_version"]) or 0,
        reason=form.values["reason"],
        actor=request.actor,
    )
    return undone.from_seq


def _refused(request: TenantRequest, session: str, form: Form) -> HttpResponse:
    """The new plan, against the session as it is now; the reason that was typed is kept."""
    with tenant_scope(request.tenant.id):
        row = selector.find(session)
        again = dataclasses.replace(form, values={**form.values, "expected_version": str(row.version)})
        return _plan(request, session, again)


@require_POST
@tenant_page("memory.write")
def close(request: TenantRequest, session: str) -> HttpResponse:
    with tenant_scope(request.tenant.id):
        row = selector.find(session)
        closed = service.close(row.id, actor=request.actor, reason=request.POST.get("reason", ""))
    notes.success(request, f"The session is {closed.status}.")
    return see_other(request, _address(request, session))


def _plain(row: SessionRow) -> dict[str, object]:
    return dataclasses.asdict(row) | {"id": row.public_id, "subject_id": public_id("subject", row.subject_id)}


def _address(request: TenantRequest, session: str) -> str:
    return reverse("session", args=[request.tenant.slug, session])


def _name(text: str) -> str:
    return text.strip()[:NAME_CHARS_MAX].replace("\0", "")
