"""What was measured beside what was promised. A missed target is said plainly and is no error of the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table. `target` None: for orientation only. `at_least`: more is better."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def is_reached(self) -> bool:
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target

    def line(self) -> str:
        sign = ">=" if self.at_least else "<="
        target = "" if self.target is None else f"{sign} {_number(self.target)} {self.unit}"
        word = "" if self.target is None else ("reached" if self.is_reached else "MISSED")
        return f"{self.name:<58} {_number(self.value):>9} {self.unit:<5} {target:<13} {word:<8} {self.note}".rstrip()


@dataclass(frozen=True)
class Remark:
    """A line of words in the table."""

    text: str

    def line(self) -> str:
        return f"  {self.text}"


Line = Figure | Remark


def summary(lines: Sequence[Line]) -> str:
    promised = [line for line in lines if isinstance(line, Figure) and line.target is not None]
    missed = [figure.name for figure in promised if not figure.is_reached]
    if not missed:
        return f"All {len(promised)} targets reached."
    return f"{len(promised) - len(missed)} of {len(promised)} targets reached. MISSED: {'; '.join(missed)}."


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: of 20 values the 0.95th is the 19th."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))]


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
