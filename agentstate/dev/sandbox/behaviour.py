"""How each tool of the sandbox behaves: switches that a test or a person turns, some of them for the next n calls.

`PUT /behaviour/{tool}` replaces all switches of one tool by its defaults plus what the body names. A value may be
`{"value": ..., "calls": 2}`: it holds for the next two calls. `"calls": 2` beside the switches means all of them.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from agentstate.dev.sandbox.ledger import Json

DELAY_S_MAX = 600.0


class BadSwitch(ValueError):
    """The body of a PUT names a switch or value that does not exist."""


@dataclass(frozen=True, slots=True)
class Switches:
    """In the order in which they take effect on a call."""

    drop_early: bool = False  # reset the connection on acceptance, then go on and act all the same
    act_delay_s: float = 0.0  # act this long after accepting, whether or not the caller is still there
    refuse: int = 0  # answer with this 4xx and do not act
    fail: int = 0  # answer with this 5xx and do not act
    dedupe: bool = False  # a key that has acted gets the first answer again
    dedupe_window_s: float = 86_400.0
    fail_after: int = 0  # act, then answer with this 5xx
    reply_delay_s: float = 0.0
    drop_reply: bool = False  # act, then reset the connection
    probe: Literal["on", "off", "fail"] = "off"  # may others ask by key what happened


BLIND = Switches()
DEFAULTS = {
    "crm.note": replace(BLIND, dedupe=True),
    "analysis.create": replace(BLIND, dedupe=True, probe="on"),
    "mail.send": replace(BLIND, probe="on"),
}


class Behaviour:
    """The switches of every tool, kept in `behaviour.json` so that they outlive the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # tool -> switch -> [value, calls left or None for ever]
        self._set: dict[str, dict[str, list[Json]]] = json.loads(path.read_text()) if path.exists() else {}

    def put(self, tool: str, body: Json) -> Switches:
        """Raises: BadSwitch."""
        wanted = _parse(body)
        with self._lock:
            self._set[tool] = wanted
            self._save()
            return self._now(tool)

    def peek(self, tool: str) -> Switches:
        with self._lock:
            return self._now(tool)

    def _now(self, tool: str) -> Switches:
        held = {name: value for name, (value, _) in self._set.get(tool, {}).items()}
        return replace(DEFAULTS.get(tool, BLIND), **held)

    def take(self, tool: str) -> Switches:
        """The switches for one call; counts down those that hold for a number of calls."""
        with self._lock:
            switches = self._now(tool)
            counted = [entry for entry in self._set.get(tool, {}).values() if entry[1] is not None]
            if counted:
                self._count_down(tool)
        return switches

    def clear(self) -> None:
        with self._lock:
            self._set = {}
            self._save()

    def everything(self) -> dict[str, Json]:
        with self._lock:
            return {tool: asdict(self._now(tool)) for tool in sorted({*self._set, *DEFAULTS, "refund.create"})}

    def _count_down(self, tool: str) -> None:
        for name, entry in list(self._set[tool].items()):
            if entry[1] is not None:
                entry[1] -= 1
                if entry[1] <= 0:
                    del self._set[tool][name]
        self._save()

    def _save(self) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(self._set))
        beside.replace(self._path)


def _parse(body: Json) -> dict[str, list[Json]]:
    if not isinstance(body, dict):
        raise BadSwitch("Send a JSON object of switches.")
    everywhere = _calls(body.get("calls"))
    return {name: _entry(name, value, everywhere) for name, value in body.items() if name != "calls"}


def _entry(name: str, value: Json, everywhere: int | None) -> list[Json]:
    if not isinstance(value, dict):
        return [_checked(name, value), everywhere]
    if set(value) != {"value", "calls"}:
        raise BadSwitch(f'{name}: an object holds exactly "value" and "calls".')
    return [_checked(name, value["value"]), _calls(value["calls"])]


def _calls(count: Json) -> int | None:
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise BadSwitch("calls: a whole number from 1 up.")
    return count


_KINDS = {switch.name: switch.default for switch in fields(Switches)}


def _checked(name: str, value: Json) -> Json:
    if name not in _KINDS:
        raise BadSwitch(f"There is no switch {name!r}; there are {', '.join(_KINDS)}.")
    if name == "probe":
        spelt = ("off", "on")[value] if isinstance(value, bool) else value
        return _one_of(name, spelt, ("on", "off", "fail"))
    if isinstance(_KINDS[name], bool):
        return _one_of(name, value, (True, False))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _highest(name):
        raise BadSwitch(f"{name}: a number from 0 to {_highest(name):g}.")
    return _status(name, value) if isinstance(_KINDS[name], int) else float(value)


def _highest(name: str) -> float:
    return {"dedupe_window_s": 1e9}.get(name, DELAY_S_MAX)


def _status(name: str, value: float) -> int:
    first = 400 if name == "refuse" else 500
    if value and not first <= value < first + 100:
        raise BadSwitch(f"{name}: 0, or a status from {first} to {first + 99}.")
    return int(value)


def _one_of(name: str, value: Json, allowed: tuple[Json, ...]) -> Json:
    if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in allowed):
        raise BadSwitch(f"{name}: one of {', '.join(map(str, allowed))}.")
    return value
