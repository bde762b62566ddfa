"""Documents with versions: the progress of tasks, and the prompts of agents. Read, compared, edited, restored alike.

An edit sends the version that was seen; another one answers 409 with both sides, and what was typed is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agentstate.core.errors import Conflict, DomainError, Invalid, NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.core.limits import PROGRESS_BYTES_MAX, PROMPT_BYTES_MAX
from agentstate.http.pages import TenantRequest, see_other, show, tenant_page, twin
from agentstate.tenants.actors import Actor, require
from agentstate.tenants.scope import tenant_scope
from memory import progress_sections
from memory.selectors import directory, documents, review
from memory.selectors import progress as progress_reads
from memory.selectors import prompts as prompt_reads
from memory.selectors.progress import OpenedProgress
from memory.selectors.prompts import OpenedPrompt
from memory.services import progress as progress_writes
from memory.services import prompts as prompt_writes
from memory.views import forms
from memory.views.forms import Form

TYPED = ("body", "reason", "expected_version")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of either kind of document, as the page shows it."""

    id: UUID
    public_id: str
    title: str
    agent: str
    version: int
    body: str
    reason: str
    tokens: int
    is_newest: bool
    by: str
    run_id: UUID | None
    step_seq: int | None
    subject_id: UUID | None
    created_at: datetime

    @property
    def run(self) -> str:
        return public_id("run", self.run_id) if self.run_id else ""


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between progress documents and prompts."""

    name: str
    title: str
    bytes_max: int
    is_markdown: bool
    versions: Callable[[UUID], list[Version]]
    version: Callable[[UUID, int], Version]
    write: Callable[[Version, Form, Actor], int]
    tidied: Callable[[str], str]  # the text as it would be kept


def _of_progress(row: OpenedProgress) -> Version:
    return Version(
        id=row.progress_id,
        public_id=row.public_id,
        title=row.key,
        agent=row.agent,
        version=row.version,
        body=row.body,
        reason=row.reason,
        tokens=row.tokens,
        is_newest=row.is_newest,
        by=row.actor_name,
        run_id=row.run_id,
        step_seq=row.step_seq,
        subject_id=row.subject_id,
        created_at=row.created_at,
    )


def _of_prompt(row: OpenedPrompt) -> Version:
    return Version(
        id=row.prompt_id,
        public_id=row.public_id,
        title=row.agent if row.name == "main" else f"{row.agent}, {row.name}",
        agent=row.agent,
        version=row.version,
        body=row.text,
        reason=row.reason,
        tokens=row.tokens,
        is_newest=row.is_in_force,
        by=row.actor_name,
        run_id=None,
        step_seq=None,
        subject_id=None,
        created_at=row.created_at,
    )


def _write_progress(newest: Version, form: Form, actor: Actor) -> int:
    typed = form.values
    written = progress_writes.write(
        newest.title, typed["body"], expected_version=_seen(form), reason=typed["reason"], actor=actor
    )
    return written.progress.version


def _write_prompt(newest: Version, form: Form, actor: Actor) -> int:
    known = prompt_reads.version(newest.id, newest.version)
    return prompt_writes.write(
        known.agent,
        form.values["body"],
        name=known.name,
        expected_version=_seen(form),
        reason=form.values["reason"],
        actor=actor,
    ).version


def _seen(form: Form) -> int:
    return forms.number(form.values["expected_version"]) or 0


PROGRESS = Kind(
    name="progress",
    title="Progress",
    bytes_max=PROGRESS_BYTES_MAX,
    is_markdown=True,
    versions=lambda id: [_of_progress(row) for row in progress_reads.versions(id)],
    version=lambda id, number: _of_progress(progress_reads.version(id, number)),
    write=_write_progress,
    tidied=lambda body: progress_sections.render(progress_sections.parse(body)),
)
PROMPTS = Kind(
    name="prompt",
    title="Prompts",
    bytes_max=PROMPT_BYTES_MAX,
    is_markdown=False,
    versions=lambda id: [_of_prompt(row) for row in prompt_reads.versions(id)],
    version=lambda id, number: _of_prompt(prompt_reads.version(id, number)),
    write=_write_prompt,
    tidied=lambda body: body,
)
KINDS = {kind.name: kind for kind in (PROGRESS, PROMPTS)}


@require_GET
@tenant_page("runs.read")
def progress_list(request: TenantRequest) -> HttpResponse:
    page = documents.progress(after=request.GET.get("after", ""))
    if request.GET.get("format") == "json":
        return twin([dataclasses.asdict(row) | {"id": row.public_id} for row in page.rows])
    context: dict[str, object] = {
        "section": "memories",
        "tab": "progress",
        "waiting": review.pending_count(),
        "found": page,
        "names": directory.names(row.subject_id for row in page.rows if row.subject_id),
        "first_page": not request.GET.get("after"),
    }
    return show(request, "memory/progress_list.html", context)


@require_GET
@tenant_page("runs.read")
def prompt_list(request: TenantRequest) -> HttpResponse:
    found = documents.prompts()
    if request.GET.get("format") == "json":
        return twin([dataclasses.asdict(row) | {"id": row.public_id} for row in found])
    context: dict[str, object] = {
        "section": "memories",
        "tab": "prompts",
        "waiting": review.pending_count(),
        "found": found,
    }
    return show(request, "memory/prompts.html", context)


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def prompt_new(request: TenantRequest) -> HttpResponse:
    require(request.actor, "memory.write")
    if request.method == "GET":
        return _new_page(request, forms.fresh(name="main"))
    form = forms.typed(request.POST, "agent", "name", "body", "reason")
    typed = form.values
    try:
        with tenant_scope(request.tenant.id):
            made = prompt_writes.write(
                typed["agent"].strip(),
                typed["body"],
                name=typed["name"].strip() or "main",
                expected_version=0,
                reason=typed["reason"],
                actor=request.actor,
            )
    except (Invalid, Conflict) as refusal:
        return _new_page(request, form.refused(refusal))
    messages.success(request, "Written, and in force from now on.")
    return see_other(request, reverse("prompt", args=[request.tenant.slug, made.public_id]))


def _new_page(request: TenantRequest, form: Form) -> HttpResponse:
    context: dict[str, object] = {"section": "memories", "form": form}
    return show(request, "memory/prompt_new.html", context, status=form.status)


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def document(request: TenantRequest, public: str, kind: str) -> HttpResponse:
    """One document: a version of it, two versions side by side, or its editor."""
    of = KINDS[kind]
    if request.method == "POST":
        return _save(request, of, public)
    versions = _versions(of, public)
    shown = _pick(versions, request.GET.get("version", ""))
    if request.GET.get("format") == "json":
        return twin(dataclasses.asdict(shown) | {"id": shown.public_id, "versions": len(versions)})
    form = forms.fresh(body=shown.body, reason="", expected_version=str(versions[0].version))
    return _page(request, of, versions, shown, form)


def _versions(of: Kind, public: str) -> list[Version]:
    found = of.versions(parse_id(of.name, public))
    if not found:
        raise NotFound(f"There is no such {of.name}.")
    return found


def _pick(versions: list[Version], asked: str) -> Version:
    number = forms.number(asked) or versions[0].version
    return next((each for each in versions if each.version == number), versions[0])


def _page(
    request: TenantRequest,
    of: Kind,
    versions: list[Version],
    shown: Version,
    form: Form,
    *,
    preview: str = "",
    base: Version | None = None,
) -> HttpResponse:
    other = request.GET.get("with", "")
    context: dict[str, object] = {
        "section": "memories",
        "kind": of,
        "versions": versions,
        "newest": versions[0],
        "shown": shown,
        "other": _pick(versions, other) if other else None,
        "form": form,
        "preview": preview,
        "base": base,
        "editing": bool(request.GET.get("edit")) or request.method == "POST",
        "subject": public_id("subject", shown.subject_id) if shown.subject_id else "",
    }
    return show(request, "memory/document.html", context, status=form.status)


def _save(request: TenantRequest, of: Kind, public: str) -> HttpResponse:
    require(request.actor, "memory.write")
    form = forms.typed(request.POST, *TYPED)
    try:
        with tenant_scope(request.tenant.id):
            newest = _versions(of, public)[0]
            version = forms.once(form, lambda: of.write(newest, form, request.actor), actor=request.actor, what=public)
    except (Invalid, Conflict) as refusal:
        return _again(request, of, public, form, refusal)
    messages.success(request, f"Version {version} stands.")
    return see_other(request, reverse(of.name, args=[request.tenant.slug, public]))


def _again(request: TenantRequest, of: Kind, public: str, form: Form, refusal: DomainError) -> HttpResponse:
    """What was typed; after somebody else's change beside theirs, and the next save is meant to replace it."""
    with tenant_scope(request.tenant.id):
        versions = _versions(of, public)
        again = form.refused(refusal)
        base = None
        if isinstance(refusal, Conflict) and "version" in refusal.data:
            base = next((each for each in versions if each.version == _seen(form)), versions[-1])
            fresh = forms.fresh(**{**form.values, "expected_version": str(versions[0].version)})
            again = dataclasses.replace(again, values=fresh.values, token=fresh.token)
        return _page(request, of, versions, versions[0], again, base=base)


@require_http_methods(["GET", "POST"])
@tenant_page("runs.read")
def preview(request: TenantRequest, public: str, kind: str) -> HttpResponse:
    """The typed document as it would be kept and shown; nothing is written."""
    of = KINDS[kind]
    if request.method == "GET":
        return HttpResponseRedirect(reverse(of.name, args=[request.tenant.slug, public]))
    require(request.actor, "memory.write")
    form = forms.typed(request.POST, *TYPED)
    try:
        tidied = of.tidied(form.values["body"])
    except Invalid as refusal:
        return _again(request, of, public, form, refusal)
    with tenant_scope(request.tenant.id):
        versions = _versions(of, public)
        return _page(request, of, versions, versions[0], form, preview=tidied)


@require_POST
@tenant_page("memory.write")
def restore(request: TenantRequest, public: str, kind: str) -> HttpResponse:
    """The words of a former version as a new one."""
    of = KINDS[kind]
    form = forms.typed(request.POST, "reason", "expected_version", "version")
    try:
        with tenant_scope(request.tenant.id):
            newest = _versions(of, public)[0]
            former = of.version(newest.id, forms.number(form.values["version"]) or 0)
            again = dataclasses.replace(form, values={**form.values, "body": former.body})
            version = forms.once(
                form, lambda: of.write(newest, again, request.actor), actor=request.actor, what=f"restore {public}"
            )
    except (Invalid, Conflict) as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, f"Version {former.version} is restored as version {version}.")
    return see_other(request, reverse(of.name, args=[request.tenant.slug, public]))
