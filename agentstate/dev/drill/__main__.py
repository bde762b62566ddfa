"""`python -m agentstate.dev.drill <spec as JSON>`: one world; prints one JSON line per case, and one of the whole."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agentstate.core import failpoints
from agentstate.dev.drill import cases as catalogue
from agentstate.dev.drill.cases import Case, Trace
from agentstate.dev.drill.world import World

if TYPE_CHECKING:
    from agentstate.dev.drill.oracle import Live

Json = Any  # what json.loads gives


def main() -> None:
    spec = json.loads(sys.argv[1])
    root = Path(spec["root"])
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    say = _take_stdout(root / "log")
    world = World.start(
        root, durable=spec["durable"], proxied=spec["proxied"], mutant=spec["mutant"], lease_s=spec["lease_s"]
    )
    try:
        _conduct(world, spec, say)
    finally:
        world.stop()


def _take_stdout(log: Path) -> IO[str]:
    """Results go where stdout went; everything else, of children too, into the log."""
    say = os.fdopen(os.dup(1), "w")
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    return say


def _conduct(world: World, spec: Json, say: IO[str]) -> None:
    from agentstate.dev.drill import conductor, mutants, people

    mutants.apply()
    people.change_database(world.postgres.url("postgres"), mutant=spec["mutant"])
    until = time.monotonic() + spec["seconds"]
    lives, trace = conductor.traced(world, catalogue.EFFECTS)
    _tell(say, lives)
    for number, wave in enumerate(catalogue.waves(_selected(spec, trace), size=spec["size"]), 1):
        if time.monotonic() > until:
            _say(say, {"left_out": len(wave)})
            continue
        _tell(say, conductor.Wave(world, wave, number=number).run())
    _say(
        say,
        {
            "world": _findings(world),
            "names": sorted(failpoints.NAMES),
            "trace": {f"{effect}.{n}": hits for (effect, n), hits in trace.items()},
        },
    )


def _selected(spec: Json, trace: Trace) -> Iterator[Case]:
    from agentstate.dev.drill import select

    every = [case for part in spec["select"] for case in select.SELECT[part["kind"]](trace, **part.get("with", {}))]
    shard, shards = spec.get("shard", [0, 1])
    return iter(every[shard::shards])


def _findings(world: World) -> list[str]:
    from agentstate.affairs import invariants
    from agentstate.audit import sealing
    from agentstate.dev.drill import people

    people.persist(lambda: sealing.seal(world.tenant_id))
    found: list[str] = people.persist(lambda: [str(one) for one in invariants.check(world.tenant_id)])
    return found


def _tell(say: IO[str], lives: list[Live]) -> None:
    for live in lives:
        _say(
            say,
            {
                "case": live.case.json(),
                "hit": live.hit,
                "unfair": live.unfair,
                "violations": live.violations,
                "doubts": len(live.doubts),
                "claims": live.fence,
                "seconds": round((live.ended_at or time.monotonic()) - live.began_at, 2),
            },
        )


def _say(say: IO[str], line: Json) -> None:
    say.write(json.dumps(line) + "\n")
    say.flush()


if __name__ == "__main__":
    main()
