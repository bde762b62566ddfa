"""What is known about a call in doubt, in its order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from agentstate.audit import history

WORDS = {
    "step.in_doubt": "No answer came back; the run stopped here",
    "step.started_again": "Called again with the same key: its class allows it",
    "step.in_doubt_again": "Called again: a person had said it did not happen",
    "step.retried": "Called anew after a definite failure, with a new key",
    "effect.happened": "A person said: it happened",
    "effect.did_not_happen": "A person said: it did not happen",
    "effect.give_up": "A person gave the step up",
    "effect.settled": "The tool's answer was recorded",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    at: datetime
    words: str
    who: str
    why: str
    doubt: bool


def evidence(run_id: UUID, seq: int) -> list[Evidence]:
    """The acts on this step, from the run's chain, oldest first."""
    found = history.of("run", run_id).filter(detail__seq=seq).exclude(action="effect.claimed")[:100]
    return [
        Evidence(
            entry.at,
            WORDS.get(entry.action, entry.action.replace(".", " ").replace("_", " ")),
            entry.actor_name or entry.actor_kind,
            str((entry.detail or {}).get("why", "")),
            entry.action.endswith("in_doubt"),
        )
        for entry in found
    ]
