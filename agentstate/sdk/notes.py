"""Scratchpad entries of one claim: numbered by their only writer, written once although main runs again."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from agentstate.core import clock
from agentstate.core.limits import ENTRY_BYTES_MAX
from agentstate.sdk.store import Claim, Entry


class Notebook:
    def __init__(self, claim: Claim) -> None:
        self._lock = threading.Lock()
        self._next = claim.entry_next
        self._known = Counter((entry.kind, entry.text) for entry in claim.entries if entry.step_seq is None)

    def pass_over(self, text: str, *, kind: Any) -> None:
        """Main says again what stands before recorded steps."""
        with self._lock:
            self._known[kind, _cut(text)] -= 1

    def entry(self, text: str, *, kind: Any, important: bool, step_seq: int | None) -> Entry | None:
        """The next entry; None for one of main that an earlier claim has written already."""
        text = _cut(text)
        with self._lock:
            if step_seq is None and self._known[kind, text] > 0:
                self._known[kind, text] -= 1
                return None
            number, self._next = self._next, self._next + 1
        return Entry(number, kind, text, at=clock.now(), important=important, step_seq=step_seq)


def _cut(text: str) -> str:
    """Text as every store can hold it, at most ENTRY_BYTES_MAX of UTF-8."""
    raw = text.replace("\0", "").encode("utf-8", "replace")
    if len(raw) <= ENTRY_BYTES_MAX:
        return raw.decode()
    return raw[: ENTRY_BYTES_MAX - 4].decode("utf-8", "ignore") + "…"
