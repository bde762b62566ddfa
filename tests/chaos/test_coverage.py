"""No gap without a name: between any two durable writes of a run there is a failpoint at which the drill can kill it.

Everything that lasts is written down as it happens: commits that changed something, writes to Redis, sends to the other
side, and the failpoints that were come by. Two of the first three in a row, in one thread, are a gap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from django.db import connection
from django.db.backends.postgresql.base import DatabaseWrapper

from agentstate.core import failpoints
from agentstate.core.ids import parse_id
from agentstate.db import sql, wake
from agentstate.dev.drill.agents import drill
from agentstate.dev.sandbox.client import Sandbox
from agentstate.sdk.executor import Executor
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.services import buffering
from runs.engine.store import LocalStore
from runs.models import Approval
from runs.services import approvals, control, settling, workers

Event = tuple[str, str]  # (failpoint | commit | redis | send, which)
# What is no write of ours that lasts: reads, hints that nobody keeps, and the queue's own bookkeeping.
PASSING = {
    "GET",
    "HGETALL",
    "HGET",
    "HKEYS",
    "PUBLISH",
    "PING",
    "CLIENT",
    "SMEMBERS",
    "SCARD",
    "LLEN",
    "SELECT",
    "HELLO",
}
PASSING |= {"SUBSCRIBE", "UNSUBSCRIBE", "INFO", "EXISTS"}
READS = (buffering._READ,)  # scripts
CALLS = ("SELECT RUNS_TURN(", "SELECT RUNS_TURN_PLAIN(", "SELECT RUNS_RENEW(", "SELECT RUNS_CLAIM(")
WRITES = ("INSERT", "UPDATE", "DELETE", *CALLS)


class Story:
    """What one thread did, in order."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.events: list[Event] = []

    def tell(self, kind: str, what: str) -> None:
        if threading.get_ident() == self.thread:
            self.events.append((kind, what))

    def gaps(self) -> list[tuple[Event, Event]]:
        pairs = zip(self.events, self.events[1:], strict=False)
        return [(one, other) for one, other in pairs if "failpoint" not in (one[0], other[0])]


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    told = Story()
    monkeypatch.setattr(failpoints, "_trace", "on")
    monkeypatch.setattr(failpoints, "_append", lambda name: told.tell("failpoint", name))
    _watch_commits(told, monkeypatch)
    _watch_redis(told, monkeypatch)
    _watch_sends(told, monkeypatch)
    with connection.execute_wrapper(_watch_statements(told)):
        yield told


def _watch_commits(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = DatabaseWrapper._commit  # type: ignore[attr-defined]

    def committing(self: Any) -> Any:
        with self.connection.cursor() as cursor:
            found = cursor.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()
        done = commit(self)
        if found[0] is not None:
            told.tell("commit", "a transaction")
        return done

    monkeypatch.setattr(DatabaseWrapper, "_commit", committing)
    execute, together = sql._execute, sql.together

    def executing(wrapper: Any, statement: str, args: Any, **options: Any) -> Any:
        done = execute(wrapper, statement, args, **options)
        _tell_alone(told, statement)
        return done

    def executing_together(*asked: sql.Query, **options: Any) -> Any:
        done = together(*asked, **options)
        for statement, _ in asked:
            if _tell_alone(told, statement):
                break  # they are one transaction
        return done

    call = sql.Call.__call__

    def calling(self: sql.Call, args: Any) -> Any:
        done = call(self, args)
        _tell_alone(told, self.statement)
        return done

    monkeypatch.setattr(sql.Call, "__call__", calling)
    monkeypatch.setattr(sql, "_execute", executing)
    monkeypatch.setattr(sql, "together", executing_together)


def _watch_statements(told: Story) -> Callable[..., Any]:
    def wrapper(execute: Any, statement: str, params: Any, many: Any, context: Any) -> Any:
        done = execute(statement, params, many, context)
        _tell_alone(told, statement)
        return done

    return wrapper


def _tell_alone(told: Story, statement: str) -> bool:
    """A statement outside a transaction is a commit of its own."""
    lasts = not connection.in_atomic_block and statement.strip().upper().startswith(WRITES)
    if lasts:
        told.tell("commit", statement.strip()[:40])
    return lasts


def _watch_redis(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = redis.Redis.execute_command

    def executing(self: Any, *args: Any, **options: Any) -> Any:
        done = execute(self, *args, **options)  # type: ignore[no-untyped-call]
        is_read = str(args[0]).split()[0] in PASSING or args[1:2] in [(script,) for script in READS]
        if not is_read and not str(args[1:2]).startswith("('_kombu"):
            told.tell("redis", " ".join(map(str, args[:1])))
        return done

    monkeypatch.setattr(redis.Redis, "execute_command", executing)


def _watch_sends(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    send = httpx.Client.send

    def sending(self: Any, request: httpx.Request, **options: Any) -> Any:
        if request.method != "GET":
            told.tell("send", str(request.url.path))
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", sending)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path / "sandbox") as running:
        for name, port in running.env().items():
            monkeypatch.setenv(name, port)
        monkeypatch.setenv("AGENTSTATE_DRILL_LEDGER", str(running.folder / "ledger.jsonl"))
        yield running


@pytest.fixture
def store(committed_db: None, alice: Actor, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setattr(wake, "_broker_rests_until", 0.0)
    made = LocalStore(alice, shared=True, lease_s=30)
    made.register(drill.spec())
    return made


def go_on(store: LocalStore, run_id: str) -> str:
    claim = store.claim(workers.this_process(), agents={drill.name: drill.spec()}, run_id=run_id)
    assert claim is not None
    status = Executor(store, claim, drill).run().status
    assert status != "failed", store.get(run_id).failure
    return status


def pending(store: LocalStore) -> Approval:
    with tenant_scope(store.tenant_id):
        return Approval.objects.get(status="pending")


def seen(approval: Approval) -> dict[str, Any]:
    return {"version": approval.version, "proposal_hash": bytes(approval.proposal_hash).hex()}


@pytest.mark.parametrize("effect", ["pure", "notes", "memory", "keyed", "probed", "destructive"])
def test_no_two_writes_of_a_run_without_a_failpoint(
    story: Story, sandbox: Sandbox, store: LocalStore, effect: str
) -> None:
    story.events.clear()
    run = store.admit("drill", {"case": "x", "effect": effect, "timing": "fast"})
    assert go_on(store, run.run_id) == "succeeded"
    assert {kind for kind, _ in story.events} >= {"failpoint", "commit", "redis"}
    assert ("send" in {kind for kind, _ in story.events}) == (effect in ("keyed", "probed", "destructive"))
    assert story.gaps() == []


def test_nor_around_a_decision_and_a_verdict(story: Story, sandbox: Sandbox, store: LocalStore, bob: Actor) -> None:
    sandbox.behave("approved.fast", drop_reply={"value": True, "calls": 1})
    story.events.clear()
    run = store.admit("drill", {"case": "x", "effect": "approved", "timing": "fast"})
    assert go_on(store, run.run_id) == "waiting"
    asked = pending(store)
    approvals.decide(asked.id, actor=bob, decision="approve", **seen(asked))
    assert go_on(store, run.run_id) == "in_doubt"
    doubt = pending(store)
    settling.settle(doubt.id, actor=bob, verdict="happened", reason="it is in the ledger", **seen(doubt))
    assert go_on(store, run.run_id) == "succeeded"
    assert story.gaps() == []


def test_nor_where_people_hold_a_run(story: Story, store: LocalStore, alice: Actor) -> None:
    story.events.clear()
    run = store.admit("drill", {"case": "x", "effect": "pure", "timing": "fast"})
    control.pause(parse_id("run", run.run_id), actor=alice)
    control.resume(parse_id("run", run.run_id), actor=alice, reason="go on")
    control.cancel(parse_id("run", run.run_id), actor=alice, reason="enough")
    assert story.gaps() == []


def test_a_gap_is_seen(story: Story, store: LocalStore) -> None:
    """Two admissions in a row, their failpoints left out."""
    story.events.clear()
    for _ in range(2):
        store.admit("drill", {"case": "x", "effect": "pure", "timing": "fast"})
    story.events = [event for event in story.events if event[0] != "failpoint"]
    assert story.gaps() != []
