"""The scratchpad of one claim: entries numbered by their only writer, and the window that is kept inside its budget.

A summary is recorded: its step, its entry and so the smaller window are one turn, or nothing of them is. At a takeover
the window comes as it was recorded, so nothing is summarised twice. After a summary the window has to grow again by a
tenth of the budget before the next one, or important entries that alone are over it would bring one with every note.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentstate.core import clock
from agentstate.core.limits import ENTRY_BYTES_MAX, SCRATCHPAD_BYTES_MAX, SCRATCHPAD_ENTRIES_MAX, SUMMARISE_AT_SHARE
from agentstate.sdk import summaries, window
from agentstate.sdk.deferred import Deferred
from agentstate.sdk.store import Claim, Entry, EntryKind, StepFinish, StepStart, Usage
from agentstate.sdk.summaries import Plan
from agentstate.sdk.window import SUMMARISE

GROWTH = 0.1  # of the budget, from one summary to the next
log = logging.getLogger("agentstate.sdk")


class Notebook:
    """Thread-safe. What it writes rides in the next turn, in the order of the numbers."""

    def __init__(self, claim: Claim, deferred: Deferred) -> None:
        self.budget_tokens = max(1, claim.context_budget_tokens)
        self._run_id = claim.run_id
        self._deferred = deferred
        self._lock = threading.RLock()
        self._next = claim.entry_next
        self._window = window.folded((), claim.entries)
        self._size = window.size_of(*self._window)
        self._floor = 0.0  # share of the budget that the last summary left
        self._noted: Mapping[str, int] = claim.noted
        self._warned = False

    def open_next(self) -> None:
        """A new generation: main writes from its beginning."""
        with self._lock:
            self._noted = {}

    def is_written(self, identity: str) -> bool:
        """An earlier claim has written this entry of main already."""
        scope, _, number = identity.rpartition("#")
        return int(number) <= self._noted.get(scope, 0)

    def write(
        self,
        text: str,
        *,
        kind: EntryKind,
        important: bool,
        step_seq: int | None,
        identity: str = "",
        shorten: bool = False,
    ) -> None:
        """`shorten`: at once when it is due, before anybody else adds to the window."""
        text = _cut(text)
        entry = Entry(0, kind, text, clock.now(), important, step_seq, identity=identity)
        entry = window.counted(entry)
        with self._lock:
            entry = replace(entry, n=self._number())
            self._fold(entry)
            self._deferred.add_entry(entry)
            if shorten:
                self.shorten()

    @property
    def share(self) -> float:
        """Of the budget that the window fills."""
        return self._size.share(self.budget_tokens)

    @property
    def is_due(self) -> bool:
        limit = self._floor + GROWTH
        if self._floor < 1.0:
            limit = min(limit, 1.0)
        return self.share > max(SUMMARISE_AT_SHARE, limit)

    def entries(self) -> tuple[Entry, ...]:
        """In force, in their order."""
        with self._lock:
            return tuple(self._window)

    def plan(self) -> tuple[Plan, int]:
        """What a summary would do now, and the number that its entry would have."""
        with self._lock:
            return summaries.plan(self._window, budget_tokens=self.budget_tokens), self._next

    def shorten(self, *, why: str = "") -> None:
        """Summarise now, by extracts, if it is due. `why`: a model was to do it."""
        with self._lock:
            if not self.is_due:
                return
            plan, number = self.plan()
            if self._is_futile(plan):
                return
            text = summaries.extracted(plan) if plan.replaces else ""
            entry, output = self._summary(plan, text, method="extract", why=why)
            self._deferred.add_summary(entry, start=_step(f"{SUMMARISE}:{number}", output))

    def finish(self, seq: int, plan: Plan, text: str | None, *, why: str = "", usage: Usage | None = None) -> None:
        """A model's summary of what was planned, as the end of its step. `text` None: it has none, `why` says it."""
        with self._lock:
            if not self._still_stands(plan):  # the window had to be shortened meanwhile
                output: dict[str, Any] = {"method": "none", "why": why or "the window was summarised meanwhile"}
                self._deferred.add_finish(StepFinish(seq, output=output, usage=usage))
                return
            method = "extract" if text is None else "model"
            text = summaries.extracted(plan) if text is None else text
            entry, output = self._summary(plan, text, method=method, why=why)
            self._deferred.add_summary(entry, finish=StepFinish(seq, output=output, usage=usage))

    # Pieces; the lock is held

    def _number(self) -> int:
        number, self._next = self._next, self._next + 1
        return number

    def _fold(self, entry: Entry) -> None:
        if entry.replaces or entry.masks:
            self._window = window.folded(self._window, [entry])
            self._size = window.size_of(*self._window)
            return
        self._size += window.size_of(entry)
        self._window.append(entry)
        if self._size.entries > SCRATCHPAD_ENTRIES_MAX or self._size.bytes > SCRATCHPAD_BYTES_MAX:
            self._window = window.bounded(self._window)
            self._size = window.size_of(*self._window)

    def _summary(self, plan: Plan, text: str, *, method: str, why: str) -> tuple[Entry, dict[str, Any]]:
        entry = summaries.entry_of(plan, self._number(), text)
        entry = window.counted(replace(entry, at=clock.now()))
        self._fold(entry)
        self._floor = self.share
        self._warn()
        output = {
            "entry": entry.n,
            "method": method,
            "why": why,
            "replaced": list(entry.replaces),
            "masked": list(entry.masks),
            "tokens_before": plan.before.tokens,
            "tokens_after": self._size.tokens,
            "budget_tokens": self.budget_tokens,
            "text": entry.text,
        }
        return entry, output

    def _is_futile(self, plan: Plan) -> bool:
        """Nothing may be touched: important entries fill the window. No further try before it has grown."""
        if plan:
            return False
        self._floor = self.share
        self._warn()
        return True

    def _still_stands(self, plan: Plan) -> bool:
        known = {entry.n: entry for entry in self._window}
        whole = all(entry.n in known for entry in plan.replaces)
        return bool(plan) and whole and all(entry.n in known and not known[entry.n].masked for entry in plan.masks)

    def _warn(self) -> None:
        important = window.size_of(*(entry for entry in self._window if entry.important))
        if self._warned or important.share(self.budget_tokens) <= 1.0:
            return
        self._warned = True
        log.warning(
            "%s: its important entries alone have %d tokens, over the context budget of %d; they stay word for word",
            self._run_id,
            important.tokens,
            self.budget_tokens,
        )


def _step(identity: str, output: Mapping[str, Any]) -> StepStart:
    """A step that is over already."""
    return StepStart(identity, SUMMARISE, "summary", attempt=1, result=StepFinish(0, output=output))


def _cut(text: str) -> str:
    """Text as every store can hold it, at most ENTRY_BYTES_MAX of UTF-8."""
    raw = text.replace("\0", "").encode("utf-8", "replace")
    if len(raw) <= ENTRY_BYTES_MAX:
        return raw.decode()
    return raw[: ENTRY_BYTES_MAX - 4].decode("utf-8", "ignore") + "…"


def plain_of(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Entries as a value that can be recorded."""
    return [
        {
            "n": entry.n,
            "kind": entry.kind,
            "text": entry.text,
            "at": entry.at.isoformat() if entry.at else None,
            "important": entry.important,
            "step_seq": entry.step_seq,
            "tokens": entry.tokens,
            "masked": entry.masked,
        }
        for entry in entries
    ]
