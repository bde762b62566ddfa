"""Lists of documents with versions, without their words: progress documents by their last change, prompts by agent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from agentstate.core.ids import public_id
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory.models import Progress, Prompt

PROMPTS_MAX = 200


@dataclass(frozen=True, slots=True)
class ProgressRow:
    id: UUID
    key: str
    agent: str
    subject_id: UUID | None
    version: int
    updated_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("progress", self.id)


@dataclass(frozen=True, slots=True)
class ProgressRows:
    rows: list[ProgressRow]
    after: str


@dataclass(frozen=True, slots=True)
class PromptRow:
    id: UUID
    agent: str
    name: str
    version: int
    updated_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("prompt", self.id)


def progress(*, after: str = "") -> ProgressRows:
    """One read. Index: memory_progress_recent. Raises: Invalid(field="after")."""
    found = Progress.objects.filter(version__gt=0)
    rows = cursors.page(found, order=("-updated_at", "-id"), after=after, scope=f"{current_tenant()}:progress-rows")
    return ProgressRows(
        [ProgressRow(row.id, row.key, row.agent, row.subject_id, row.version, row.updated_at) for row in rows.rows],
        rows.after,
    )


def prompts() -> list[PromptRow]:
    """One read, at most PROMPTS_MAX. Index: memory_prompt_name."""
    found = Prompt.objects.filter(version__gt=0).order_by("agent", "name")[:PROMPTS_MAX]
    return [PromptRow(row.id, row.agent, row.name, row.version, row.updated_at) for row in found]
