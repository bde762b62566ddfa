"""Bars of a window of steps on one time line, in percent. Long stretches in which nothing ran are compressed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

GAP_S_MIN = 5.0  # shorter pauses are drawn as they are
GAP_SHARE = 0.2  # a pause longer than this share of all working time is compressed
GAP_PERCENT = 6.0
BAR_PERCENT_MIN = 0.3


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that took time. tone: ran, waited, bad, grp, live; past: an attempt that was followed by another."""

    start: datetime
    end: datetime
    tone: str
    past: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    x: str
    width: str
    tone: str
    past: bool


@dataclass(frozen=True, slots=True)
class Tick:
    x: str
    label: str
    last: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    x: str
    width: str
    seconds: float


class Scale(Protocol):
    def place(self, at: datetime) -> float: ...


class Axis:
    """Maps a moment to percent: working stretches share the width by their length, gaps get a fixed part."""

    def __init__(self, busy: Sequence[tuple[float, float]], *, start: datetime) -> None:
        self.start = start
        self.stretches = list(busy)
        self.worked_s = sum(end - begin for begin, end in busy) or 1.0
        gaps = max(len(busy) - 1, 0)
        self.gap_percent = min(GAP_PERCENT, 30.0 / gaps) if gaps else 0.0
        self.percent_per_s = (100.0 - self.gap_percent * gaps) / self.worked_s

    def place(self, at: datetime) -> float:
        second = (at - self.start).total_seconds()
        x = 0.0
        for index, (begin, end) in enumerate(self.stretches):
            if second <= end:
                return min(x + max(second - begin, 0.0) * self.percent_per_s, 100.0)
            x += (end - begin) * self.percent_per_s
            if index < len(self.stretches) - 1:
                following = self.stretches[index + 1][0]
                if second < following:
                    return x + self.gap_percent * (second - end) / (following - end)
                x += self.gap_percent
        return min(x, 100.0)

    def bar(self, piece: Piece) -> Bar:
        left, right = self.place(piece.start), self.place(piece.end)
        width = max(right - left, BAR_PERCENT_MIN)
        left = min(left, 100.0 - width)
        return Bar(f"{left:.2f}%", f"{width:.2f}%", piece.tone, piece.past)

    def gaps(self) -> list[Gap]:
        found, x = [], 0.0
        for (begin, end), (following, _) in zip(self.stretches, self.stretches[1:], strict=False):
            x += (end - begin) * self.percent_per_s
            found.append(Gap(f"{x:.2f}%", f"{self.gap_percent:.2f}%", following - end))
            x += self.gap_percent
        return found

    def ticks(self, *, origin: datetime) -> list[Tick]:
        """Where each stretch begins and where all ends, as time since `origin`."""
        ahead = (self.start - origin).total_seconds()
        places: list[Tick] = []
        x = 0.0
        for begin, end in self.stretches:
            if not places or x - float(places[-1].x[:-1]) > 12:
                places.append(Tick(f"{x:.2f}%", since(ahead + begin)))
            x += (end - begin) * self.percent_per_s + self.gap_percent
        if self.stretches:
            places = [tick for tick in places if float(tick.x[:-1]) < 86] or places[:1]
            places.append(Tick("100%", since(ahead + self.stretches[-1][1]), last=True))
        return places


def axis(pieces: Iterable[Piece]) -> Axis | None:
    """The axis of these pieces; waiting counts as idle, so that it can be compressed."""
    found = list(pieces)
    if not found:
        return None
    start = min(piece.start for piece in found)
    finish = max(piece.end for piece in found)
    working = sorted(
        ((piece.start - start).total_seconds(), (piece.end - start).total_seconds())
        for piece in found
        if piece.tone not in ("waited", "grp")
    )
    merged = _merge([(0.0, 0.0), *working, ((finish - start).total_seconds(),) * 2])
    return Axis(merged, start=start)


def _merge(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join stretches that touch or are close; what stays apart is a gap."""
    worked = sum(end - begin for begin, end in spans)
    apart = max(GAP_S_MIN, GAP_SHARE * worked)
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin - merged[-1][1] <= apart:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def since(seconds: float) -> str:
    """0:41, 12:24, 1:02:09; below ten seconds with a tenth."""
    if 0 < seconds < 10:
        return f"0:0{seconds:.1f}"
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"
