"""`python -m agentstate.dev.bench.racer`: one process that takes steps when told to.

Reads a JSON object per line: contender, size, and `steps` or `for_s`. Answers each with a line: steps and seconds.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache
from typing import Any

import django

BATCH_STEPS = 20


def main() -> None:
    django.setup()
    say({"ready": True})
    for line in sys.stdin:
        say(obey(json.loads(line)))


def obey(order: dict[str, Any]) -> dict[str, Any]:
    if order["contender"] == "shares":
        from agentstate.dev.bench import shares

        return shares.measure(order["size"], steps=order["steps"])
    racer = _contender(order["contender"], order["size"])
    if "steps" in order:
        racer.get_ready(order["steps"])
        started = time.perf_counter()
        racer.take(order["steps"])
        return {"steps": order["steps"], "seconds": time.perf_counter() - started}
    return take_for(racer, order["for_s"])


def take_for(racer: Any, seconds: float) -> dict[str, Any]:
    """As many steps as fit; what is no step is not counted in."""
    taken, elapsed = 0, 0.0
    while elapsed < seconds:
        racer.get_ready(BATCH_STEPS)
        started = time.perf_counter()
        racer.take(BATCH_STEPS)
        elapsed += time.perf_counter() - started
        taken += BATCH_STEPS
    return {"steps": taken, "seconds": elapsed}


@cache
def _contender(name: str, size: int) -> Any:
    from agentstate.dev.bench import contenders

    return contenders.make(name, size)


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
