"""Who takes steps against whom: the floor, agentstate, dbos. Each makes a state of a given size durable with each."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import orjson
import psycopg
from psycopg import sql

from agentstate.core.ids import new_id
from agentstate.dev.bench import world
from agentstate.dev.bench.states import Window, message
from agentstate.sdk.store import AgentSpec, Claim, StepFinish, StepStart, Turn, WorkerInfo
from agentstate.tenants.actors import Actor

GENERATION_STEPS = 400  # then a new run: a generation is bounded, and agents close theirs
FLOOR_TABLE = "create table if not exists bench_floor (run uuid, n int, state text, primary key (run, n))"
DBOS_DATABASE = "bench_dbos"
SPEC = AgentSpec(name="bench", version="1", fingerprint={"main": "1"})


class Contender(Protocol):
    def get_ready(self, steps: int) -> None:
        """Whatever is no step: a new run, for instance. Not measured."""

    def take(self, steps: int) -> None:
        """That many durable steps, one after the other."""


class Floor:
    """A prepared INSERT of the state as JSON text, committed each: nothing durable is cheaper."""

    def __init__(self, size: int) -> None:
        self._connection = psycopg.connect(world.superuser_url("postgres"), autocommit=True, prepare_threshold=0)
        self._window, self._run, self._n = Window(size), new_id(), 0

    def get_ready(self, steps: int) -> None:
        pass

    def take(self, steps: int) -> None:
        for _ in range(steps):
            self._n += 1
            state = orjson.dumps(self._window.next()).decode()
            self._connection.execute("insert into bench_floor values (%s, %s, %s)", [self._run, self._n, state])


class Ours:
    """A turn per step, as the executor sends it: the end of the step before, the begin of this one, the state."""

    def __init__(self, size: int, *, commits_wait: bool = True) -> None:
        from runs.engine.store import LocalStore

        self.store = LocalStore(bench_actor(), lease_s=600)
        self.store.register(SPEC)
        self._window, self._commits_wait = Window(size), commits_wait
        self._worker = WorkerInfo(f"racer-{os.getpid()}", pid=os.getpid())
        self.claim: Claim | None = None
        self._n, self._seq = 0, 0

    def get_ready(self, steps: int) -> None:
        if self.claim is None or self._n + steps > GENERATION_STEPS:
            self.claim = self._new_run()
            self._n = 0
            self.take(1)
        self._set_commit()

    def take(self, steps: int) -> None:
        assert self.claim is not None
        for _ in range(steps):
            self._n += 1
            finish = [StepFinish(self._seq, output=message(self._n))] if self._n > 1 else []
            start = StepStart(f"look#{self._n}", "look", payload={"page": self._n})
            reply = self.store.turn(self.claim, Turn(finish=finish, start=[start], state=self._window.next()))
            self._seq = reply.begun[0].seq

    def _new_run(self) -> Claim:
        run = self.store.admit("bench", {})
        claim = self.store.claim(self._worker, agents={"bench": SPEC}, run_id=run.run_id)
        assert claim is not None
        return claim

    def _set_commit(self) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(f"set synchronous_commit = {'on' if self._commits_wait else 'off'}")


class Dbos:
    """A workflow whose steps return the state, which is how dbos keeps one."""

    def __init__(self, size: int) -> None:
        dbos = import_module("dbos").DBOS
        url = world.superuser_url(DBOS_DATABASE)
        config = {
            "name": "bench",
            "system_database_url": url.replace("postgresql://", "postgresql+psycopg://"),
            "executor_id": str(os.getpid()),
            "log_level": "ERROR",
        }
        self._dbos = dbos(config=config)
        window = Window(size)

        def take_one() -> dict[str, Any]:  # dbos writes on what it is given: no bound method
            return window.next()

        look = dbos.step(name="look")(take_one)

        def main(steps: int) -> None:
            for _ in range(steps):
                look()

        self._main = dbos.workflow(name="main")(main)
        dbos.launch()

    def get_ready(self, steps: int) -> None:
        pass

    def take(self, steps: int) -> None:
        self._main(steps)


def make(name: str, size: int) -> Contender:
    match name:
        case "floor":
            return Floor(size)
        case "ours":
            return Ours(size)
        case "ours-async":
            return Ours(size, commits_wait=False)
        case "dbos":
            return Dbos(size)
    raise ValueError(name)


def bench_actor() -> Actor:
    """The one tenant of the bench."""
    from agentstate.tenants.models import Tenant

    scopes = frozenset({"runs.work", "runs.start", "runs.read"})
    tenant_id = Tenant.objects.values_list("id", flat=True).get()
    return Actor(kind="worker", id="bench", name="bench", tenant_id=tenant_id, scopes=scopes)


def dbos_is_installed() -> bool:
    return find_spec("dbos") is not None


def prepare_tables() -> None:
    """The floor's table and dbos's database. Idempotent."""
    with psycopg.connect(world.superuser_url("postgres"), autocommit=True) as connection:
        connection.execute(FLOOR_TABLE)
        if not connection.execute("select 1 from pg_database where datname = %s", [DBOS_DATABASE]).fetchone():
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(DBOS_DATABASE)))
