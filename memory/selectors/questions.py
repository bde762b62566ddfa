"""The last questions that were really asked about a subject: what a preview tries a change on."""

from __future__ import annotations

from uuid import UUID

from memory.models import RecallQuestion
from memory.selectors.ledger import Question
from memory.selectors.opening import Words

SHOWN = 10


def asked(subject_id: UUID, words: Words) -> list[Question]:
    """Newest first, each text once. One read. Index: memory_question_newest."""
    found: dict[str, Question] = {}
    for row in RecallQuestion.objects.filter(subject_id=subject_id).order_by("-id")[: 2 * SHOWN]:
        text = words.text("memory_recallquestion", row.id, row.text)
        found.setdefault(text, Question(row.id, row.agent, text, row.run_id, row.step_seq, row.at))
    return list(found.values())[:SHOWN]
