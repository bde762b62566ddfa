"""Progress documents: what a task has come to, written at the end of a run and read first by the next one.

Every version stays. A document that is about a subject is sealed with its key and goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from agentstate.audit import trail
from agentstate.core import clock, tokens
from agentstate.core.errors import Conflict
from agentstate.core.limits import MIB, NAME_CHARS_MAX
from agentstate.db import locks
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant
from memory import keys, progress_sections, sealing, texts
from memory.models import Progress, ProgressVersion, Session
from memory.progress_sections import Sections
from memory.selectors import progress as reads
from memory.selectors.progress import OpenedProgress, read
from memory.services import drafts, receipts, rights
from memory.sources import Source

__all__ = ["OpenedProgress", "Written", "read", "restore", "write"]

NO_SOURCE = Source()
TABLE = "memory_progressversion"


@dataclass(frozen=True, slots=True)
class Written:
    """The version that stands, and how many of the oldest lines of Done were folded to keep it within its bound."""

    progress: OpenedProgress
    folded: int = 0


def write(
    key: str,
    body: str | Mapping[str, str] | Sections,
    *,
    expected_version: int | None = None,
    agent: str = "",
    subject_id: UUID | None = None,
    reason: str = "",
    actor: Actor,
    source: Source = NO_SOURCE,
) -> Written:
    """A new version of the document of this key: a session's key, or a task's name. The same words change nothing.

    `expected_version`: what the writer has read; 0 for none yet, None for whatever stands. `subject_id`: that of the
    session with this key unless given. Raises: Forbidden, Invalid, TooLarge, Conflict with the current version.
    Locks: the key, the document. Idempotent by the source's key.
    """
    rights.require_writing(actor)
    texts.clean(key, field="/key", bytes_max=NAME_CHARS_MAX)
    texts.optional(agent, field="/agent", bytes_max=NAME_CHARS_MAX)
    sections = _sections(body)
    reason = drafts.checked_reason(reason, actor)
    assert connection.in_atomic_block, "a version and the document are one transaction"

    def act() -> dict[str, Any]:
        written = _write(
            key,
            sections,
            expected_version=expected_version,
            agent=agent,
            subject_id=subject_id,
            reason=reason,
            actor=actor,
            source=source,
        )
        return {"id": str(written.progress.progress_id), "version": written.progress.version, "folded": written.folded}

    asked = {"key": key, "sections": sections.as_dict(), "expected_version": expected_version}
    made = receipts.once(source.key, asked, act, by="progress") if source.key else act()
    return Written(reads.version(UUID(made["id"]), made["version"]), made["folded"])


def restore(
    progress_id: UUID, *, version: int, expected_version: int | None = None, reason: str, actor: Actor
) -> Written:
    """The words of a former version as a new one. Raises: as write(), NotFound."""
    former = reads.version(progress_id, version)
    return write(former.key, former.sections, expected_version=expected_version, reason=reason, actor=actor)


def _sections(body: str | Mapping[str, str] | Sections) -> Sections:
    if isinstance(body, Sections):
        body = body.as_dict()
    if isinstance(body, str):
        return progress_sections.parse(texts.clean(body, field="/body", bytes_max=MIB))
    for name, text in body.items():
        texts.optional(text, field=f"/sections/{name}", bytes_max=MIB)
    return progress_sections.of_mapping(body)


def _write(
    key: str,
    sections: Sections,
    *,
    expected_version: int | None,
    agent: str,
    subject_id: UUID | None,
    reason: str,
    actor: Actor,
    source: Source,
) -> Written:
    locks.hold("memory.progress", current_tenant(), key)
    known = Progress.objects.filter(key=key).first()
    current = known.version if known is not None else 0
    sections, folded = progress_sections.bounded(sections, version=current)
    body = progress_sections.render(sections)
    if known is not None and current and reads.version(known.id, current).body == body:
        return Written(reads.version(known.id, current))
    if expected_version is not None and expected_version != current:
        raise Conflict(
            f"The progress document {key} is at version {current} by now, not {expected_version}. Read it again and "
            "bring your change over.",
            version=current,
            expected=expected_version,
        )
    progress = _held(known, key, agent=agent, subject_id=subject_id)
    made = _add_version(progress, body, reason=reason, actor=actor, source=source)
    return Written(reads.opened(progress, made, keys.existing(reads.owner_of(progress))), folded)


def _held(known: Progress | None, key: str, *, agent: str, subject_id: UUID | None) -> Progress:
    if known is not None:
        return locks.lock_in_order(Progress(id=known.id))[0]
    now = clock.now()
    session = Session.objects.filter(key=key).first()
    if session is not None:
        agent, subject_id = agent or session.agent, subject_id or session.subject_id
    progress = Progress(key=key, agent=agent, subject_id=subject_id, created_at=now, updated_at=now)
    progress.save(force_insert=True)
    return progress


def _add_version(progress: Progress, body: str, *, reason: str, actor: Actor, source: Source) -> ProgressVersion:
    owner_key = keys.in_use(progress.subject_id) if progress.subject_id else keys.owner_key(progress.id)
    progress.version, progress.updated_at = progress.version + 1, clock.now()
    place = f"{progress.id}:{progress.version}"
    made = ProgressVersion(
        progress=progress,
        version=progress.version,
        body=sealing.seal_text(owner_key, TABLE, f"{place}:body", body),
        reason=sealing.seal_text(owner_key, TABLE, f"{place}:reason", reason) if reason else b"",
        tokens=tokens.count(body),
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        run_id=source.run_id,
        step_seq=source.step_seq,
        created_at=progress.updated_at,
    )
    made.save(force_insert=True)
    progress.save(update_fields=["version", "updated_at"])
    trail.record(progress, action="written", actor=actor, reason=reason, detail={"version": progress.version})
    return made
