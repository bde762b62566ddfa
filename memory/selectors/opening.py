"""Sealed words of one owner, opened for a page: what was erased or does not verify says so in its own place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from agentstate.core.errors import Corrupt
from memory import sealing

ERASED = "[erased]"


class Words:
    """Opens what one owner's key has sealed. Without a key (it was destroyed) every text is ERASED."""

    __slots__ = ("_bound", "_key")

    def __init__(self, key: bytes | None) -> None:
        self._key = key
        self._bound: dict[str, bytes] = {}  # by table: to what its texts are bound, but for the row

    @property
    def erased(self) -> bool:
        return self._key is None

    def text(self, table: str, row: UUID | str, sealed: bytes | memoryview | None) -> str:
        """ "" for what was left empty. Raises nothing."""
        if not sealed:
            return ""
        if self._key is None:
            return ERASED
        bound = self._bound.get(table) or self._bound.setdefault(table, sealing.bound_to(table))
        try:
            return sealing.open_bound(self._key, bound, row, sealed)
        except Corrupt as problem:
            return f"[{problem.message}]"

    def texts(self, table: str, sealed: Sequence[tuple[UUID | str, bytes | memoryview | None]]) -> list[str]:
        """As text(), of many (row, sealed) in one go."""
        plain = [None] * len(sealed) if self._key is None else sealing.open_each(self._key, table, sealed)
        return [
            self.text(table, row, one) if text is None else text for (row, one), text in zip(sealed, plain, strict=True)
        ]

    def json(self, table: str, row: UUID | str, sealed: bytes | memoryview | None) -> Any:
        """None for what was left empty or cannot be opened. Raises nothing."""
        if not sealed or self._key is None:
            return None
        try:
            return sealing.open_json(self._key, table, row, sealed)
        except Corrupt:
            return None
