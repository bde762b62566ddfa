"""agentstate: durable runs for agents. Importing it is light; the SDK loads at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentstate.sdk import *  # noqa: F403


def __getattr__(name: str) -> Any:
    import agentstate.sdk as sdk

    if name in sdk.__all__:
        return getattr(sdk, name)
    raise AttributeError(f"module 'agentstate' has no attribute {name!r}")


def __dir__() -> list[str]:
    import agentstate.sdk as sdk

    return sorted([*globals(), *sdk.__all__])
