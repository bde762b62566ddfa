"""Old states in new code: each agent registers functions that turn a state of version v into one of v + 1.

@upcasting.register("refund-desk", 1)
def rename_total(doc):
    doc["state"]["amount"] = doc["state"].pop("total")
    return doc
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentstate.core.errors import Corrupt

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
VERSION_FIRST = 1
_upcasters: dict[str, dict[int, Upcaster]] = {}


def register(agent: str, version: int) -> Callable[[Upcaster], Upcaster]:
    """Decorates the function that takes a document of `version` and returns one of `version` + 1."""

    def remember(upcaster: Upcaster) -> Upcaster:
        known = _upcasters.setdefault(agent, {})
        assert known.get(version, upcaster) is upcaster, f"two upcasters from version {version} of {agent}"
        known[version] = upcaster
        return upcaster

    return remember


def forget(agent: str) -> None:
    """Drop what an agent registered: its module is loaded again, or a test ends."""
    _upcasters.pop(agent, None)


def current_version(agent: str) -> int:
    """The version that this process writes."""
    return max(_upcasters.get(agent, {}), default=VERSION_FIRST - 1) + 1


def upcast(agent: str, doc: dict[str, Any]) -> dict[str, Any]:
    """`doc` in the current version. Raises: Corrupt when it is newer than this process, or a step is missing."""
    known, version = _upcasters.get(agent, {}), doc["schema_version"]
    current = current_version(agent)
    if known and version > current:
        raise Corrupt(
            f"It has schema version {version}; this process knows {agent} up to {current}. Deploy the newer code.",
            failed="schema version",
        )
    while version < current:
        if version not in known:
            raise Corrupt(f"{agent} has no upcaster from schema version {version}.", failed="schema version")
        doc = {**known[version](doc), "schema_version": version + 1}
        version += 1
    return doc
