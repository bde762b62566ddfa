"""What the feedback fence compares with: texts of ours that a run or a session was given, prompts, other summaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from functools import lru_cache
from itertools import chain
from uuid import UUID

from django.db.models import Q

from agentstate.core import restating
from agentstate.core.errors import Corrupt
from agentstate.core.ids import public_id
from agentstate.core.restating import Clause
from memory import keys, sealing
from memory.models import Injection, Prompt, PromptVersion, Summary
from memory.selectors import ledger

ROWS_MAX = 300  # of the ledger, newest first
PROMPTS_MAX = 50
PROMPT_VERSIONS = 3  # the one in force and those before it
SUMMARIES_MAX = 20
OURS = ("item", "summary", "progress")  # messages are what was said; prompts are compared in any case

Texts = list[tuple[str, str]]  # (public id, with @version when a former one may be meant; text)


def words(*, run_id: UUID | None, session_ids: Collection[UUID]) -> Texts:
    """What this run or these sessions were given last, each version once.

    Indexes: memory_injection_step, memory_injection_session.
    """
    given = Q(session_id__in=session_ids) | Q(run_id=run_id) if run_id else Q(session_id__in=session_ids)
    if run_id is None and not session_ids:
        return []
    rows = Injection.objects.filter(given, source__in=OURS).order_by("-id")
    places: dict[str, set[tuple[UUID, int]]] = defaultdict(set)
    for source, source_id, version in rows.values_list("source", "source_id", "version")[:ROWS_MAX]:
        places[source].add((source_id, version))
    return [
        (f"{public_id(source, source_id)}@{version}", text)
        for source, wanted in places.items()
        for (source_id, version), text in ledger.words(source, wanted).items()
    ]


def summaries(subject_id: UUID, *, beside: Collection[UUID]) -> Texts:
    """The newest summaries of the subject's other sessions. Index: memory_summary_subject."""
    key = keys.several([subject_id]).get(subject_id)
    if key is None:
        return []
    rows = Summary.objects.filter(subject_id=subject_id, level__in=("session", "subject"), stale=False)
    rows = rows.exclude(session_id__in=beside).order_by("-created_at")[:SUMMARIES_MAX]
    return [(public_id("summary", row.id), sealing.open_text(key, "memory_summary", row.id, row.text)) for row in rows]


def prompts() -> list[Clause]:
    """Clauses of the tenant's prompts: one statement when they are known to this process already."""
    standing = Prompt.objects.filter(version__gt=0).order_by("-updated_at").values_list("id", "version")[:PROMPTS_MAX]
    wanted = [
        (prompt_id, version - back)
        for prompt_id, version in standing
        for back in range(PROMPT_VERSIONS)
        if version > back
    ]
    return list(chain.from_iterable(_clauses_of(prompt_id, version) for prompt_id, version in wanted))


@lru_cache(maxsize=256)
def _clauses_of(prompt_id: UUID, version: int) -> tuple[Clause, ...]:
    """A version of a prompt never changes. It is the tenant's text about its agents, not about a subject."""
    row = PromptVersion.objects.filter(prompt_id=prompt_id, version=version).first()
    key = keys.several([prompt_id]).get(prompt_id)
    if row is None or key is None:
        return ()
    try:
        text = sealing.open_text(key, "memory_promptversion", f"{prompt_id}:{version}:body", row.body)
    except Corrupt:
        return ()
    return tuple(restating.clauses(text, source=public_id("prompt", prompt_id)))
