"""The recorded steps of the open generation, and how the agent's questions are held against them."""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict, deque
from collections.abc import Sequence

from agentstate.core.limits import GENERATION_STEPS_MAX, GENERATION_STEPS_WARN
from agentstate.sdk.identity import scope_of
from agentstate.sdk.signals import Diverged, Ended
from agentstate.sdk.store import End, Failure, StepRecord

_OVER = ("done", "failed", "rejected", "skipped")


class Book:
    """What was recorded, and which of it the agent has asked for in this process."""

    def __init__(self, history: Sequence[StepRecord], *, run_id: str) -> None:
        self._run_id = run_id
        self._warned = False
        summaries = [record for record in history if record.kind == "summary"]  # main does not ask for these
        history = [record for record in history if record.kind != "summary"]
        self._open_summary = next((record for record in summaries if record.status == "started"), None)
        self._records = {record.identity: record for record in history}
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._unasked: dict[str, deque[StepRecord]] = defaultdict(deque)  # by scope, in the order of starting
        for record in sorted(history, key=lambda record: record.seq):
            self._unasked[scope_of(record.identity)].append(record)
        self._latest = {record.name: record.seq for record in sorted(history, key=lambda record: record.seq)}
        self._fresh = 0  # steps that were not recorded before

    def ask(self, identity: str) -> None:
        """The agent has named this step; called when the name is reserved, before anything of it runs."""
        with self._lock:
            if identity in self._asked:
                return
            self._asked.add(identity)
            if identity not in self._records:
                self._fresh += 1

    def find(self, identity: str) -> StepRecord | None:
        return self._records.get(identity)

    def has_unasked(self, scope: str) -> bool:
        return self._first_unasked(scope) is not None

    def open_summary(self) -> StepRecord | None:
        """A summary that a lost worker had begun."""
        return self._open_summary

    def close_summary(self) -> None:
        self._open_summary = None

    def remember_seq(self, name: str, seq: int) -> None:
        with self._lock:
            self._latest[name] = max(seq, self._latest.get(name, 0))

    def seq_of(self, name: str) -> int:
        """Of the latest call of that name. Raises: ValueError when there was none."""
        if name not in self._latest:
            raise ValueError(f"{name} was not called yet, it cannot be evidence.")
        return self._latest[name]

    def check_count(self) -> None:
        """Raises: Ended when one more step would be more than a generation may have."""
        count = len(self._records) + self._fresh
        if count >= GENERATION_STEPS_MAX:
            text = (
                f"The generation has {count:,} steps, and no more fit. Close it with st.continue_from(state) in time."
            )
            raise Ended(End("failed", failure=Failure("GenerationTooLong", text)))
        if count >= GENERATION_STEPS_WARN and not self._warned:
            self._warned = True
            text = f"{count:,} steps in one generation; each resume goes through them. Use st.continue_from(state)."
            warnings.warn(f"{self._run_id}: {text}", stacklevel=5)

    def check_payload(self, identity: str, payload_sha: str) -> None:
        """Raises: Diverged when the recorded call had other arguments."""
        record = self._records.get(identity)
        if record is not None and record.payload_sha != payload_sha:
            raise Diverged(f"{identity} was recorded with other arguments than the agent gives it now.")

    def check_expected(self, identity: str, *, scope: str, shared: bool) -> None:
        """Raises: Diverged when steps of the scope that were recorded before this one were not asked for yet.

        Where several tasks name steps in one scope the order is their own affair and only `check_complete` holds.
        """
        skipped = None if shared else self._first_unasked(scope)
        record = self._records.get(identity)
        if skipped is not None and (record is None or skipped.seq < record.seq):
            raise Diverged(f"The agent asks for {identity}, but {skipped.identity} was recorded at this place.")

    def check_complete(self, scope: str = "") -> None:
        """Raises: Diverged when code has ended without asking for all steps recorded below it."""
        for identity in self._in_order():
            if identity not in self._asked and _is_below(identity, scope) and not self._is_covered(identity):
                raise Diverged(f"{identity} was recorded, but the agent ended without asking for it.")

    def failed_below(self, record: StepRecord) -> tuple[int, ...]:
        """The recorded steps that failed by the same, from the innermost to this one."""
        below = [
            found
            for identity, found in self._records.items()
            if _is_below(identity, record.identity) and found.status == "failed" and found.failure == record.failure
        ]
        last = max(below, key=lambda found: found.seq, default=record)
        chain = [last.seq]
        while last.identity != record.identity:
            above = scope_of(last.identity)
            while above not in self._records:  # a branch of a gather is no step
                above = scope_of(above)
            last = self._records[above]
            chain.append(last.seq)
        return tuple(chain)

    def _first_unasked(self, scope: str) -> StepRecord | None:
        with self._lock:
            records = self._unasked.get(scope)
            while records and records[0].identity in self._asked:
                records.popleft()
            return records[0] if records else None

    def _in_order(self) -> list[str]:
        return sorted(self._records, key=lambda identity: self._records[identity].seq)

    def _is_covered(self, identity: str) -> bool:
        """Below a step that is over, nothing is asked for again."""
        above = scope_of(identity)
        while above:
            record = self._records.get(above)
            if record is not None and record.status in _OVER:
                return True
            above = scope_of(above)
        return False


def _is_below(identity: str, scope: str) -> bool:
    return not scope or identity.startswith(scope + "/")
