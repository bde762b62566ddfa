"""The window of a run's scratchpad: the entries in force, folded from all its entries in the order of their numbers.

A summary stands in the place of the entries it replaces, and leaves one line of those it masks. The executor and every
store fold with this module, so their windows are the same; an entry folded twice changes nothing. What left the window
stands in the trace, word for word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agentstate.core import tokens
from agentstate.core.errors import Invalid
from agentstate.core.limits import CONTEXT_BUDGET_TOKENS_MAX, SCRATCHPAD_BYTES_MAX, SCRATCHPAD_ENTRIES_MAX
from agentstate.sdk.store import Entry

SUMMARISE = "scratchpad.summarise"  # the name of the recorded step
VERBOSE_TOKENS_MIN = 60  # a shorter result is not worth a mask
LINE_CHARS_MAX = 80  # of a masked entry's first line
NOTED_SCOPES_MAX = 1_000
_RESULTS = {"result": "result", "tool": "tool call"}


@dataclass(frozen=True, slots=True)
class Size:
    """Of entries in force, in the three measures that are bounded."""

    tokens: int = 0
    bytes: int = 0
    entries: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.tokens + other.tokens, self.bytes + other.bytes, self.entries + other.entries)

    def __sub__(self, other: Size) -> Size:
        return Size(self.tokens - other.tokens, self.bytes - other.bytes, self.entries - other.entries)

    def share(self, budget_tokens: int) -> float:
        """Of the bound that is nearest; 1.0 is full."""
        return max(
            self.tokens / budget_tokens, self.bytes / SCRATCHPAD_BYTES_MAX, self.entries / SCRATCHPAD_ENTRIES_MAX
        )


def check_budget(tokens_max: int | None) -> None:
    """Raises: Invalid, for a context budget that nobody can have meant."""
    if tokens_max is not None and not 1 <= tokens_max <= CONTEXT_BUDGET_TOKENS_MAX:
        text = f"A context budget has 1 to {CONTEXT_BUDGET_TOKENS_MAX:,} tokens."
        raise Invalid(text, field="/context_budget_tokens")


def size_of(*entries: Entry) -> Size:
    return Size(
        sum(counted(entry).tokens for entry in entries),
        sum(len(entry.text.encode("utf-8", "replace")) for entry in entries),
        len(entries),
    )


def counted(entry: Entry) -> Entry:
    """The entry with its tokens."""
    return entry if entry.tokens else replace(entry, tokens=tokens.count(entry.text))


def folded(window: Sequence[Entry], fresh: Iterable[Entry]) -> list[Entry]:
    """The window after these entries, which come in the order of their numbers."""
    entries = {entry.n: entry for entry in window}
    for entry in fresh:
        for n in entry.replaces:
            entries.pop(n, None)
        for n in entry.masks:
            if n in entries:
                entries[n] = masked(entries[n])
        if entry.kind != "summary" or entry.replaces:  # one that only masks says nothing of its own
            entries.setdefault(entry.n, counted(entry))
    return bounded(sorted(entries.values(), key=place_of))


def place_of(entry: Entry) -> int:
    return entry.place or entry.n


def is_verbose(entry: Entry) -> bool:
    """A result that one line can stand for."""
    wordy = entry.kind in _RESULTS and entry.tokens >= VERBOSE_TOKENS_MIN
    return wordy and not entry.important and not entry.masked


def masked(entry: Entry) -> Entry:
    if entry.masked:
        return entry
    entry = counted(entry)
    source = f" of step {entry.step_seq}" if entry.step_seq else ""
    first = entry.text.strip().partition("\n")[0].strip()
    line = first if len(first) <= LINE_CHARS_MAX else first[: LINE_CHARS_MAX - 1] + "…"
    text = f"{_RESULTS.get(entry.kind, entry.kind)}{source}, {entry.tokens:,} tokens, masked: {line}"
    return replace(entry, text=text, tokens=tokens.count(text), masked=True)


def bounded(window: list[Entry]) -> list[Entry]:
    """What nobody summarised in time leaves the window: the oldest that is not important, then the oldest."""
    size = sum(len(entry.text) for entry in window)  # characters: nearly always enough to see that all is well
    if len(window) <= SCRATCHPAD_ENTRIES_MAX and size * 4 <= SCRATCHPAD_BYTES_MAX:
        return window
    measure = size_of(*window)
    gone: set[int] = set()
    for entry in sorted(window, key=lambda entry: (entry.important, place_of(entry))):
        if measure.entries <= SCRATCHPAD_ENTRIES_MAX and measure.bytes <= SCRATCHPAD_BYTES_MAX:
            break
        measure -= size_of(entry)
        gone.add(entry.n)
    return [entry for entry in window if entry.n not in gone]


def noted_after(noted: Mapping[str, int], fresh: Iterable[Entry]) -> dict[str, int]:
    """How many entries main has written in each of its scopes, after these."""
    found = dict(noted)
    for entry in fresh:
        scope, _, number = entry.identity.rpartition("#")
        if number.isdecimal() and len(number) < 10:
            found[scope] = max(int(number), found.get(scope, 0))
    while len(found) > NOTED_SCOPES_MAX:
        found.pop(next(iter(found)))
    return found
