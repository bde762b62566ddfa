"""Procedural prompts, opened: the one in force, every version, the list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from agentstate.core.errors import NotFound
from agentstate.core.ids import public_id
from memory import keys
from memory.models import Prompt, PromptVersion
from memory.selectors.opening import Words

MAIN = "main"
TABLE = "memory_promptversion"


@dataclass(frozen=True, slots=True)
class OpenedPrompt:
    """One version of a prompt with its words."""

    prompt_id: UUID
    agent: str
    name: str
    version: int
    text: str
    reason: str
    tokens: int
    is_in_force: bool
    actor_name: str
    created_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("prompt", self.prompt_id)


def in_force(agent: str, name: str = MAIN) -> OpenedPrompt | None:
    """Index: memory_prompt_name. Three reads."""
    prompt = Prompt.objects.filter(agent=agent, name=name, version__gt=0).first()
    return version(prompt.id, prompt.version) if prompt is not None else None


def version(prompt_id: UUID, number: int) -> OpenedPrompt:
    """Raises: NotFound."""
    found = _versions(prompt_id).filter(version=number)
    opened_ = _opened(list(found))
    if not opened_:
        raise NotFound("There is no such version of this prompt.")
    return opened_[0]


def versions(prompt_id: UUID, *, rows_max: int = 200) -> list[OpenedPrompt]:
    """The newest first. Index: the primary key."""
    return _opened(list(_versions(prompt_id).order_by("-version")[:rows_max]))


def every(*, rows_max: int = 200) -> list[OpenedPrompt]:
    """What is in force, of all agents."""
    found = Prompt.objects.filter(version__gt=0).order_by("agent", "name").values_list("id", "version")[:rows_max]
    return [version(prompt_id, number) for prompt_id, number in found]


def opened(prompt: Prompt, row: PromptVersion, key: bytes | None) -> OpenedPrompt:
    words, place = Words(key), f"{prompt.id}:{row.version}"
    return OpenedPrompt(
        prompt_id=prompt.id,
        agent=prompt.agent,
        name=prompt.name,
        version=row.version,
        text=words.text(TABLE, f"{place}:body", row.body),
        reason=words.text(TABLE, f"{place}:reason", row.reason),
        tokens=row.tokens,
        is_in_force=row.version == prompt.version,
        actor_name=row.actor_name,
        created_at=row.created_at,
    )


def _versions(prompt_id: UUID):  # type: ignore[no-untyped-def]
    return PromptVersion.objects.filter(prompt_id=prompt_id).select_related("prompt")


def _opened(rows: list[PromptVersion]) -> list[OpenedPrompt]:
    found = keys.several({row.prompt_id for row in rows})
    return [opened(row.prompt, row, found.get(row.prompt_id)) for row in rows]
