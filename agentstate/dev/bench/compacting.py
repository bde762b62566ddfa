"""`python -m agentstate.dev.bench.compacting <tenant>`: compacts in a process of its own, whose memory is looked at.

The frames of the bench have no rows of runs; a run with such a row is alive and left alone, all others are over.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from uuid import UUID

import django


def main() -> None:
    django.setup()
    from agentstate.core.clock import now
    from agentstate.db import sql
    from checkpoints import compaction

    finished, alive = compaction.RunFacts(0, finished_at=now()), compaction.RunFacts(0)
    compaction.provide(
        lambda run_id: alive if sql.row("SELECT 1 FROM runs_run WHERE id = %s", [run_id]) is not None else finished
    )
    print("ready", flush=True)
    started = time.monotonic()
    outcome = compaction.run(UUID(sys.argv[1]))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    report = {"frames": outcome.frames, "freed_bytes": outcome.freed_bytes, "peak_mb": peak_mb}
    print(json.dumps({**report, "seconds": time.monotonic() - started}), flush=True)


if __name__ == "__main__":
    main()
