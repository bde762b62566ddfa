"""What memory holds of a case that remembers, read as a person's pages read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agentstate.core.ids import public_id
from agentstate.db import sql
from agentstate.dev.drill import people
from agentstate.tenants.scope import tenant_scope
from memory.selectors import ledger, listing, messages, review
from memory.selectors import sessions as session_reads
from memory.selectors.shelf import ItemFilter
from memory.services import subjects
from runs.selectors import story

ROWS_MAX = 50
READS = """
SELECT s.seq, s.name, s.attempt, (SELECT count(DISTINCT l.call_id) FROM memory_injection l
  WHERE l.run_id = s.run_id AND l.step_seq = s.seq)
FROM runs_step s WHERE s.run_id = %s AND s.name IN ('memory.context', 'memory.recall') ORDER BY s.seq
"""


@dataclass(frozen=True, slots=True)
class Given:
    """One read of memory: how often it was begun and entered into the ledger, and what the newest entry gave."""

    name: str
    attempts: int
    calls: int
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Remembered:
    """`said`: what stands in the session, by its numbers. `answer`: the run's output."""

    said: list[tuple[int, str, str]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    proposed: list[str] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    answer: Any = None


def of(case_id: str, run_id: UUID, *, tenant_id: UUID) -> Remembered:
    found: Remembered = people.persist(lambda: _read(case_id, run_id, tenant_id))
    return found


def _read(case_id: str, run_id: UUID, tenant_id: UUID) -> Remembered:
    with tenant_scope(tenant_id):
        subject = subjects.find(external_id=case_id)
        if subject is None:
            return Remembered()
        [session] = session_reads.of_subject(subject.id).rows
        items = listing.page(subject.id, ItemFilter(), after="", rows_max=ROWS_MAX).rows
        return Remembered(
            [(row.seq, row.role, row.text) for row in messages.tail(session.id, 10_000)],
            [row.text for row in items],
            [row.body["text"] for row in review.page(subject_id=subject.id).rows],
            [_given(run_id, row) for row in sql.rows(READS, [run_id])],
            story.bodies(story.find(public_id("run", run_id))).output,
        )


def _given(run_id: UUID, row: tuple[Any, ...]) -> Given:
    seq, name, attempts, calls = row
    return Given(name, attempts, calls, [line.text for line in ledger.of_step(run_id, seq)])
