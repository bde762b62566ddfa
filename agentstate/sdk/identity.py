"""Names of steps: the path `parent/name#ordinal`, or `parent/name:call_key`, unique within a generation.

Ordinals count from 1 per name and scope. They are reserved when a step is called, before anything starts, so that
siblings that run side by side get the same names in every replay.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import Any

from agentstate.core.errors import Invalid
from agentstate.core.limits import IDENTITY_CHARS_MAX, NAME_CHARS_MAX

_KEY_CHARS_MAX = 200
_SEPARATORS = "/#:"


def check_name(name: str) -> str:
    """Raises: ValueError for a name that would make paths ambiguous. An author's mistake, found at import."""
    if not name or len(name) > NAME_CHARS_MAX or any(mark in name for mark in _SEPARATORS) or not name.isprintable():
        raise ValueError(
            f"{name!r} is no usable name: 1 to {NAME_CHARS_MAX} printable characters, none of '/', '#', ':'."
        )
    return name


def scope_of(identity: str) -> str:
    """The path of the scope an identity stands in; "" at the top."""
    return identity.rpartition("/")[0]


class Scope:
    """Where steps are numbered: the top of a run, the body of a step, one branch of a gather."""

    def __init__(self, path: str = "", *, parent: str = "") -> None:
        self.path = path
        self.parent = parent  # identity of the enclosing step; a branch is no step
        self.owner = _runner()
        self.shared = False  # other tasks or threads call steps here too: their order is their own affair
        self.halted: BaseException | None = None
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def reserve(self, name: str, *, key: str = "") -> str:
        """The next identity of this name. Raises: Invalid when the path would be too long."""
        with self._lock:
            self.shared = self.shared or _runner() != self.owner
            if key:
                return self._path(f"{name}:{_escaped(key)}")
            self._counts[name] = self._counts.get(name, 0) + 1
            return self._path(f"{name}#{self._counts[name]}")

    def number(self, name: str) -> int:
        """How often this was asked for here, from 1."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1
            return self._counts[name]

    def branches(self, count: int) -> list[Scope]:
        """Scopes for the branches of one gather, in order."""
        with self._lock:
            self._counts["gather"] = self._counts.get("gather", 0) + 1
            number = self._counts["gather"]
        return [Scope(self._path(f"gather#{number}.{index + 1}"), parent=self.parent) for index in range(count)]

    def adopt(self) -> None:
        """The running task or thread is the one that calls steps here."""
        self.owner = _runner()

    def _path(self, tail: str) -> str:
        identity = f"{self.path}/{tail}" if self.path else tail
        if len(identity) > IDENTITY_CHARS_MAX:
            raise Invalid(
                f"The path of this step is {len(identity)} characters, at most {IDENTITY_CHARS_MAX} are kept: "
                f"{identity[:120]}… Nest less deeply or use shorter names.",
                field="identity",
            )
        return identity


def _escaped(key: str) -> str:
    text = key.replace("%", "%25").replace("/", "%2F").replace("#", "%23")
    if len(text) > _KEY_CHARS_MAX or not text.isprintable():
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return text


def _runner() -> Any:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return id(task) if task is not None else -threading.get_ident()
