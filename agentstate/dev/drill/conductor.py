"""Runs waves of cases in one world and tells, as JSON lines, what became of each: `python -m agentstate.dev.drill`.

It plays the people and the misfortunes; whatever drives runs are the workers. It waits for nothing without a deadline.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import redis
from django.conf import settings

from agentstate.dev.drill import memories, oracle, people
from agentstate.dev.drill.cases import AT_MESSAGES, AT_STOP, Case
from agentstate.dev.drill.oracle import Live
from agentstate.dev.drill.pace import (
    ACT_DELAY_S,
    GATHER_S,
    LEASE_S,
    QUIET_S_MAX,
    REPLY_DELAY_S,
    STOPPED_S,
    STOPPED_S_MAX,
    TAKEN_S_MAX,
    TICK_S,
    WAVE_S_MAX,
)
from agentstate.dev.drill.world import World, wait_until

SWITCHES: dict[str, dict[str, Any]] = {
    "fast": {},
    "slow_reply": {"reply_delay_s": REPLY_DELAY_S},
    "slow_act": {"act_delay_s": ACT_DELAY_S},
    "lost_reply": {"drop_reply": True},
    "hung_up": {"drop_early": True, "act_delay_s": ACT_DELAY_S},
}
UNSHOWN = ("flush", "postgres", "reply")  # then some entries were never shown, and ride in the next turn all the same
REQUESTS = {"admit": "admit", "wake": "admit", "approval": "decide", "settle": "settle"}  # failpoint -> who dies there


class Wave:
    """Cases side by side in one world."""

    def __init__(self, world: World, cases: Sequence[Case], *, number: int) -> None:
        self._world = world
        self._live: dict[str, Live] = {}
        self._cases = {f"c{number}-{position}": case for position, case in enumerate(cases)}
        self._stopped: dict[int, tuple[Live, float]] = {}  # pid -> when it stood still at the earliest
        self._looked_at = time.monotonic()
        self._hasty: set[UUID] = set()
        self._asked: dict[str, str] = {}  # case -> the request whose process was killed already
        self._redis = redis.Redis.from_url(settings.REDIS_URL)

    def run(self) -> list[Live]:
        self._prepare()
        for case_id, case in self._cases.items():
            self._begin(case_id, case)
        done = wait_until(self._tick, s=WAVE_S_MAX, every_s=TICK_S)
        wait_until(self._is_quiet, s=QUIET_S_MAX, every_s=TICK_S)
        self._judge(done)
        return list(self._live.values())

    # Beginning

    def _prepare(self) -> None:
        world = self._world
        world.sandbox.reset()
        for tool in {case.tool for case in self._cases.values()}:
            world.sandbox.behave(tool, **self._switches(tool))
        kinds = {case.death for case in self._cases.values()} & set(AT_MESSAGES)
        world.orders.deliver(kinds.pop() if kinds else "")
        for case in self._cases.values():
            if case.role == "watcher":
                world.arm_watcher(case.spec)

    def _switches(self, tool: str) -> dict[str, Any]:
        effect, timing = tool.split(".")
        switches: dict[str, Any] = {**SWITCHES[timing]}
        first = sum(case.tool == tool for case in self._cases.values())
        for name in ("drop_reply", "drop_early"):  # of each case the first call only
            if name in switches:
                switches[name] = {"value": True, "calls": first}
        return {**switches, "dedupe": effect == "keyed", "probe": "on" if effect == "probed" else "off"}

    def _begin(self, case_id: str, case: Case) -> None:
        if case.role == "child" and case.failpoint:
            self._world.orders.write_plan(case_id, attempt=case.attempt, spec=case.spec)
        if case.role == "person":
            self._die_asking("admit", case_id, case, {"case_id": case_id, "case": case.json()})
        run_id = people.persist(lambda: people.admit(case_id, case.json()))
        live = self._live[case_id] = Live(case, case_id, run_id, time.monotonic())
        live.hit = not case.failpoint or self._asked.get(case_id, "") != ""

    # Watching

    def _tick(self) -> bool:
        self._handle_stopped()
        rows = people.look(people.RUNS, list(self._live), tenant_id=self._world.tenant_id)
        for row in rows:
            live = self._live[row[1]]
            oracle.watch(live, row)
            if live.is_over and not live.ended_at:
                live.ended_at = time.monotonic()
        self._answer_questions()
        self._look_at_scratchpads()
        return all(live.is_over for live in self._live.values())

    def _by_run(self) -> dict[UUID, Live]:
        return {live.run_id: live for live in self._live.values()}

    def _answer_questions(self) -> None:
        by_run = self._by_run()
        for row in people.look(people.QUESTIONS, list(by_run), tenant_id=self._world.tenant_id):
            approval_id, kind, version, proposal_hash, run_id, key, tool = row[:7]
            asked = {"approval_id": str(approval_id), "version": version, "proposal_hash": proposal_hash}
            if kind == "settle":
                self._settle(by_run[run_id], approval_id, key, tool, asked)
            else:
                self._die_asking("decide", by_run[run_id].case_id, by_run[run_id].case, asked)
                people.unless_held(partial(people.decide, **asked))

    def _settle(self, live: Live, approval_id: UUID, key: str, tool: str, asked: dict[str, Any]) -> None:
        """As a careful person would, after one who is not."""
        live.doubts.add(approval_id)
        if approval_id not in self._hasty:
            if people.unless_held(lambda: people.be_hasty(**asked)):
                self._hasty.add(approval_id)
            return
        calls = self._world.sandbox.calls(tool, key)
        acts = [call for call in calls if call.acted]
        if not acts and any("replied" not in call.phases for call in calls):
            return  # something of ours is still under way over there
        verdict = "happened" if acts else "did_not_happen"
        said = {**asked, "verdict": verdict, "output": acts[0].result if acts else None}
        self._die_asking("settle", live.case_id, live.case, said)
        people.unless_held(lambda: people.settle(**said))

    def _die_asking(self, verb: str, case_id: str, case: Case, arguments: dict[str, Any]) -> None:
        """The process that carries a person's request dies at the failpoint; then they ask again."""
        if case.role != "person" or REQUESTS[case.failpoint.split(".")[0]] != verb or case_id in self._asked:
            return
        if self._world.zygote.act(verb, spec=case.spec, arguments=arguments) == -signal.SIGKILL:
            self._asked[case_id] = verb
            if case_id in self._live:
                self._live[case_id].hit = True

    def _look_at_scratchpads(self) -> None:
        """What was shown and is not durable yet must be there. Postgres is read second: it can only require less."""
        if any(live.case.death in UNSHOWN for live in self._live.values()):
            return
        running = [live for live in self._live.values() if live.case.effect == "notes" and live.status == "running"]
        pads = {live.case_id: self._pad(live) for live in running}
        rows = people.look(people.RUNS, list(pads), tenant_id=self._world.tenant_id) if pads else []
        for row in rows:
            entries, last = pads[row[1]]
            missing = [n for n in range(row[5] + 1, last + 1) if n not in entries]
            if missing and not self._live[row[1]].violations:
                gone = f"{len(missing)} entries that no turn has made durable are gone ({missing[0]}-{missing[-1]}"
                self._live[row[1]].violations.append(f"{gone} of {last}; {row[2]}, fence {row[4]}, durable {row[5]})")

    def _pad(self, live: Live) -> tuple[set[int], int]:
        base = f"as:{self._world.tenant_id}:run:{live.run_id}"
        meta: Any = self._redis.hget(f"{base}:meta", "last")
        names: Any = self._redis.hkeys(f"{base}:pad")
        return {int(name) for name in names}, int(meta or 0)

    # Misfortunes

    def _handle_stopped(self) -> None:
        now = time.monotonic()
        self._find_stopped(now)
        for pid, (live, since) in list(self._stopped.items()):
            if live.case.death == "stop" and now < since + STOPPED_S:
                continue
            if live.case.death == "zombie" and live.fence <= live.case.attempt and now < since + TAKEN_S_MAX:
                continue
            if live.case.death == "flush":
                self._world.flush()
            elif live.case.death == "reply" and self._world.proxy:
                self._world.proxy.swallow_next_commit(pid)
            elif live.case.death in ("group", "postgres"):
                continue
            self._let_go(pid)
        self._strike_all(now)

    def _find_stopped(self, now: float) -> None:
        pids = set(self._world.stopped()) - set(self._stopped)
        for live in self._live.values() if pids else ():
            pid = self._world.orders.pid_of(live.case_id)
            if pid in pids and live.case.death in AT_STOP:
                self._stopped[pid] = live, self._looked_at
                live.hit = True
        self._looked_at = now

    def _strike_all(self, now: float) -> None:
        """Death of the group or of Postgres: once for all who stand still."""
        struck = {pid: found for pid, found in self._stopped.items() if found[0].case.death in ("group", "postgres")}
        if not struck or now < min(since for _, since in struck.values()) + GATHER_S:
            return
        if next(iter(struck.values()))[0].case.death == "group":
            self._world.kill_group()
            self._stopped = {pid: found for pid, found in self._stopped.items() if pid not in struck}
            self._world.start_group()
            return
        self._world.restart_postgres()
        for pid in struck:
            self._let_go(pid)

    def _let_go(self, pid: int) -> None:
        live, since = self._stopped.pop(pid)
        if live.case.failpoint == "call.before" and time.monotonic() > since + STOPPED_S_MAX:
            live.unfair = True
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    # The end

    def _is_quiet(self) -> bool:
        """Nobody drives any more, and nothing is under way on the other side."""
        self._handle_stopped()
        if self._stopped or len(self._world.children()) > 1:
            return False
        return all("replied" in call.phases for call in self._world.sandbox.calls())

    def _judge(self, done: bool) -> None:
        tenant_id, by_run = self._world.tenant_id, self._by_run()
        runs = list(by_run)
        keys: dict[UUID, set[str]] = {run_id: set() for run_id in runs}
        for run_id, key in people.look(people.KEYS, runs, runs, tenant_id=tenant_id):
            keys[run_id].add(key)
        attempts: dict[UUID, dict[str, int]] = {run_id: {} for run_id in runs}
        for run_id, name, attempt in people.look(people.ATTEMPTS, runs, tenant_id=tenant_id):
            attempts[run_id][name] = attempt
        calls = self._world.sandbox.calls()
        for run_id, after_s in people.look(people.EARLY, LEASE_S, runs, tenant_id=tenant_id):
            by_run[run_id].violations.append(f"taken over after {after_s:.2f} s, before its lease ended")
        for run_id, text in people.look(people.UNFINISHED, runs, tenant_id=tenant_id):
            by_run[run_id].violations.append(text)
        for live in self._live.values():
            live.violations = oracle.judge(live, keys=keys[live.run_id], calls=calls, attempts=attempts[live.run_id])
            live.violations += self._misremembered(live)
            live.hit = live.hit or self._was_hit(live)
        # A run that an earlier wave left unfinished may still act.
        every = [key for (key,) in people.look(people.EVERY_KEY, tenant_id=tenant_id)]
        strays = oracle.strays(every, calls)
        if strays and self._live:
            next(iter(self._live.values())).violations += strays
        if not done:
            self._world.kill_group()  # whatever hangs must not spoil the next wave
            self._world.start_group()

    def _misremembered(self, live: Live) -> list[str]:
        if live.case.effect != "memory" or live.status != "succeeded":
            return []
        seen = memories.of(live.case_id, live.run_id, tenant_id=self._world.tenant_id)
        is_wiped = any(other.case.death == "flush" for other in self._live.values())
        return oracle.judge_memory(live, seen, may_lose=is_wiped)

    def _was_hit(self, live: Live) -> bool:
        case = live.case
        if case.role == "watcher":
            return self._world.orders.watcher_hits().count(case.failpoint) > 0
        return self.trace(live, case.attempt).count(case.failpoint) >= case.nth

    def trace(self, live: Live, attempt: int) -> list[str]:
        path = self._world.orders.trace(live.case_id, attempt)
        return path.read_text().split() if path.exists() else []


def traced(world: World, effects: Iterable[str]) -> tuple[list[Live], dict[tuple[str, int], list[str]]]:
    """One undisturbed run of each effect, and the failpoints that each of its claims came by."""
    wave = Wave(world, [Case(effect) for effect in effects], number=0)
    lives = wave.run()
    found = {}
    for live in lives:
        for attempt in range(1, live.fence + 1):
            hits = [
                name for name in wave.trace(live, attempt) if name != "lease.renew"
            ]  # a matter of time, not of place
            found[live.case.effect, attempt] = hits
    return lives, found
