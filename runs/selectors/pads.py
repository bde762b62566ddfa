"""The scratchpad of a run as people see it: its window, how full it is, what left it, and each entry whole.

Masking and summarising change the window only, so everything here that left it is read from the trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentstate.core import canonical
from agentstate.core.errors import NotFound
from agentstate.core.limits import SCRATCHPAD_BYTES_MAX, SCRATCHPAD_ENTRIES_MAX, SUMMARISE_AT_SHARE
from agentstate.db import sql
from agentstate.sdk.window import Size
from agentstate.tenants.scope import current_tenant
from checkpoints import keys, reading
from runs import scratchpad, sealing
from runs.selectors import budgets
from runs.selectors.budgets import ContextBudget
from runs.selectors.story import RunStory

SUMMARIES_MAX = 500
STEPS_BACK_MAX = 20_000

# The primary key (run_id, seq), backwards over the newest steps.
SUMMARIES = f"""
select s.seq, s.generation, s.identity, s.output, s.ended_at, s.model, s.tokens_in + s.tokens_out, s.cost
from runs_step s where s.run_id = %s and s.seq > %s and s.kind = 'summary' and s.status = 'done'
order by s.seq desc limit {SUMMARIES_MAX}
"""

# The partition's primary key (month, run_id, seq): an entry is an event, so entry n has no lower number than n.
ENTRY = """
select e.body, e.at from runs_event e where e.month = %s and e.run_id = %s and e.seq >= %s and e.kind = 'entry'
  and e.detail->>'n' = %s order by e.seq limit 1
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """One recorded summary."""

    step_seq: int
    at: datetime
    entry: int
    method: str  # extract | model | none
    why: str
    replaced: Sequence[int]
    masked: Sequence[int]
    tokens_before: int
    tokens_after: int
    model: str = ""
    tokens: int = 0  # of the model's call
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the entries that are not in the window any more."""

    summaries: Sequence[Summary] = ()  # newest first
    whole: bool = True  # False: there are more than are read

    @property
    def times(self) -> int:
        return len(self.summaries)

    @property
    def replaced(self) -> int:
        return sum(len(each.replaced) for each in self.summaries)

    @property
    def masked(self) -> int:
        return sum(len(each.masked) for each in self.summaries)

    @property
    def written(self) -> int:
        """Entries that stand for replaced ones."""
        return sum(bool(each.replaced) for each in self.summaries)

    @property
    def tokens_freed(self) -> int:
        return sum(each.tokens_before - each.tokens_after for each in self.summaries)


@dataclass(frozen=True, slots=True)
class Pad:
    entries: list[dict[str, Any]]
    live: bool  # from Redis; else from the newest checkpoint
    budget: ContextBudget
    account: Account = field(default_factory=Account)

    @property
    def size(self) -> Size:
        return _size(self.entries)

    @property
    def important(self) -> Size:
        return _size([entry for entry in self.entries if entry.get("important")])

    @property
    def tokens(self) -> int:
        return self.size.tokens

    @property
    def share(self) -> float:
        """Of the budget, or of the scratchpad's own bounds when one of those is nearer."""
        return self.size.share(self.budget.tokens)

    @property
    def bound(self) -> str:
        """What is nearest to its end: tokens, bytes or entries."""
        parts = {
            "tokens": self.size.tokens / self.budget.tokens,
            "bytes": self.size.bytes / SCRATCHPAD_BYTES_MAX,
            "entries": self.size.entries / SCRATCHPAD_ENTRIES_MAX,
        }
        return max(parts, key=lambda name: parts[name])

    @property
    def is_over(self) -> bool:
        """Important entries alone are more than the budget; nothing can be done about it here."""
        return self.important.share(self.budget.tokens) > 1.0

    @property
    def tokens_noted(self) -> int:
        """In force, and what masks and summaries freed."""
        return self.tokens + self.account.tokens_freed

    @property
    def summarise_at_tokens(self) -> int:
        return int(self.budget.tokens * SUMMARISE_AT_SHARE)


@dataclass(frozen=True, slots=True)
class EntryPage:
    """One entry, word for word, and what became of it."""

    entry: dict[str, Any]
    in_window: bool
    masked: bool
    gone_into: int | None  # the summary that replaced it


def read(run: RunStory) -> Pad:
    """The live window while the run goes on; after it, or with Redis wiped, the one in the newest checkpoint.

    Raises: Corrupt.
    """
    tenant_id = current_tenant()
    entries = None if run.over else scratchpad.read(tenant_id, run.id, keys.existing(run.id))
    live = entries is not None
    if entries is None:
        newest = reading.newest(tenant_id, run.id)
        entries = list(newest.doc.get("scratchpad", [])) if newest else []
    shown = [{**entry, "at": _moment(entry.get("at"))} for entry in entries]
    return Pad(shown, live, budgets.context(run.id), account(run))


def account(run: RunStory) -> Account:
    """Raises: Corrupt."""
    after = max(0, run.steps - STEPS_BACK_MAX)
    found = sql.rows(SUMMARIES, [run.id, after])
    key = keys.existing(run.id) if found else b""
    opened = [_summary(run, key, row) for row in found]
    summaries = [each for each in opened if each.entry]
    return Account(summaries, whole=len(found) < SUMMARIES_MAX and after == 0)


def entry_page(run: RunStory, n: int) -> EntryPage:
    """Raises: NotFound, Corrupt."""
    pad = read(run)
    shown = {int(entry["n"]): entry for entry in pad.entries}.get(n)
    entry = _traced(run, n)
    if entry is None and shown is not None and not shown.get("masked"):
        entry = shown  # shown, and not durable yet
    if entry is None:
        raise NotFound(f"This run has no scratchpad entry {n}.")
    gone_into = next((each.entry for each in pad.account.summaries if n in each.replaced), None)
    return EntryPage(entry, shown is not None, bool(shown and shown.get("masked")), gone_into)


def plain(pad: Pad) -> dict[str, Any]:
    """The JSON of it, for the page's twin and the API."""
    account = pad.account
    return {
        "live": pad.live,
        "budget_tokens": pad.budget.tokens,
        "budget_from": pad.budget.source,
        "tokens": pad.tokens,
        "share": round(pad.share, 4),
        "important_over_budget": pad.is_over,
        "entries": pad.entries,
        "account": {
            "times": account.times,
            "entries_replaced": account.replaced,
            "summaries": account.written,
            "results_masked": account.masked,
            "tokens_noted": pad.tokens_noted,
            "tokens": pad.tokens,
            "whole": account.whole,
            "steps": [
                {
                    "step": each.step_seq,
                    "at": each.at,
                    "entry": each.entry,
                    "method": each.method,
                    "why": each.why,
                    "replaced": list(each.replaced),
                    "masked": list(each.masked),
                    "tokens_before": each.tokens_before,
                    "tokens_after": each.tokens_after,
                    "model": each.model,
                    "cost": each.cost,
                }
                for each in account.summaries
            ],
        },
    }


def _traced(run: RunStory, n: int) -> dict[str, Any] | None:
    found = sql.row(ENTRY, [run.created_at.date().replace(day=1), run.id, n, str(n)])
    if found is None or found[0] is None:
        return None
    entry = sealing.open_entry(keys.existing(run.id), current_tenant(), run.id, n, found[0])
    return {**entry, "at": _moment(entry.get("at"))}


def _summary(run: RunStory, key: bytes, row: tuple[Any, ...]) -> Summary:
    seq, generation, identity, sealed, at, model, tokens, cost = row
    raw = sealing.open_step(key, current_tenant(), run.id, generation, identity, "output", sealed)
    output = canonical.loads(raw) if raw is not None else None
    if not isinstance(output, Mapping):
        output = {}
    return Summary(
        step_seq=seq,
        at=at,
        entry=_number(output.get("entry")),
        method=str(output.get("method", "")),
        why=str(output.get("why", "")),
        replaced=_numbers(output.get("replaced")),
        masked=_numbers(output.get("masked")),
        tokens_before=_number(output.get("tokens_before")),
        tokens_after=_number(output.get("tokens_after")),
        model=model,
        tokens=tokens,
        cost=cost,
    )


def _size(entries: Sequence[Mapping[str, Any]]) -> Size:
    return Size(
        sum(int(entry.get("tokens", 0)) for entry in entries),
        sum(len(str(entry.get("text", "")).encode("utf-8", "replace")) for entry in entries),
        len(entries),
    )


def _number(value: Any) -> int:
    """An agent that speaks the protocol by hand may have recorded anything."""
    return value if type(value) is int and value > 0 else 0


def _numbers(value: Any) -> list[int]:
    return [each for each in value if _number(each)] if isinstance(value, list) else []


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
