"""Questions that were asked, and what calls were given."""

from __future__ import annotations

from collections.abc import Sequence

from memory import sealing, transfer
from memory.models import Injection, RecallQuestion
from memory.services.imports.desk import Desk
from memory.services.imports.lines import Numbered


def take_question(desk: Desk, batch: Sequence[Numbered]) -> None:
    here, rows = desk.here(RecallQuestion, batch), []
    for each in batch:
        line: transfer.QuestionLine = each.line
        desk.counted("question", line.id not in here)
        desk.link(line.run)
        if line.id not in here:
            row = RecallQuestion(id=desk.row_id(line.id), subject=desk.subject, agent=line.agent, at=line.at)
            row.text = sealing.seal_text(desk.key, "memory_recallquestion", row.id, line.text)
            rows.append(row)
    RecallQuestion.objects.bulk_create(rows)


def take_injection(desk: Desk, batch: Sequence[Numbered]) -> None:
    here, rows = desk.here(Injection, batch), []
    for each in batch:
        line: transfer.InjectionLine = each.line
        desk.counted("injection", line.id not in here)
        desk.link(line.run)
        if line.id in here:
            continue
        rows.append(
            Injection(
                id=desk.row_id(line.id),
                call_id=desk.row_id(line.call),
                session_id=desk.sessions.get(line.session) if line.session else None,
                subject=desk.subject,
                source_id=desk.row_id(line.source_id),
                **line.model_dump(
                    include={
                        *("part", "source", "version", "position", "score", "scores", "tokens", "masked", "at"),
                    }
                ),
            )
        )
    Injection.objects.bulk_create(rows)
