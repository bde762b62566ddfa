"""What is known about a call in doubt: when "it did not happen" may be said, and the evidence in its order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from agentstate.audit import history
from runs.models import Step
from runs.selectors.steps import StepDetail
from runs.services import waiting_times

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


def opens_at(step: StepDetail) -> datetime:
    """From when on "it did not happen" may be said: the service's own rule, on what the page has read already."""
    known = Step(call_by=step.call_by, started_at=step.row.started_at, timeout_s=step.timeout_s)
    return waiting_times.did_not_happen_opens_at(known, dead_at=step.worker_dead_at)


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
