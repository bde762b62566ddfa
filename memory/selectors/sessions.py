"""Sessions as pages, the API and agents read them: by id, by key, of a subject, the latest of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.core.limits import PAGE_ROWS
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.models import Session
from memory.selectors import removed
from memory.selectors.opening import Words


@dataclass(frozen=True, slots=True)
class SessionRow:
    id: UUID
    subject_id: UUID
    key: str
    agent: str
    title: str
    status: str
    version: int
    last_seq: int
    turns: int
    message_count: int
    tokens: int
    summarised_seq: int
    created_at: datetime
    last_active_at: datetime
    due_at: datetime | None
    ended_at: datetime | None

    @property
    def public_id(self) -> str:
        return public_id("session", self.id)


@dataclass(frozen=True, slots=True)
class Sessions:
    rows: list[SessionRow]
    after: str


def find(public: str) -> SessionRow:
    """Raises: NotFound."""
    return get(parse_id("session", public))


def get(session_id: UUID) -> SessionRow:
    """Raises: NotFound."""
    rows = _rows(Session.objects.filter(id=session_id))
    if not rows:
        raise NotFound(removed.session_told(session_id))
    return rows[0]


def by_key(key: str) -> SessionRow:
    """`key`: the session_key of its runs. Index: memory_session_key. Raises: NotFound."""
    return _only(Session.objects.filter(key=key))


def of_subject(subject_id: UUID, *, after: str = "", rows_max: int = PAGE_ROWS) -> Sessions:
    """The latest first. Raises: Invalid(field="after")."""
    found = Session.objects.filter(subject_id=subject_id)
    # Index: memory_session_of_subject.
    return _page(found, scope=f"sessions:{subject_id}", after=after, rows_max=rows_max)


def latest(
    *,
    agent: str = "",
    status: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    after: str = "",
    rows_max: int = PAGE_ROWS,
) -> Sessions:
    """Of the whole tenant by their last activity. Raises: Invalid(field="after")."""
    found = Session.objects.all()
    wanted = {"agent": agent, "status": status, "last_active_at__gte": since, "last_active_at__lt": until}
    found = found.filter(**{name: value for name, value in wanted.items() if value})
    # Index: memory_session_recent.
    return _page(found, scope=f"sessions:{wanted}", after=after, rows_max=rows_max)


def _only(found: Iterable[Session]) -> SessionRow:
    rows = _rows(found)
    if not rows:
        raise NotFound("There is no such session.")
    return rows[0]


def _page(found: QuerySet[Session], *, scope: str, after: str, rows_max: int) -> Sessions:
    page = cursors.page(
        found,
        order=("-last_active_at", "-id"),
        after=after,
        scope=f"{current_tenant()}:{scope}",
        rows_max=rows_max,
    )
    return Sessions(_rows(page.rows), page.after)


def _rows(found: Iterable[Session]) -> list[SessionRow]:
    sessions = list(found)
    opened = keys.several(row.subject_id for row in sessions if row.title)
    return [_row(session, opened) for session in sessions]


def _row(session: Session, opened: Mapping[UUID, bytes]) -> SessionRow:
    words = Words(opened.get(session.subject_id))
    return SessionRow(
        title=words.text("memory_session", session.id, session.title),
        **{name: getattr(session, name) for name in _PLAIN},
    )


_PLAIN = [name for name in SessionRow.__dataclass_fields__ if name != "title"]
