"""What a run has to do with memory: whose session it works in, and what its steps were given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agentstate.core.ids import public_id
from memory.selectors import ledger, listing, removed
from memory.selectors.ledger import Line
from memory.selectors.listing import Spoken

READING = ("memory.context", "memory.recall")  # steps that are given something


@dataclass(frozen=True, slots=True)
class Given:
    """What one step was given, word for word, in its order. `removed_before`: retention has removed it."""

    lines: list[Line]
    removed_before: datetime | None = None

    @property
    def tokens(self) -> int:
        return sum(line.tokens for line in self.lines)

    def plain(self) -> list[dict[str, Any]]:
        return [{**_plain(line), "source_id": line.public_id} for line in self.lines]


def of_run(run_id: UUID, session_key: str) -> Spoken | None:
    """The session that a run speaks in, and with whom; None when it has opened none. Two reads."""
    return listing.session_of(session_key or public_id("run", run_id))


def of_step(run_id: UUID, seq: int, *, name: str, at: datetime) -> Given:
    """`name`, `at`: of the step. A reading step has lines unless memory was empty; retention may have removed them."""
    lines = ledger.of_step(run_id, seq)
    before = removed.lines_before() if not lines and name in READING else None
    return Given(lines, before if before is not None and at < before else None)


def _plain(line: Line) -> dict[str, Any]:
    return {name: getattr(line, name) for name in ("position", "part", "source", "version", *_MORE)}


_MORE = ("text", "gone", "tokens", "score", "scores", "masked")
