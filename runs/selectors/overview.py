"""The overview of a run: up to 100 bars and 12 links over all its steps, and totals where they can be counted fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from math import log1p
from uuid import UUID

from agentstate.db import sql
from runs.selectors.steps import WINDOW

EXACT_STEPS_MAX = 5_000  # counting more of them would make a page of a large run slower than one of a small run
BARS_MAX = 100
LINKS_MAX = 12
HEIGHT = 44

# The primary key's range, read once: numbers, times and what went wrong, folded into bars of equally many steps.
EXACT = """
select (seq - 1) / %(size)s as bar, min(started_at), max(coalesce(ended_at, started_at)),
  sum(extract(epoch from coalesce(ended_at, started_at) - started_at))::float8,
  count(*) filter (where status = 'failed'), count(*) filter (where status = 'in_doubt'),
  count(*) filter (where status = 'done'), count(*) filter (where key is not null and status = 'done'),
  count(*) filter (where key is not null and outcome = 'not_sent' and status <> 'done'),
  count(*) filter (where attempt > 1), count(*) filter (where status = 'started'),
  count(*) filter (where kind = 'ask' or status = 'waiting'),
  count(*) filter (where effect = 'destructive' and status = 'done')
from runs_step where run_id = %(run)s group by 1 order by 1
"""
# One step per bar, by number: as fast at a million steps as at five thousand.
SAMPLED = "select seq, started_at, status from runs_step where run_id = %s and seq = any(%s) order by seq"


@dataclass(frozen=True, slots=True)
class OverviewBar:
    x: str
    width: str
    y: int
    height: int
    tone: str


@dataclass(frozen=True, slots=True)
class OverviewLink:
    x: str
    width: str
    first: int
    last: int
    trouble: int


@dataclass(slots=True)
class Totals:
    done: int = 0
    failed: int = 0
    in_doubt: int = 0
    started: int = 0
    effects_done: int = 0
    destructive_done: int = 0
    not_sent: int = 0
    retried: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    bars: list[OverviewBar]
    links: list[OverviewLink]
    totals: Totals | None  # None: too many steps to count while somebody waits
    steps_per_bar: int


@dataclass(slots=True)
class _Bucket:
    seconds: float = 0.0
    failed: int = 0
    in_doubt: int = 0
    waited: bool = False
    live: bool = False
    ends: list[datetime] = field(default_factory=list)


def read(run_id: UUID, *, steps: int, error_step: int | None = None) -> Overview:
    if steps < 2:
        return Overview([], [], None if steps > EXACT_STEPS_MAX else _few(run_id, steps), 1)
    size = -(-steps // BARS_MAX)
    if steps <= EXACT_STEPS_MAX:
        buckets, totals = _exact(run_id, size=size)
    else:
        buckets, totals = _sampled(run_id, steps=steps, size=size, error_step=error_step), None
    return Overview(_bars(buckets, steps, size), _links(buckets, steps, size), totals, size)


def _few(run_id: UUID, steps: int) -> Totals:
    return _exact(run_id, size=1)[1] if steps else Totals()


def _exact(run_id: UUID, *, size: int) -> tuple[dict[int, _Bucket], Totals]:
    buckets: dict[int, _Bucket] = {}
    totals = Totals()
    statement = EXACT.replace("%(size)s", "%s").replace("%(run)s", "%s")
    for bar, _, _, seconds, failed, doubt, done, effects, unsent, retried, live, asked, destructive in sql.rows(
        statement, [size, run_id]
    ):
        buckets[bar] = _Bucket(seconds, failed, doubt, waited=asked > 0, live=live > 0)
        totals.done += done
        totals.failed += failed
        totals.in_doubt += doubt
        totals.started += live
        totals.effects_done += effects
        totals.destructive_done += destructive
        totals.not_sent += unsent
        totals.retried += retried
    return buckets, totals


def _sampled(run_id: UUID, *, steps: int, size: int, error_step: int | None) -> dict[int, _Bucket]:
    numbers = [*range(1, steps, size), steps]
    found = sql.rows(SAMPLED, [run_id, numbers])
    buckets = {}
    for index, ((seq, started, _), (_, following, _)) in enumerate(pairwise(found)):
        buckets[index] = _Bucket((following - started).total_seconds())
        if error_step is not None and seq <= error_step < seq + size:
            buckets[index].failed = 1
    return buckets


def _bars(buckets: dict[int, _Bucket], steps: int, size: int) -> list[OverviewBar]:
    count = -(-steps // size)
    most = max((log1p(bucket.seconds) for bucket in buckets.values()), default=0.0) or 1.0
    step = 100 / count
    bars = []
    for index, bucket in sorted(buckets.items()):
        height = max(3, round(HEIGHT * log1p(bucket.seconds) / most))
        tone = "bad" if bucket.failed or bucket.in_doubt else "pri" if bucket.live else "ran"
        if bucket.waited and tone == "ran":
            tone = "warm"
        width = min(step * 0.72, 2.4)
        bars.append(OverviewBar(f"{index * step:.2f}%", f"{width:.2f}%", HEIGHT - height, height, tone))
    return bars


def _links(buckets: dict[int, _Bucket], steps: int, size: int) -> list[OverviewLink]:
    """Twelve at most, so that each is wide enough for a finger; each opens the window in which it begins."""
    count = -(-steps // size)
    parts = min(LINKS_MAX, count) if steps > WINDOW else 0
    links = []
    for part in range(parts):
        low, high = part * count // parts, (part + 1) * count // parts
        inside = [buckets[index] for index in range(low, high) if index in buckets]
        links.append(
            OverviewLink(
                f"{100 * low / count:.2f}%",
                f"{100 * (high - low) / count:.2f}%",
                low * size + 1,
                min(high * size, steps),
                sum(bucket.failed + bucket.in_doubt for bucket in inside),
            )
        )
    return links
