"""What rides in the next turn: ended steps, recorded reads, scratchpad entries, and the state that goes with them.

A result that the next step's start can carry costs no round trip of its own. Nothing is dropped before the service has
taken it: `load` shows what is there, `unload` removes it after the turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentstate.sdk.run_state import Change, Committed, View
from agentstate.sdk.store import UNCHANGED, Entry, StepFinish, StepStart


@dataclass(frozen=True, slots=True)
class Load:
    finish: tuple[StepFinish, ...]
    reads: tuple[StepStart, ...]
    entries: tuple[Entry, ...]
    state: Any

    @property
    def is_empty(self) -> bool:
        return not (self.finish or self.reads or self.entries) and self.state is UNCHANGED


class Deferred:
    def __init__(self, state: Committed, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._finish: list[StepFinish] = []
        self._reads: list[StepStart] = []
        self._entries: list[Entry] = []
        self._shown = 0  # entries the live scratchpad has
        self.since: float | None = None  # monotonic time of the oldest finish or read

    def add_finish(self, finish: StepFinish, *, view: View | None = None, change: Change | None = None) -> None:
        """A result and what its step did to the state, in one go."""
        with self._lock:
            self._finish.append(finish)
            if view is not None and change:
                view.commit(change)
            self._stamp()

    def add_read(self, start: StepStart) -> None:
        with self._lock:
            self._reads.append(start)
            self._stamp()

    def add_entry(self, entry: Entry) -> None:
        with self._lock:
            self._entries.append(entry)
            self._stamp()

    def add_summary(self, entry: Entry, *, start: StepStart | None = None, finish: StepFinish | None = None) -> None:
        """A summary and its step, in one go: no turn carries only one of them."""
        with self._lock:
            self._entries.append(entry)
            if start is not None:
                self._reads.append(start)
            if finish is not None:
                self._finish.append(finish)
            self._stamp()

    def rebase(self, state: Committed) -> None:
        """A new generation has begun; what belonged to the last one is committed."""
        with self._lock:
            self._state = state

    def unshown(self) -> tuple[Entry, ...]:
        """Entries the live scratchpad has not got yet; they count as shown from now on.

        None from the first summary on: it is shown when its step is recorded, by the turn that carries both.
        """
        with self._lock:
            places = (place for place, entry in enumerate(self._entries) if entry.kind == "summary")
            end = next(places, len(self._entries))
            entries = tuple(self._entries[self._shown : end])
            self._shown = max(self._shown, end)
            return entries

    def load(self) -> Load:
        with self._lock:
            state = self._state.snapshot() if self._state.dirty else UNCHANGED
            self._state.dirty = False
            return Load(tuple(self._finish), tuple(self._reads), tuple(self._entries), state)

    def unload(self, load: Load) -> None:
        """The service has it."""
        with self._lock:
            del self._finish[: len(load.finish)]
            del self._reads[: len(load.reads)]
            del self._entries[: len(load.entries)]
            self._shown = max(0, self._shown - len(load.entries))
            self.since = None
            if self._finish or self._reads or self._entries:
                self._stamp()

    def keep(self, load: Load) -> None:
        """The service has not taken it: the state must ride again."""
        if load.state is not UNCHANGED:
            self._state.dirty = True

    def _stamp(self) -> None:
        if self.since is None:
            self.since = self._monotonic()
