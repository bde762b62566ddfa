"""The injection ledger, written: which words of memory one call was given, in the transaction that chose them.

A row names the source and its version, never the words: those stand in the version, which does not change. So what a
call was given can be read word for word as long as its source is kept, and not a moment longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import UUID

import orjson
from django.db import connection

from agentstate.core.clock import now
from agentstate.core.ids import new_id
from agentstate.core.limits import INJECTIONS_MAX, MESSAGE_BYTES_MAX, SUBJECT_QUESTIONS_MAX
from agentstate.db import sql
from memory import keys, sealing
from memory.models import RecallQuestion

# All of a call at once: a hundred rows, each with its parameters, cost five times as much to send and to plan. The
# tenant is asked once: as the column's default it is asked for each row.
RECORD = """
INSERT INTO memory_injection (tenant_id, id, run_id, step_seq, call_id, session_id, subject_id, part, source,
  source_id, version, position, score, scores, tokens, masked, at)
SELECT (SELECT agentstate_tenant()), r.id, %(run)s, %(step)s, %(call)s, %(session)s, r.subject, r.part, r.source,
  r.source_id, r.version, r.position, r.score, r.scores::jsonb, r.tokens, r.masked, %(at)s
FROM unnest(%(id)s::uuid[], %(subject)s::uuid[], %(part)s::text[], %(source)s::text[], %(source_id)s::uuid[],
  %(version)s::int[], %(score)s::float8[], %(scores)s::text[], %(tokens)s::int[], %(masked)s::bool[])
  WITH ORDINALITY AS r (id, subject, part, source, source_id, version, score, scores, tokens, masked, position)
"""
# All but the newest. Index: memory_question_newest.
DROP_QUESTIONS = f"""
DELETE FROM memory_recallquestion WHERE id IN (SELECT id FROM memory_recallquestion WHERE subject_id = %s
  ORDER BY id DESC OFFSET {SUBJECT_QUESTIONS_MAX})
"""
Part = Literal["pinned", "summary", "recalled", "tail", "prompt", "progress"]
SourceKind = Literal["message", "item", "summary", "prompt", "progress"]


class Asking(Protocol):
    """Who asked: a step of a run, or nobody (both None), as in a call over the API."""

    @property
    def run_id(self) -> UUID | None: ...
    @property
    def step_seq(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Injected:
    """One text that went in. `version` is that of an item, prompt or progress document; else 1."""

    part: Part
    source: SourceKind
    source_id: UUID
    tokens: int
    version: int = 1
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    masked: bool = False  # only its first line went in
    subject_id: UUID | None = None  # None: belongs to nobody, as a prompt does


def record(
    rows: Sequence[Injected],
    *,
    source: Asking | None = None,
    session_id: UUID | None = None,
    call_id: UUID | None = None,
) -> UUID:
    """Write down what one call was given, in this order; answers the id that its rows share.

    Asserts a transaction. A call that is made again (its worker was killed) is another call with rows of its own.
    """
    assert connection.in_atomic_block, "what was injected is recorded in the transaction that chose it"
    assert len(rows) <= INJECTIONS_MAX, "a context is cut to its budget before it is recorded"
    call_id = call_id or new_id()
    if not rows:
        return call_id
    each = {
        "id": [new_id() for _ in rows],
        "subject": [row.subject_id for row in rows],
        "part": [row.part for row in rows],
        "source": [row.source for row in rows],
        "source_id": [row.source_id for row in rows],
        "version": [row.version for row in rows],
        "score": [row.score for row in rows],
        "scores": [orjson.dumps(dict(row.scores)).decode() for row in rows],
        "tokens": [row.tokens for row in rows],
        "masked": [row.masked for row in rows],
    }
    run_id, step_seq = (source.run_id, source.step_seq) if source else (None, None)
    of_call = {"run": run_id, "step": step_seq, "call": call_id, "session": session_id, "at": now()}
    sql.execute(RECORD, {**each, **of_call})
    return call_id


def keep_question(subject_id: UUID, agent: str, text: str, source: Asking | None = None) -> None:
    """Keep a question that was really asked, for previews; only the newest of a subject stay. Asserts a transaction."""
    assert connection.in_atomic_block, "a question is kept in the transaction of the call that asked it"
    if not text.strip():
        return
    question_id = new_id()
    RecallQuestion.objects.create(
        id=question_id,
        subject_id=subject_id,
        agent=agent,
        text=sealing.seal_text(keys.in_use(subject_id), "memory_recallquestion", question_id, _cut(text)),
        run_id=source.run_id if source else None,
        step_seq=source.step_seq if source else None,
        at=now(),
    )
    sql.execute(DROP_QUESTIONS, [subject_id])


def _cut(text: str) -> str:
    return text.encode()[:MESSAGE_BYTES_MAX].decode(errors="ignore")
