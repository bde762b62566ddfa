"""The recall debugger: a question as an agent would ask it, and where every hit's score comes from. Records nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.http import HttpResponse
from django.views.decorators.http import require_GET

from agentstate.core.errors import Invalid, NotFound
from agentstate.core.ids import parse_id
from agentstate.core.limits import QUESTION_CHARS_MAX, SUBJECT_RECALL_MAX
from agentstate.http.pages import TenantRequest, show, tenant_page, twin
from agentstate.tenants.scope import tenant_scope
from memory.models.unit import UNIT_KINDS
from memory.recall import questions
from memory.recall.questions import Asked
from memory.selectors import directory, sessions
from memory.selectors import questions as really_asked
from memory.services import recalling
from memory.services.recalling import Answer, Found
from memory.views import forms

PARTS = {
    "bm25": "words",
    "late": "token by token",
    "sim": "sentence",
    "neighbours": "its neighbours",
    "session": "its session",
    "author": "its author",
    "month": "its month",
}
RUNGS = {
    "bits": "sentence vectors, words, and token by token",
    "sentence": "sentence vectors and words",
    "words": "words alone",
}
K = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the address asks; what cannot be read does not filter."""

    question: str = ""
    k: int = K
    kinds: tuple[str, ...] = UNIT_KINDS
    session: str = ""
    authors: str = ""
    namespace: str = ""
    after: datetime | None = None
    before: datetime | None = None
    at: datetime | None = None

    @property
    def kind(self) -> str:
        return self.kinds[0] if len(self.kinds) == 1 else ""

    @property
    def narrowed(self) -> bool:
        return bool(self.session or self.authors or self.namespace or self.after or self.before or self.at)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.authors.split(",") if name.strip())


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a hit's score; `share` of the best hit's whole score."""

    name: str
    words: str
    value: float
    share: float
    raw: float | None


@dataclass(frozen=True, slots=True)
class Told:
    found: Found
    parts: list[Part]


@require_GET
@tenant_page("runs.read", scoped=False)
def recall_page(request: TenantRequest, subject: str) -> HttpResponse:
    wanted = _read(request)
    asked, problem = _ask(request.tenant.id, wanted)
    with tenant_scope(request.tenant.id):
        row, words = directory.find(subject)
        answer = None
        if asked is not None:
            try:
                answer = _answer(row.id, asked, wanted)
            except (Invalid, NotFound) as refusal:
                problem = refusal.message
        if request.GET.get("format") == "json":
            return twin(dataclasses.asdict(answer) if answer else {"problem": problem})
        context: dict[str, object] = {
            "section": "memories",
            "subject": row,
            "wanted": wanted,
            "problem": problem,
            "answer": answer,
            "told": _told(answer) if answer else [],
            "rung": RUNGS.get(answer.rung, answer.rung) if answer else "",
            "took_ms": sum(answer.took.values()) if answer else 0,
            "asked": [] if answer else really_asked.asked(row.id, words),
            "kinds": UNIT_KINDS,
            "k_max": SUBJECT_RECALL_MAX,
        }
        return show(request, "memory/recall.html", context, partial="recall-found")


def _read(request: TenantRequest) -> Wanted:
    query = request.GET
    kind = query.get("kind", "")
    return Wanted(
        question=query.get("q", "").strip()[:QUESTION_CHARS_MAX],
        k=min(max(forms.number(query.get("k", "")) or K, 1), SUBJECT_RECALL_MAX),
        kinds=(kind,) if kind in UNIT_KINDS else UNIT_KINDS,
        session=_plain(query.get("session", "")),
        authors=_plain(query.get("authors", "")),
        namespace=_plain(query.get("namespace", "")),
        after=forms.moment(query.get("after", "")),
        before=forms.moment(query.get("before", "")),
        at=forms.moment(query.get("at", "")),
    )


def _plain(text: str) -> str:
    return text.strip()[:200].replace("\0", "")


def _ask(tenant_id: UUID, wanted: Wanted) -> tuple[Asked | None, str]:
    """The question in the models' space: asked before the page's own transaction, because a model may be far away."""
    if not wanted.question:
        return None, ""
    try:
        return questions.asked(wanted.question, tenant_id=tenant_id), ""
    except Invalid as refusal:
        return None, refusal.message


def _answer(subject_id: UUID, asked: Asked, wanted: Wanted) -> Answer:
    return recalling.ask(
        subject_id,
        asked,
        k=wanted.k,
        kinds=wanted.kinds,
        session_id=_session(wanted.session) if wanted.session else None,
        authors=wanted.names,
        after=wanted.after,
        before=wanted.before,
        at=wanted.at,
        namespace=wanted.namespace,
        explain=True,
    )


def _session(named: str) -> UUID:
    """By its id or its key. Raises: NotFound."""
    return parse_id("session", named) if named.startswith("session_") else sessions.by_key(named).id


def _told(answer: Answer) -> list[Told]:
    best = max((each.hit.score for each in answer.found), default=0.0) or 1.0
    return [Told(each, [_part(name, each, best) for name in _names(each)]) for each in answer.found]


def _names(found: Found) -> list[str]:
    """Parts in their usual order, then those this page does not know."""
    return [name for name in PARTS if name in found.hit.scores] + [n for n in found.hit.scores if n not in PARTS]


def _part(name: str, found: Found, best: float) -> Part:
    value = found.hit.scores[name]
    return Part(name, PARTS.get(name, name), value, max(value, 0.0) / best, found.hit.raw.get(name))
