"""A durable step against the floor and against dbos, alone and among eight processes; where its time goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from agentstate.dev.bench import contenders, rounds
from agentstate.dev.bench.report import Figure, Line, Remark

SIZES = {"2 KB": (2_048, 2.0), "50 KB": (51_200, 1.0)}  # state: bytes, at most so many times the floor
DBOS_TIMES = 3.0
PROCESSES = 8
NO_DBOS = "dbos is not installed: `.venv/bin/python -m pip install 'dbos>=3.4,<4'` (the extra `bench`)."


@dataclass(frozen=True)
class Effort:
    rounds: int
    steps: int
    processes: int = PROCESSES
    for_s: float = 1.5


def measure(effort: Effort) -> Iterator[Line]:
    contenders.prepare_tables()
    names = ["floor", "ours", *(["dbos"] if contenders.dbos_is_installed() else [])]
    for label, (size, target) in SIZES.items():
        yield from _alone(names, label, size, target, effort)
        yield from _among(names, label, size, target, effort)
        yield _shares(label, size, effort)
    if "dbos" not in names:
        yield Remark(NO_DBOS)


def _alone(names: list[str], label: str, size: int, target: float, effort: Effort) -> Iterator[Line]:
    ms = rounds.one_at_a_time(names, size=size, rounds=effort.rounds, steps=effort.steps)
    note = ", ".join(f"{name} {median(ms[name]):.2f}" for name in names) + " ms"
    yield Figure(f"step, {label} state, alone / floor", rounds.ratio(ms["ours"], ms["floor"]), "x", target, note=note)
    if "dbos" in names:
        times = rounds.ratio(ms["dbos"], ms["ours"])
        yield Figure(f"steps/s, {label} state, alone / dbos", times, "x", DBOS_TIMES, at_least=True)


def _among(names: list[str], label: str, size: int, target: float, effort: Effort) -> Iterator[Line]:
    rate = rounds.all_at_once(
        names, size=size, rounds=max(2, effort.rounds // 2), processes=effort.processes, for_s=effort.for_s
    )
    note = ", ".join(f"{name} {median(rate[name]):,.0f}" for name in names) + " steps/s"
    among = f"{effort.processes} processes"
    slower = rounds.ratio(rate["floor"], rate["ours"])
    yield Figure(f"step, {label} state, {among} / floor", slower, "x", target, note=note)
    if "dbos" in names:
        times = rounds.ratio(rate["ours"], rate["dbos"])
        yield Figure(f"steps/s, {label} state, {among} / dbos", times, "x", DBOS_TIMES, at_least=True)


def _shares(label: str, size: int, effort: Effort) -> Line:
    steps = min(300, effort.rounds * effort.steps)
    with rounds.racers(1) as (racer,):
        shares = [racer.ask({"contender": "shares", "size": size, "steps": steps}) for _ in range(3)]
    ms = {part: median(share[part] for share in shares) for part in shares[0]}
    text = ", ".join(f"{part} {ms[part]:.2f}" for part in ("codec", "engine", "sql", "commit", "hints", "whole"))
    cpu = f"processor {ms['cpu']:.2f} here and {ms['postgres_cpu']:.2f} in Postgres"
    return Remark(f"where a step of {label} goes, ms: {text}; {cpu}")
