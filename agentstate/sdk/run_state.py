"""`st.state`: the agent's own state, changed by steps only, and only when they are done.

A step works on its own copy. What it changed, key by key of the top level, is taken over in the moment its result is
recorded, and rides in the same turn: a step that is run again never finds half of its former self. Two siblings that
set the same key: the one that ends last wins. In main outside steps there is the state at the start of the open
generation, frozen, because main runs again and must see the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from agentstate.core import canonical
from agentstate.core.errors import TooLarge
from agentstate.core.limits import STATE_BYTES_MAX
from agentstate.sdk import context
from agentstate.sdk.values import plain

Change = dict[str, Any]
_REMOVED: Any = object()


class Committed:
    """The state as of all recorded steps. Thread-safe."""

    def __init__(self, newest: Mapping[str, Any] | None, *, base: Mapping[str, Any] | None) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, Any] = dict(newest or {})
        self._base = canonical.dumps(dict(base or {}))
        self.dirty = False

    def base(self) -> dict[str, Any]:
        return dict(canonical.loads(self._base))

    def copied(self) -> dict[str, Any]:
        with self._lock:
            return dict(canonical.loads(canonical.dumps(self._now)))

    def snapshot(self) -> dict[str, Any]:
        """For a turn: the top level copied, the values shared; they are replaced, never changed in place."""
        with self._lock:
            return dict(self._now)

    def apply(self, change: Change) -> None:
        if not change:
            return
        with self._lock:
            _apply(self._now, change)
            self.dirty = True


class View:
    """What `st.state` shows at one place. `writable` inside steps."""

    def __init__(self, committed: Committed, *, writable: bool, below: View | None = None) -> None:
        self._committed = committed
        self.writable = writable
        self._below = below  # of the enclosing step
        self._items: dict[str, Any] | None = None
        self._before: dict[str, bytes] = {}

    def items(self) -> dict[str, Any]:
        if self._items is None:
            self._items = self._committed.copied() if self.writable else self._committed.base()
            if self.writable:
                self._before = {key: canonical.dumps(value) for key, value in self._items.items()}
        return self._items

    def change(self) -> Change:
        """What this step did to the state. Raises: Invalid for what is no JSON, TooLarge naming the largest keys."""
        if self._items is None or not self.writable:
            return {}
        sizes: dict[str, int] = {}
        changed: Change = {key: _REMOVED for key in self._before if key not in self._items}
        for key, value in self._items.items():
            raw = canonical.dumps(plain(value, where=f"/state/{key}"), where=f"/state/{key}")
            sizes[key] = len(raw)
            if raw != self._before.get(key):
                changed[key] = canonical.loads(raw)
        _check_size(sizes)
        return changed

    def commit(self, change: Change) -> None:
        """Take the change over here, in the enclosing steps' copies and in the recorded state."""
        self._committed.apply(change)
        view = self._below
        while view is not None:
            view._take(change)
            view = view._below

    def _take(self, change: Change) -> None:
        if self._items is None or not self.writable:
            return
        _apply(self._items, canonical.loads(canonical.dumps({k: v for k, v in change.items() if v is not _REMOVED})))
        for key, value in change.items():
            if value is _REMOVED:
                self._items.pop(key, None)
                self._before.pop(key, None)
            else:
                self._before[key] = canonical.dumps(value)


class State(MutableMapping[str, Any]):
    """`st.state`: a mapping that shows the state of the run and step that looks at it."""

    def __getitem__(self, key: str) -> Any:
        return self._view().items()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._writable()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._writable()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._view().items())

    def __len__(self) -> int:
        return len(self._view().items())

    def __repr__(self) -> str:
        frame = context.current()
        return "state()" if frame is None else f"state({frame.view.items()!r})"

    def _view(self) -> View:
        frame = context.require("st.state")
        if frame.executor.agent.mode == "snapshot":
            raise TypeError("The state of a snapshot agent is the argument of its main; st.state is for replay agents.")
        return frame.view

    def _writable(self) -> dict[str, Any]:
        view = self._view()
        if not view.writable:
            raise TypeError(
                "st.state is changed inside steps only: main runs again after a crash and would change it twice. "
                "Move the change into a function with @st.step, or close the generation with st.continue_from(state)."
            )
        return view.items()


def _apply(items: dict[str, Any], change: Change) -> None:
    for key, value in change.items():
        if value is _REMOVED:
            items.pop(key, None)
        else:
            items[key] = value


def _check_size(sizes: dict[str, int]) -> None:
    total = sum(sizes.values())
    if total <= STATE_BYTES_MAX:
        return
    largest = sorted(sizes, key=lambda key: -sizes[key])[:3]
    named = ", ".join(f"{key} ({sizes[key]:,} bytes)" for key in largest)
    raise TooLarge(
        f"The state is {total:,} bytes, at most {STATE_BYTES_MAX:,} are kept. Largest: {named}.",
        field=f"/state/{largest[0]}",
    )
