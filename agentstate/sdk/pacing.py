"""How long to wait before a step is tried again: exponential, with a jitter that is the same in every replay."""

from __future__ import annotations

import hashlib

FIRST_S = 0.2
RETRY_S_MAX = 60.0
IN_PROCESS_S = 1.0  # a shorter wait keeps the worker, a longer one gives the run back


def back_off_s(identity: str, tries: int) -> float:
    """Seconds before try number `tries` + 1: doubling from FIRST_S, at most RETRY_S_MAX, less up to a quarter."""
    base: float = min(FIRST_S * 2.0 ** min(tries, 30), RETRY_S_MAX)
    spread = hashlib.sha256(f"{identity}|{tries}".encode()).digest()[0] / 255
    return base * (1 - spread / 4)
