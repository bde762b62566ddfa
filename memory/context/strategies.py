"""What stands in for the messages that do not fit word for word: one function per strategy.

Each fills its room with the session's end and, depending on the strategy, with summaries of what comes before it or
with the messages that matter. Nothing is told twice: a summary ends where the messages begin.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from memory.context.gathering import Gathered
from memory.context.parts import (
    DUPLICATE,
    OVER_BUDGET,
    ROUTINE,
    STALE,
    SUMMARISED,
    Block,
    End,
    LeftOut,
    at_end,
    cost,
    heading_tokens,
    left_out,
    of_summary,
    summary_tokens,
    tail_cost,
)
from memory.models import Message
from memory.selectors import messages, summaries
from memory.selectors.summaries import OpenedSummary, SealedSummary

SUMMARY_SHARE = 0.4  # of the room, at most
# hierarchical: the end word for word, before it turns, before those segments, and the rest for the session up to there
TAIL_SHARE, TURNS_SHARE, SEGMENTS_SHARE = 0.5, 0.15, 0.15
MATTERING_SHARE = 0.6  # importance: for decisions, commitments and facts


AnySummary = OpenedSummary | SealedSummary


@dataclass(slots=True)
class Told:
    """What a strategy chose of the session, and what not. Blocks stand in the order of the session."""

    tail: list[Block] = field(default_factory=list)
    summaries: list[Block] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def blocks(self) -> list[Block]:
        return [*self.summaries, *self.tail]


Strategy = Callable[[Gathered, int], Told]  # the room in tokens, headings included


def window(gathered: Gathered, room: int) -> Told:
    """The newest messages that fit."""
    told = Told(_blocks(_newest(gathered, room)))
    told.left_out += _not_in_tail(gathered, told.tail, told_to=0)
    return told


def summary(gathered: Gathered, room: int) -> Told:
    """What was told of the session so far, and the messages behind it."""
    now = gathered.standing
    if not now.summarised_seq or len(_newest(gathered, room)) == gathered.standing_count:
        return window(gathered, room)
    reserve = min(gathered.policy.summary_tokens + heading_tokens("summary"), int(room * SUMMARY_SHARE))
    begins = _begin(gathered, _newest(gathered, room - reserve))
    chosen, stale = _so_far(gathered, begins - 1)
    if chosen is None:
        return _with(window(gathered, room), stale)
    block = of_summary(chosen)
    if cost([block]) > int(room * SUMMARY_SHARE):
        return _with(window(gathered, room), [*stale, left_out(block, OVER_BUDGET)])
    told = Told(_blocks(_newest(gathered, room - cost([block]), above=chosen.to_seq)), [block], stale)
    told.left_out += _not_in_tail(gathered, told.tail, told_to=chosen.to_seq)
    return told


def hierarchical(gathered: Gathered, room: int) -> Told:
    """The newest messages, before them turns, before those segments, and what was told of the session up to there."""
    now = gathered.standing
    if not now.summarised_seq or len(_newest(gathered, room)) == gathered.standing_count:
        return window(gathered, room)
    offered = summaries.near_and_far(now.session_id, words=now.words)
    turns, segments = ([one for one in offered if one.level == level] for level in ("turn", "segment"))
    end = _begin(gathered, _newest(gathered, int(room * TAIL_SHARE))) - 1
    told_to = _last_end(turns, end)
    near = _back_from(told_to, turns, int(room * TURNS_SHARE))
    starts = {one.from_seq for one in segments}
    while near and near[-1].from_seq not in starts:  # its segment tells the whole of it
        near.pop()
    if not near:
        told_to = _last_end(segments, end)
    far = _back_from(near[-1].from_seq - 1 if near else told_to, segments, int(room * SEGMENTS_SHARE))
    first = _end_before([*near, *far][-1].from_seq, segments) if near or far else told_to
    before, stale = _so_far(gathered, first) if first else (None, [])
    near_and_far = summaries.with_texts([*near, *far])
    chosen: list[AnySummary] = [*near_and_far, *([before] if before is not None and before.to_seq == first else [])]
    blocks = [of_summary(one) for one in chosen]
    dropped: list[LeftOut] = []
    while blocks and cost(blocks) > room * (1 - TAIL_SHARE):
        dropped.append(left_out(blocks.pop(), OVER_BUDGET))
    told_to = told_to if blocks else 0
    tail = _newest(gathered, room - cost(blocks), above=told_to)
    told = Told(_blocks(tail), blocks[::-1], [*stale, *dropped])
    # Whole numbers: the hash of a UUID is computed in Python each time.
    kept = {block.source_id.int for block in blocks} | {one.source_id.int for one in dropped if one.source_id}
    told.left_out += _not_chosen([one for one in offered if one.id.int not in kept], chosen[: len(blocks)], told.tail)
    if before is not None and before.id.int not in kept:
        told.left_out.append(left_out(of_summary(before), DUPLICATE))
    told.left_out += _not_in_tail(gathered, told.tail, told_to=told_to)
    return told


def importance(gathered: Gathered, room: int) -> Told:
    """Decisions, commitments and facts before what is routine, the newest of each; in the order of the session."""
    places = range(len(gathered.tail))[::-1]
    mattering = [place for place in places if gathered.tail[place].importance != "routine"]
    first = _fitting(gathered, mattering, int(room * MATTERING_SHARE))
    chosen = {end.message.seq for end in first}
    others = [place for place in places if gathered.tail[place].seq not in chosen]
    heading = heading_tokens("tail") if first else 0  # it is paid for
    rest = _fitting(gathered, others, room - tail_cost(first) + heading, stop=True)
    told = Told(_blocks(sorted([*first, *rest], key=lambda end: end.message.seq)))
    told.left_out += _not_in_tail(gathered, told.tail, told_to=0, reason=ROUTINE)
    return told


STRATEGIES: dict[str, Strategy] = {
    "window": window,
    "summary": summary,
    "hierarchical": hierarchical,
    "importance": importance,
}


def _newest(gathered: Gathered, room: int, *, above: int = 0) -> list[End]:
    """The end of the session that fits, without a hole, in its order."""
    behind = [place for place, message in enumerate(gathered.tail) if message.seq > above]
    return _fitting(gathered, behind[::-1], room, stop=True)[::-1]


def _fitting(gathered: Gathered, places: Sequence[int], room: int, *, stop: bool = False) -> list[End]:
    """The messages at these places that fit, in the order given; `stop` at the first that does not."""
    taken: list[End] = []
    left = room - heading_tokens("tail")
    for place in places:
        end = gathered.ends[place]
        if end.tokens > left and end.message.role == "tool" and end.masked is None:
            end = at_end(end.message, masked=True)
        if end.tokens <= left:
            taken.append(end)
            left -= end.tokens
        elif stop:
            break
    return taken


def _blocks(ends: Sequence[End]) -> list[Block]:
    messages.open_all(end.message for end in ends if end.masked is None)
    return [end.block() for end in ends]


def _begin(gathered: Gathered, tail: Sequence[End]) -> int:
    return tail[0].message.seq if tail else gathered.standing.last_seq + 1


def _so_far(gathered: Gathered, seq: int) -> tuple[AnySummary | None, list[LeftOut]]:
    """What was told of the session up to `seq` or a little further, else as far as it goes; and what does not hold."""
    now = gathered.standing
    found = summaries.so_far(now.session_id, now.version, from_seq=min(seq, now.summarised_seq), words=now.words)
    holding = [one for one, holds in found if holds]
    stale = [left_out(of_summary(one), STALE) for one, holds in found if not holds]
    return (holding[0] if holding else summaries.running(now.session_id)), stale


def _last_end(parts: Iterable[SealedSummary], seq: int) -> int:
    """Where the last of them that begins up to `seq` ends: messages begin behind it."""
    return max((one.to_seq for one in parts if one.from_seq <= seq), default=0)


def _end_before(seq: int, parts: Iterable[SealedSummary]) -> int:
    """Where the one before this number ends; just before it when there is none to look at."""
    return max((one.to_seq for one in parts if one.to_seq < seq), default=seq - 1)


def _back_from(end: int, parts: Iterable[SealedSummary], room: int) -> list[SealedSummary]:
    """Those that lead back from `end` without a hole and fit, the newest first."""
    by_end = {one.to_seq: one for one in parts}
    ends = sorted(by_end)
    chosen: list[SealedSummary] = []
    left = room - heading_tokens("summary")
    at = ends.index(end) if end in by_end else -1
    while at >= 0 and summary_tokens(by_end[ends[at]]) <= left:
        chosen.append(by_end[ends[at]])
        left -= summary_tokens(by_end[ends[at]])
        at -= 1
    return chosen


def _with(told: Told, more: Iterable[LeftOut]) -> Told:
    told.left_out += more
    return told


def _not_chosen(parts: Iterable[SealedSummary], chosen: Sequence[AnySummary], tail: Sequence[Block]) -> list[LeftOut]:
    """Turns and segments that did not go in, level by level and reason by reason."""
    begins = tail[0].seq if tail else 0
    grouped: dict[str, list[tuple[int, int, int]]] = {}
    by_start = sorted(chosen, key=lambda other: other.from_seq)
    starts = [other.from_seq for other in by_start]
    reaches = [0, *accumulate((other.to_seq for other in by_start), max)]  # of those that start up to there
    for one in parts:
        from_seq, to_seq = one.from_seq, one.to_seq
        told = to_seq <= reaches[bisect_right(starts, from_seq)]
        reason = SUMMARISED if told else DUPLICATE if begins and from_seq >= begins else OVER_BUDGET
        grouped.setdefault(reason, []).append((from_seq, to_seq, one.tokens))
    found = []
    for reason, group in sorted(grouped.items()):
        first, last, tokens = zip(*group, strict=True)
        found.append(
            LeftOut(
                "summary",
                "summary",
                reason,
                tokens=sum(tokens),
                count=len(group),
                from_seq=min(first),
                to_seq=max(last),
            )
        )
    return found


def _not_in_tail(
    gathered: Gathered, tail: Sequence[Block], *, told_to: int, reason: str = OVER_BUDGET
) -> list[LeftOut]:
    """Messages that did not go in: told by a summary, what matters, and the others. Counted, not named."""
    kept = {block.seq for block in tail}
    out = [message for message in gathered.tail if message.seq not in kept]
    groups = {
        SUMMARISED: [m for m in out if m.seq <= told_to],
        OVER_BUDGET: [m for m in out if m.seq > told_to and (reason == OVER_BUDGET or m.importance != "routine")],
        ROUTINE: [m for m in out if m.seq > told_to and reason == ROUTINE and m.importance == "routine"],
    }
    unread = _unread(gathered, told_to, reason)
    found = []
    for why, group in groups.items():
        count, tokens = unread.get(why, (0, 0))
        if group or count:
            found.append(
                LeftOut(
                    "tail",
                    "message",
                    why,
                    tokens=tokens + sum(message.tokens for message in group),
                    count=count + len(group),
                    from_seq=1 if count else group[0].seq,
                    to_seq=group[-1].seq if group else told_to,
                )
            )
    return found


def _unread(gathered: Gathered, told_to: int, reason: str) -> dict[str, tuple[int, int]]:
    """Count and tokens of the messages that were not even read: they are older, or routine, and far over the budget."""
    count = gathered.standing_count - len(gathered.tail)
    tokens = max(0, gathered.standing_tokens - sum(message.tokens for message in gathered.tail))
    if count <= 0:
        return {}
    begins = gathered.tail[0].seq if gathered.tail else gathered.standing.last_seq + 1
    if not told_to or reason != OVER_BUDGET:
        return {reason: (count, tokens)}
    if told_to >= begins - 1:
        return {SUMMARISED: (count, tokens)}
    between = Message.objects.filter(session_id=gathered.standing.session_id, undone_in=None)
    gap = list(between.filter(seq__gt=told_to, seq__lt=begins).values_list("tokens", flat=True))
    return {OVER_BUDGET: (len(gap), sum(gap)), SUMMARISED: (count - len(gap), max(0, tokens - sum(gap)))}
