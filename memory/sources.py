"""Where something remembered comes from: the run, the step and the messages that led to it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Source:
    """`key` is the idempotency key of the step that writes: with it the same write is done once."""

    run_id: UUID | None = None
    step_seq: int | None = None
    message_ids: tuple[UUID, ...] = ()
    key: str | None = None
