"""A window of steps as the template draws it: depth, bars on one time line, tags. And how full a scratchpad is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentstate.core.clock import now
from agentstate.core.limits import SUMMARISE_AT_SHARE
from runs.selectors import timeline
from runs.selectors.steps import StepRow, depths
from runs.selectors.timeline import Bar, Gap, Piece, Tick


@dataclass(frozen=True, slots=True)
class DrawnStep:
    row: StepRow
    depth: int
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Drawing:
    steps: list[DrawnStep]
    gaps: list[Gap]
    ticks: list[Tick]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A bar from left to right, in percent of its width; wider than the budget when the window is over it."""

    important: str
    rest: str
    filled: str
    summarise_at: str
    budget: str
    is_over: bool
    percent: str  # of the budget, in words


def gauge(*, share: float, important: float) -> Gauge:
    """`share`: of the budget that the window fills; `important`: the part of it that is important."""
    whole = max(1.0, share)
    important = min(important, share)
    return Gauge(
        important=_percent(important / whole),
        rest=_percent((share - important) / whole),
        filled=_percent(share / whole),
        summarise_at=_percent(SUMMARISE_AT_SHARE / whole),
        budget=_percent(1.0 / whole),
        is_over=share > 1.0,
        percent=f"{share:.0%}".replace("%", " %"),
    )


def _percent(part: float) -> str:
    return f"{max(0.0, min(part, 1.0)) * 100:.2f}%"


def draw(rows: list[StepRow], *, origin: datetime) -> Drawing:
    """`origin`: when the run started; the ticks count from there."""
    pieces = {row.seq: _pieces(row) for row in rows}
    axis = timeline.axis([piece for found in pieces.values() for piece in found])
    nested = depths(rows)
    if axis is None:
        return Drawing([DrawnStep(row, nested[row.seq], []) for row in rows], [], [])
    steps = [DrawnStep(row, nested[row.seq], [axis.bar(piece) for piece in pieces[row.seq]]) for row in rows]
    return Drawing(steps, axis.gaps(), axis.ticks(origin=origin))


def _pieces(row: StepRow) -> list[Piece]:
    """Waiting first, then earlier attempts (paler) with the waiting between them, then the newest attempt."""
    found: list[Piece] = []
    since = row.asked_at
    for earlier in row.earlier:
        if since and since < earlier.started_at:
            found.append(Piece(since, earlier.started_at, "waited"))
        end = earlier.ended_at or earlier.started_at
        found.append(Piece(earlier.started_at, end, "bad" if earlier.status != "done" else "ran", past=True))
        since = end
    if row.status == "waiting":
        return [*found, Piece(since or row.started_at, now(), "waited")]
    if since and since < row.started_at:
        found.append(Piece(since, row.started_at, "waited"))
    tone = "bad" if row.trouble else "grp" if row.kind == "group" else "pri" if row.status == "started" else "ran"
    return [*found, Piece(row.started_at, row.ended_at or _still(row), tone)]


def _still(row: StepRow) -> datetime:
    """A step without an end: running until now; one in doubt ended when its call had to be over."""
    return now() if row.status == "started" else row.started_at
