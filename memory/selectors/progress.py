"""Progress documents, opened: the newest version, any version, the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agentstate.core.errors import NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import PAGE_ROWS
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.models import Progress, ProgressVersion
from memory.progress_sections import Sections, parse
from memory.selectors.opening import ERASED, Words

TABLE = "memory_progressversion"


@dataclass(frozen=True, slots=True)
class OpenedProgress:
    """One version of a progress document with its words."""

    progress_id: UUID
    key: str
    agent: str
    subject_id: UUID | None
    version: int
    body: str
    reason: str
    tokens: int
    is_newest: bool
    actor_name: str
    run_id: UUID | None
    step_seq: int | None
    created_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("progress", self.progress_id)

    @property
    def sections(self) -> Sections:
        return Sections() if self.body == ERASED else parse(self.body)


@dataclass(frozen=True, slots=True)
class ProgressList:
    rows: list[OpenedProgress]
    after: str


def read(key: str) -> OpenedProgress | None:
    """The newest version; None when nothing was written. Index: memory_progress_key."""
    found = Progress.objects.filter(key=key, version__gt=0).first()
    return version(found.id, found.version) if found is not None else None


def version(progress_id: UUID, number: int) -> OpenedProgress:
    """Raises: NotFound."""
    found = _opened(list(_versions(progress_id).filter(version=number)))
    if not found:
        raise NotFound("There is no such version of this progress document.")
    return found[0]


def versions(progress_id: UUID, *, rows_max: int = 200) -> list[OpenedProgress]:
    """The newest first. Index: the primary key."""
    return _opened(list(_versions(progress_id).order_by("-version")[:rows_max]))


def latest(*, after: str = "", rows_max: int = PAGE_ROWS) -> ProgressList:
    """Index: memory_progress_recent. Raises: Invalid(field="after")."""
    found = cursors.page(
        Progress.objects.filter(version__gt=0),
        order=("-updated_at", "-id"),
        after=after,
        scope=f"{current_tenant()}:progress",
        rows_max=rows_max,
    )
    return ProgressList([version(row.id, row.version) for row in found.rows], found.after)


def opened(progress: Progress, row: ProgressVersion, key: bytes | None) -> OpenedProgress:
    words, place = Words(key), f"{progress.id}:{row.version}"
    return OpenedProgress(
        progress_id=progress.id,
        key=progress.key,
        agent=progress.agent,
        subject_id=progress.subject_id,
        version=row.version,
        body=words.text(TABLE, f"{place}:body", row.body),
        reason=words.text(TABLE, f"{place}:reason", row.reason),
        tokens=row.tokens,
        is_newest=row.version == progress.version,
        actor_name=row.actor_name,
        run_id=row.run_id,
        step_seq=row.step_seq,
        created_at=row.created_at,
    )


def owner_of(progress: Progress) -> UUID:
    """Whose key seals it: the subject's, when it is about one."""
    return progress.subject_id or progress.id


def _versions(progress_id: UUID) -> Any:
    return ProgressVersion.objects.filter(progress_id=progress_id).select_related("progress")


def _opened(rows: Sequence[ProgressVersion]) -> list[OpenedProgress]:
    found = keys.several({owner_of(row.progress) for row in rows})
    return [opened(row.progress, row, found.get(owner_of(row.progress))) for row in rows]
