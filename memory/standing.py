"""How the runs stand that used a memory. This tier knows no runs: whoever does registers how to look them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from agentstate.core.ids import public_id


@dataclass(frozen=True, slots=True)
class RunStanding:
    run_id: UUID
    agent: str
    status: str  # as pages show it
    is_open: bool  # will recall again, perhaps
    asks: bool  # waits for an approval

    @property
    def public_id(self) -> str:
        return public_id("run", self.run_id)


Lookup = Callable[[Sequence[UUID]], list[RunStanding]]
OpenSessions = Callable[[Sequence[str]], set[str]]
_lookups: list[Lookup] = []
_open_sessions: list[OpenSessions] = []


def provide(lookup: Lookup, open_sessions: OpenSessions) -> None:
    """Called once, at start, by the tier that has the runs."""
    _lookups[:], _open_sessions[:] = [lookup], [open_sessions]


def of(run_ids: Sequence[UUID]) -> list[RunStanding]:
    """Those of these runs that are still there: open ones first, then the newest. Without a provider: none."""
    if not run_ids or not _lookups:
        return []
    order = {run_id: place for place, run_id in enumerate(run_ids)}
    return sorted(_lookups[0](run_ids), key=lambda run: (not run.asks, not run.is_open, order[run.run_id]))


def open_sessions(keys: Sequence[str]) -> set[str]:
    """Those of these keys of sessions under which a run is open. Without a provider: none."""
    return _open_sessions[0](keys) if keys and _open_sessions else set()
