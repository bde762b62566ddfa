"""How a full window becomes a small one: what is masked, what a summary replaces, and the summary's text.

Verbose results are masked first, oldest first. When that is not enough, the oldest entries that are not important give
way to one summary: an earlier summary may keep its length in it, other entries a quarter of theirs, all together at
most a sixth of the budget. Of masked lines only those give way that are too many, or that are all there is. Important
entries are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentstate.core import extract, tokens
from agentstate.core.limits import ENTRY_BYTES_MAX, SCRATCHPAD_BYTES_MAX, SUMMARISE_TO_SHARE
from agentstate.sdk.store import Entry
from agentstate.sdk.window import Size, is_verbose, masked, place_of, size_of

SUMMARY_SHARE = 0.25  # of the tokens that a summary replaces
SUMMARY_OF_BUDGET = 0.15
LINES_OF_BUDGET = 0.15  # masked lines beyond it give way to a summary, oldest first
GAIN_MIN = 0.02  # of the budget; for less nothing is touched
HEAD_TOKENS = 16  # "Summary of entries 3 to 5799:"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with a window; nothing when neither masks nor replaced entries are named."""

    masks: tuple[Entry, ...]
    replaces: tuple[Entry, ...]
    summary_tokens_max: int
    before: Size

    def __bool__(self) -> bool:
        return bool(self.masks or self.replaces)

    @property
    def source(self) -> str:
        """What is summarised, as one text."""
        return "\n".join(entry.text for entry in self.replaces)


def plan(window: Sequence[Entry], *, budget_tokens: int) -> Plan:
    """`window` in its order, with counted tokens."""
    before = size = size_of(*window)
    masks: dict[int, Entry] = {}
    for entry in window:
        if size.share(budget_tokens) <= SUMMARISE_TO_SHARE:
            break
        line = masked(entry) if is_verbose(entry) else entry
        if line.tokens < entry.tokens:
            masks[entry.n] = line
            size = size - size_of(entry) + size_of(line)
    replaced: list[Entry] = []
    allowed = Size()  # of the summary
    for entry in _candidates([masks.get(entry.n, entry) for entry in window], budget_tokens):
        if (size + allowed).share(budget_tokens) <= SUMMARISE_TO_SHARE:
            break
        replaced.append(entry)
        size -= size_of(entry)
        allowed = _allowed(allowed, entry, budget_tokens)
    if before.share(budget_tokens) - (size + allowed).share(budget_tokens) < GAIN_MIN:
        return Plan((), (), 0, before)
    gone = {entry.n for entry in replaced}
    return Plan(
        masks=tuple(entry for n, entry in masks.items() if n not in gone),
        replaces=tuple(sorted(replaced, key=place_of)),
        summary_tokens_max=_room(allowed, size, budget_tokens),
        before=before,
    )


def entry_of(plan: Plan, n: int, text: str) -> Entry:
    """The entry that does what was planned. `text`: of the summary, without its head."""
    numbers = [entry.n for entry in plan.replaces]
    masks = [entry.n for entry in plan.masks]
    if not numbers:
        words = f"{len(masks)} results masked; their full text stands in the trace."
        return Entry(n, "summary", words, masks=masks)
    place = place_of(plan.replaces[0])
    whole = _cut(f"Summary of entries {place} to {max(numbers)}:\n{text}".rstrip(":\n"))
    return Entry(n, "summary", whole, place=place, replaces=numbers, masks=masks)


def extracted(plan: Plan) -> str:
    """The sentences of the replaced entries that say most."""
    texts = [_body(entry) for entry in plan.replaces]
    found = extract.extract(texts, tokens_max=plan.summary_tokens_max, count=tokens.count)
    return "\n".join(sentence for _, sentence in found)


def shortened(text: str, *, tokens_max: int) -> str:
    """A summary that came out too long."""
    found = extract.extract([text], tokens_max=tokens_max, count=tokens.count)
    return "\n".join(sentence for _, sentence in found)


def _body(entry: Entry) -> str:
    """An earlier summary without its head."""
    return entry.text.partition("\n")[2] if entry.kind == "summary" else entry.text


def _candidates(lines: Sequence[Entry], budget_tokens: int) -> list[Entry]:
    """What may give way to a summary, in the order of giving way."""
    old_lines, left = [], sum(entry.tokens for entry in lines if entry.masked)
    for entry in lines:
        if entry.masked and not entry.important and left > LINES_OF_BUDGET * budget_tokens:
            old_lines.append(entry)
            left -= entry.tokens
    too_many = {entry.n for entry in old_lines}
    others = [entry for entry in lines if not entry.important and entry.n not in too_many]
    return old_lines + sorted(others, key=lambda entry: entry.masked)  # stable: the oldest first


def _allowed(allowed: Size, entry: Entry, budget_tokens: int) -> Size:
    """What the summary may take up when it replaces this entry as well."""
    share = 1.0 if entry.kind == "summary" else SUMMARY_SHARE
    more = size_of(entry)
    tokens_max = int(SUMMARY_OF_BUDGET * budget_tokens)
    return Size(
        min((allowed.tokens or HEAD_TOKENS) + int(more.tokens * share), max(tokens_max, HEAD_TOKENS)),
        min(allowed.bytes + int(more.bytes * share), ENTRY_BYTES_MAX),
        1,
    )


def _room(allowed: Size, kept: Size, budget_tokens: int) -> int:
    """Tokens for the text of the summary: what its source allows, and what the kept entries leave."""
    left = int(budget_tokens * SUMMARISE_TO_SHARE) - kept.tokens
    left_bytes = int(SCRATCHPAD_BYTES_MAX * SUMMARISE_TO_SHARE) - kept.bytes
    return max(0, min(allowed.tokens, left, left_bytes // 4, ENTRY_BYTES_MAX // 4) - HEAD_TOKENS)


def _cut(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= ENTRY_BYTES_MAX else raw[: ENTRY_BYTES_MAX - 4].decode("utf-8", "ignore") + "…"
