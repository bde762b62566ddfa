"""Procedural prompts: how an agent should work, by name. Every version stays; a restore is a new one."""

from __future__ import annotations

from uuid import UUID

from django.db import connection

from agentstate.audit import trail
from agentstate.core import clock, tokens
from agentstate.core.errors import Conflict
from agentstate.core.limits import NAME_CHARS_MAX, PROMPT_BYTES_MAX
from agentstate.db import locks
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant
from memory import keys, sealing, texts
from memory.models import Prompt, PromptVersion
from memory.selectors import prompts as reads
from memory.selectors.prompts import MAIN, OpenedPrompt, in_force
from memory.services import drafts, rights

__all__ = ["MAIN", "OpenedPrompt", "in_force", "restore", "write"]

TABLE = "memory_promptversion"
PROMPT_NAME_BYTES_MAX = 100


def write(
    agent: str, body: str, *, name: str = MAIN, expected_version: int | None = None, reason: str = "", actor: Actor
) -> OpenedPrompt:
    """A new version, in force at once. The words in force again change nothing.

    `expected_version`: what the writer has read; 0 for a prompt that is not there yet, None for whatever is in force.
    Raises: Forbidden, Invalid, TooLarge, Conflict with the current version. Locks: the name, the prompt. Idempotent.
    """
    rights.require_writing(actor)
    texts.clean(agent, field="/agent", bytes_max=NAME_CHARS_MAX)
    texts.clean(name, field="/name", bytes_max=PROMPT_NAME_BYTES_MAX)
    texts.clean(body, field="/body", bytes_max=PROMPT_BYTES_MAX)
    reason = drafts.checked_reason(reason, actor)
    assert connection.in_atomic_block, "a version and what is in force are one transaction"
    locks.hold("memory.prompt", current_tenant(), agent, name)
    known = in_force(agent, name)
    current = known.version if known is not None else 0
    if known is not None and known.text == body:
        return known
    if expected_version is not None and expected_version != current:
        raise Conflict(
            f"The prompt “{name}” of {agent} is at version {current} by now, not {expected_version}. Read it again and "
            "bring your change over.",
            version=current,
            expected=expected_version,
        )
    return _written(agent, name, body, known, reason=reason, actor=actor)


def restore(
    prompt_id: UUID, *, version: int, expected_version: int | None = None, reason: str, actor: Actor
) -> OpenedPrompt:
    """The words of a former version as a new one. Raises: as write(), NotFound."""
    former = reads.version(prompt_id, version)
    body = former.text
    return write(former.agent, body, name=former.name, expected_version=expected_version, reason=reason, actor=actor)


def _written(
    agent: str, name: str, body: str, known: OpenedPrompt | None, *, reason: str, actor: Actor
) -> OpenedPrompt:
    now = clock.now()
    if known is None:
        prompt = Prompt(agent=agent, name=name, version=0, created_at=now, updated_at=now)
        prompt.save(force_insert=True)
    else:
        (prompt,) = locks.lock_in_order(Prompt(id=known.prompt_id))
    key = keys.owner_key(prompt.id)
    prompt.version, prompt.updated_at = prompt.version + 1, now
    place = f"{prompt.id}:{prompt.version}"
    made = PromptVersion(
        prompt=prompt,
        version=prompt.version,
        body=sealing.seal_text(key, TABLE, f"{place}:body", body),
        reason=sealing.seal_text(key, TABLE, f"{place}:reason", reason) if reason else b"",
        digest=sealing.digest("prompt", texts.normalised(body)),
        tokens=tokens.count(body),
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        created_at=now,
    )
    made.save(force_insert=True)
    prompt.save(update_fields=["version", "updated_at"])
    trail.record(prompt, action="written", actor=actor, reason=reason, detail={"version": prompt.version})
    return reads.opened(prompt, made, key)
