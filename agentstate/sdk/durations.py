"""Seconds, or text such as "90s", "15m", "24h", "7d"."""

from __future__ import annotations

from typing import overload

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@overload
def seconds(duration: str | float) -> float: ...
@overload
def seconds(duration: None) -> None: ...
def seconds(duration: str | float | None) -> float | None:
    """Raises: ValueError for text that is no duration and for negative ones. An author's mistake, found at import."""
    if duration is None:
        return None
    if isinstance(duration, str):
        number, unit = duration[:-1], duration[-1:]
        if unit not in _UNITS:
            raise ValueError(f"{duration!r} is no duration: write seconds, or 90s, 15m, 24h, 7d.")
        duration = float(number) * _UNITS[unit]
    if not 0 <= duration < float("inf"):
        raise ValueError(f"{duration!r} is no usable duration.")
    return float(duration)
