"""What a run has to do with memory: whose session it works in, and what its steps were given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agentstate.core.ids import public_id
from memory.selectors import ledger, listing
from memory.selectors.ledger import Line
from memory.selectors.listing import Spoken


@dataclass(frozen=True, slots=True)
class Given:
    """What one step was given, word for word, in its order."""

    lines: list[Line]

    @property
    def tokens(self) -> int:
        return sum(line.tokens for line in self.lines)

    def plain(self) -> list[dict[str, Any]]:
        return [{**_plain(line), "source_id": line.public_id} for line in self.lines]


def of_run(run_id: UUID, session_key: str) -> Spoken | None:
    """The session that a run speaks in, and with whom; None when it has opened none. One read."""
    return listing.session_of(session_key or public_id("run", run_id))


def of_step(run_id: UUID, seq: int) -> Given:
    return Given(ledger.of_step(run_id, seq))


def _plain(line: Line) -> dict[str, Any]:
    return {name: getattr(line, name) for name in ("position", "part", "source", "version", *_MORE)}


_MORE = ("text", "gone", "tokens", "score", "scores", "masked")
