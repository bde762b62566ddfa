"""What an erasure of a subject has to reach in this tier, and what of it is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from agentstate.db import sql

# Which rows of each table are the subject's, in the order in which they go: nothing is left that names a row above it.
SESSIONS = "(SELECT id FROM memory_session WHERE subject_id = %(subject)s)"
DOCUMENTS = (
    "(SELECT id FROM memory_progress WHERE subject_id = %(subject)s"
    " OR (subject_id IS NULL AND key IN (SELECT key FROM memory_session WHERE subject_id = %(subject)s"
    " UNION SELECT session_key FROM memory_removed WHERE subject_id = %(subject)s)))"
)
OF_SUBJECT = "subject_id = %(subject)s"
ROWS: dict[str, str] = {
    "memory_unitstaged": OF_SUBJECT,
    "memory_unittokens": OF_SUBJECT,
    "memory_unit": OF_SUBJECT,
    # Of its sessions: also what belongs to nobody (a prompt); a row of another subject stays that one's.
    "memory_injection": f"({OF_SUBJECT} OR (subject_id IS NULL AND session_id IN {SESSIONS}))",
    "memory_recallquestion": OF_SUBJECT,
    "memory_proposal": OF_SUBJECT,
    "memory_itemrevision": OF_SUBJECT,
    "memory_item": OF_SUBJECT,
    "memory_summary": OF_SUBJECT,
    "memory_message": OF_SUBJECT,
    "memory_progressversion": f"progress_id IN {DOCUMENTS}",
    "memory_progress": f"id IN {DOCUMENTS}",
    # Answers of keyed writes hold ids. No index: an erasure reads the receipts of a tenant once.
    "memory_receipt": "position(%(hex)s in replace(reply::text, '-', '')) > 0",
    "memory_removed": OF_SUBJECT,
    "memory_author": OF_SUBJECT,
    "memory_alias": OF_SUBJECT,
    "memory_session": OF_SUBJECT,
    "memory_subject": "id = %(subject)s",
}
# Every row of this tier that says in which run something of the subject was written or read.
RUNS = """
SELECT DISTINCT run_id FROM (
  SELECT run_id FROM memory_message WHERE subject_id = %(subject)s
  UNION ALL SELECT run_id FROM memory_injection WHERE subject_id = %(subject)s
  UNION ALL SELECT run_id FROM memory_itemrevision WHERE subject_id = %(subject)s
  UNION ALL SELECT source_run_id FROM memory_item WHERE subject_id = %(subject)s
  UNION ALL SELECT source_run_id FROM memory_proposal WHERE subject_id = %(subject)s
  UNION ALL SELECT run_id FROM memory_summary WHERE subject_id = %(subject)s
  UNION ALL SELECT run_id FROM memory_recallquestion WHERE subject_id = %(subject)s
  UNION ALL SELECT run_id FROM memory_progressversion WHERE progress_id IN (
    SELECT id FROM memory_progress WHERE subject_id = %(subject)s)
  UNION ALL SELECT run_id FROM memory_removed WHERE subject_id = %(subject)s
) r WHERE run_id IS NOT NULL ORDER BY run_id"""
SESSION_KEYS = """
SELECT key FROM memory_session WHERE subject_id = %(subject)s
UNION SELECT session_key FROM memory_removed WHERE subject_id = %(subject)s AND session_key IS NOT NULL ORDER BY 1"""
# Indexes: memory_injection_step, memory_message_run, memory_removed_of_run.
SHARED = """
SELECT run_id FROM memory_injection
  WHERE run_id = ANY(%(runs)s) AND subject_id <> %(subject)s
UNION SELECT run_id FROM memory_message
  WHERE run_id = ANY(%(runs)s) AND subject_id <> %(subject)s
UNION SELECT run_id FROM memory_removed
  WHERE run_id = ANY(%(runs)s) AND subject_id <> %(subject)s
ORDER BY run_id"""


@dataclass(frozen=True, slots=True)
class Reach:
    """The runs that wrote or read something of the subject, and the keys of its sessions: those of further runs.

    Those too of which retention has removed what they wrote or read.
    """

    run_ids: list[UUID]
    session_keys: list[str]


def counts(subject_id: UUID) -> dict[str, int]:
    """Rows of the subject by table; one statement."""
    parts = ", ".join(f"(SELECT count(*) FROM {table} WHERE {where})" for table, where in ROWS.items())
    found = sql.row(f"SELECT {parts}", named(subject_id))
    assert found is not None
    return dict(zip(ROWS, found, strict=True))


def reach(subject_id: UUID) -> Reach:
    run_ids = [run_id for (run_id,) in sql.rows(RUNS, {"subject": subject_id})]
    return Reach(run_ids, [key for (key,) in sql.rows(SESSION_KEYS, {"subject": subject_id})])


def shared(subject_id: UUID, run_ids: Sequence[UUID]) -> list[UUID]:
    """Which of these runs were given words of another subject, too."""
    if not run_ids:
        return []
    return [run_id for (run_id,) in sql.rows(SHARED, {"subject": subject_id, "runs": list(run_ids)})]


def named(subject_id: UUID) -> dict[str, object]:
    """The arguments of ROWS."""
    return {"subject": subject_id, "hex": subject_id.hex}
