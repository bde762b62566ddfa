"""States of a known size, as agents have them: a window of messages of which each step replaces the oldest."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

MESSAGE_CHARS = 170  # with its JSON around it about 200 bytes
MESSAGE_BYTES = 200
DIFFERENT = 1_000  # more than any window holds


@cache
def _words() -> list[str]:
    chosen = random.Random(7)  # noqa: S311 (no secret)
    return ["".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=chosen.randint(3, 9))) for _ in range(2000)]


def text(chars: int, *, seed: int) -> str:
    """Random words: compresses like prose, not like zeros."""
    chosen = random.Random(seed)  # noqa: S311 (no secret)
    parts: list[str] = []
    length = 0
    while length < chars:
        parts.append(chosen.choice(_words()))
        length += len(parts[-1]) + 1
    return " ".join(parts)[:chars]


def message(n: int) -> dict[str, Any]:
    return {"role": "tool", "n": n, "content": _content(n % DIFFERENT)}


@cache
def _content(n: int) -> str:
    """Made once, before any step: the time of a step is not to hold the time it takes to make words up."""
    return text(MESSAGE_CHARS, seed=n)


class Window:
    """A state of about `size` bytes."""

    def __init__(self, size: int) -> None:
        for n in range(DIFFERENT):
            _content(n)
        self._n = max(1, size // MESSAGE_BYTES)
        self.state: dict[str, Any] = {"messages": [message(n) for n in range(self._n)]}

    def next(self) -> dict[str, Any]:
        """The state after one more step. The former one is not touched."""
        self.state = {"messages": [*self.state["messages"][1:], message(self._n)]}
        self._n += 1
        return self.state
