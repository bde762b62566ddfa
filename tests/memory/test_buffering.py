"""Messages that wait in Redis: what a crash can lose is what the answer said, and never more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import redis as redis_client
from django.db import connection

from agentstate.core import failpoints
from agentstate.core.limits import BUFFER_MESSAGES_MAX
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import keys
from memory.models import Message, Session, Subject, Unit
from memory.selectors import messages as reads
from memory.selectors import sessions as session_reads
from memory.services import buffering, messages, policies, sessions
from memory.services.messages import Appended, NewMessage

pytestmark = pytest.mark.usefixtures("committed_db", "redis")


class Desk:
    """One session whose messages wait, and the acts on it, each in a transaction of its own."""

    def __init__(self, tenant: Tenant, session: Session, agent: Actor) -> None:
        self.tenant_id, self.session_id, self.agent = tenant.id, session.id, agent

    def append(self, *lines: str, persistence: Any = "batched", **more: Any) -> Appended:
        new = [NewMessage("user", line, **more) for line in lines]
        with tenant_scope(self.tenant_id):
            return messages.append(self.session_id, new, persistence=persistence, actor=self.agent)

    def flush(self) -> int:
        with tenant_scope(self.tenant_id):
            return messages.flush(self.session_id)

    def said(self) -> list[str]:
        with tenant_scope(self.tenant_id):
            found = reads.between(self.session_id, 1, 10**6)
        assert [message.seq for message in found] == list(range(1, len(found) + 1))
        return [message.text for message in found]

    def waiting(self) -> list[str]:
        with tenant_scope(self.tenant_id):
            key = keys.existing(Session.objects.get(id=self.session_id).subject_id)
            return [entry.text for entry in buffering.read(self.session_id, key).entries]

    def policy(self, alice: Actor, **fields: Any) -> None:
        with tenant_scope(self.tenant_id):
            policies.set_for_agent("desk", fields, actor=alice)


@pytest.fixture
def desk(tenant: Tenant, subject: Subject, agent: Actor) -> Desk:
    with tenant_scope(tenant.id):
        session = sessions.open("ticket-1", subject_id=subject.id, agent="desk", actor=agent)
    return Desk(tenant, session, agent)


def test_a_buffered_message_says_what_is_at_risk(desk: Desk, alice: Actor) -> None:
    desk.policy(alice, batch_n=7, batch_s=3)
    batched = desk.append("a")
    assert not batched.durable and batched.messages[0][1] is None
    assert batched.at_risk == messages.AtRisk(7, 3.0)
    periodic = desk.append("b", persistence="periodic")
    assert periodic.at_risk == messages.AtRisk(BUFFER_MESSAGES_MAX, 3.0)
    assert desk.said() == [] and desk.waiting() == ["a", "b"]


def test_a_flush_records_in_order_what_waited_and_once(desk: Desk) -> None:
    ids = [desk.append(line).messages[0][0] for line in "abc"]
    assert desk.flush() == 3 and desk.flush() == 0
    assert desk.said() == ["a", "b", "c"] and desk.waiting() == []
    with tenant_scope(desk.tenant_id):
        assert [message.id for message in Message.objects.order_by("seq")] == ids
        assert Unit.objects.count() == 3


def test_the_number_of_messages_flushes(desk: Desk, alice: Actor) -> None:
    desk.policy(alice, batch_n=3)
    assert not desk.append("a").durable and not desk.append("b").durable
    third = desk.append("c")
    assert third.durable and third.messages[0][1] == 3
    assert desk.said() == ["a", "b", "c"] and desk.waiting() == []


def test_the_age_flushes_and_not_before(desk: Desk, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.append("a")
    assert messages.flush_due([tenant.id]) == 0 and desk.said() == []
    later = time.time() + 6
    monkeypatch.setattr(time, "time", lambda: later)
    assert messages.flush_due([tenant.id]) == 1 and desk.said() == ["a"]
    assert messages.flush_due([tenant.id]) == 0


def test_periodic_waits_for_its_age_whatever_the_number(desk: Desk, alice: Actor) -> None:
    desk.policy(alice, batch_n=1)
    assert not desk.append("a", "b", "c", persistence="periodic").durable
    assert desk.said() == []


def test_the_policy_decides_when_the_caller_does_not(desk: Desk, alice: Actor) -> None:
    desk.policy(alice, persistence="batched")
    assert not desk.append("a", persistence=None).durable
    desk.policy(alice, persistence="sync")
    assert desk.append("b", persistence=None).durable
    assert desk.said() == ["a", "b"]


def test_a_synchronous_message_comes_behind_what_waited(desk: Desk) -> None:
    desk.append("a", "b")
    assert desk.append("c", persistence="sync").messages[0][1] == 3
    assert desk.said() == ["a", "b", "c"] and desk.waiting() == []


def test_a_close_an_undo_and_an_expiry_record_what_waited(desk: Desk, tenant: Tenant, agent: Actor) -> None:
    desk.append("a", "b")
    with tenant_scope(tenant.id):
        messages.undo(desk.session_id, last_n=1, expected_version=1, reason="", actor=agent)
    assert desk.said() == ["a"]
    desk.append("c")
    with tenant_scope(tenant.id):
        sessions.close(desk.session_id, actor=agent)
        shown = reads.between(desk.session_id, 1, 9)
    assert [message.text for message in shown] == ["a", "c"] and desk.waiting() == []


def test_what_waits_keeps_a_session_from_expiring(desk: Desk, tenant: Tenant) -> None:
    desk.append("still here")
    with tenant_scope(tenant.id):
        row = Session.objects.get(id=desk.session_id)
        row.last_active_at, row.due_at = row.created_at.replace(year=2020), row.created_at.replace(year=2020)
        row.save(update_fields=["last_active_at", "due_at"])
        assert sessions.expire_due() == 0
        assert session_reads.get(desk.session_id).status == "open"
    assert desk.said() == ["still here"]


def test_messages_accepted_before_a_close_are_recorded_after_it(desk: Desk, tenant: Tenant, agent: Actor) -> None:
    desk.append("late")
    with tenant_scope(tenant.id):
        Session.objects.filter(id=desk.session_id).update(status="closed", due_at=None)
    assert desk.flush() == 1
    assert desk.said() == ["late"]


def test_nothing_that_waits_lies_open(desk: Desk, redis: redis_client.Redis) -> None:
    desk.append("the canary sings", author="Canaria", client_id="canary-id")
    everything = b"".join(redis.dump(name) or b"" for name in redis.scan_iter("as:*"))
    assert len(everything) > 100
    assert b"canary" not in everything and b"Canaria" not in everything


def test_a_buffer_that_is_full_is_recorded_at_once(desk: Desk) -> None:
    desk.append(*["x"] * 150, persistence="periodic")
    more = desk.append(*["y"] * 100, persistence="periodic")
    assert more.durable and len(desk.said()) == 250 and desk.waiting() == []


def test_a_buffer_is_bounded_in_bytes(desk: Desk) -> None:
    noise = [os.urandom(120_000).hex() for _ in range(40)]  # 240 KB each: does not compress below its entropy
    durable = [desk.append(text, persistence="periodic").durable for text in noise]
    assert any(durable) and not durable[0]
    desk.flush()
    assert desk.said() == noise


def test_without_redis_messages_are_durable_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.append("waits")

    def gone(*_: object, **__: object) -> object:
        raise redis_client.ConnectionError("no Redis here")

    with monkeypatch.context() as patch:
        patch.setattr(redis_client.Redis, "execute_command", gone)
        assert desk.append("a").durable and desk.append("b", persistence="sync").durable
        assert messages.flush_due([desk.tenant_id]) == 0
        assert desk.said() == ["a", "b"]
    desk.flush()
    assert desk.said() == ["a", "b", "waits"], "what Redis kept comes when it is back"


def test_flushall_loses_what_waited_and_nothing_else(desk: Desk, redis: redis_client.Redis, alice: Actor) -> None:
    desk.policy(alice, batch_n=4)
    for number in range(10):
        desk.append(f"{number}")
    redis.flushall()
    for number in range(10, 14):
        desk.append(f"{number}")
    desk.flush()
    lost = {f"{number}" for number in range(14)} - set(desk.said())
    assert lost == {"8", "9"}, "at most batch_n of one session, and only those not acknowledged as durable"
    assert desk.said() == [str(number) for number in [*range(8), *range(10, 14)]]


def test_a_late_removal_takes_nothing_that_came_after_flushall(desk: Desk, redis: redis_client.Redis) -> None:
    desk.append("a", client_id="c-a")
    with tenant_scope(desk.tenant_id):
        key = keys.existing(Session.objects.get(id=desk.session_id).subject_id)
        before = buffering.read(desk.session_id, key)
        messages.flush(desk.session_id)
        redis.flushall()
    desk.append("b")
    buffering.remove(desk.tenant_id, desk.session_id, before.names)
    assert desk.waiting() == ["b"]
    desk.flush()
    assert desk.said() == ["a", "b"]


def test_an_entry_somebody_changed_is_dropped_and_the_others_are_kept(desk: Desk, redis: redis_client.Redis) -> None:
    desk.append("a")
    desk.append("b")
    name = f"as:{desk.tenant_id}:session:{desk.session_id}:buffer"
    (first,) = cast(list[bytes], redis.zrange(f"{name}:order", 0, 0))
    value = bytearray(redis.hget(name, first))  # type: ignore[arg-type]
    value[-1] ^= 1
    redis.hset(name, first, bytes(value))
    desk.flush()
    assert desk.said() == ["b"] and not redis.exists(name)


def test_the_buffer_of_a_session_that_is_gone_is_dropped(desk: Desk, redis: redis_client.Redis) -> None:
    desk.append("a")
    with tenant_scope(desk.tenant_id):
        Session.objects.filter(id=desk.session_id).delete()
    redis.zadd(f"as:{desk.tenant_id}:buffers", {desk.session_id.hex: 0})
    assert messages.flush_due([desk.tenant_id]) == 0
    assert list(redis.scan_iter("as:*")) == []


def test_two_flushes_at_once_record_once(desk: Desk, redis: redis_client.Redis) -> None:
    for round_ in range(5):
        desk.append(*[f"{round_}.{number}" for number in range(10)])
        redis.zadd(f"as:{desk.tenant_id}:buffers", {desk.session_id.hex: 0})
        start = threading.Barrier(3)

        def flushing(start: threading.Barrier = start) -> None:
            try:
                start.wait(timeout=10)
                messages.flush_due([desk.tenant_id])
            finally:
                connection.close()

        everyone = [threading.Thread(target=flushing) for _ in range(3)]
        for one in everyone:
            one.start()
        for one in everyone:
            one.join(timeout=30)
    assert desk.said() == [f"{round_}.{number}" for round_ in range(5) for number in range(10)]


def test_appends_and_flushes_at_once_lose_and_double_nothing(desk: Desk, alice: Actor) -> None:
    desk.policy(alice, batch_n=5)
    failed: list[BaseException] = []

    def talk(voice: int) -> None:
        try:
            for turn in range(12):
                kind = "sync" if turn % 4 == 3 else "batched"
                desk.append(f"{voice}.{turn:02}", persistence=kind, client_id=f"{voice}.{turn}")
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    everyone = [threading.Thread(target=talk, args=(voice,)) for voice in range(3)]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(timeout=60)
    assert not failed
    desk.flush()
    said = desk.said()
    assert sorted(said) == [f"{voice}.{turn:02}" for voice in range(3) for turn in range(12)]
    for voice in range(3):
        mine = [line for line in said if line.startswith(f"{voice}.")]
        assert mine == sorted(mine), "each voice keeps its order"


ALONE = """
import sys, django
django.setup()
from uuid import UUID
from agentstate.core.clock import now
from agentstate.tenants import actors
from agentstate.tenants.scope import tenant_scope
from memory.services import messages
from memory.services.messages import NewMessage
tenant_id, session_id, act = UUID(sys.argv[1]), UUID(sys.argv[2]), sys.argv[3]
if act == "flush":
    messages.flush_due([tenant_id])
else:
    with tenant_scope(tenant_id):
        actor = actors.system("test")
        messages.append(session_id, [NewMessage("user", "last")], persistence=act, actor=actor)
"""


def killed(desk: Desk, act: str, failpoint: str) -> None:
    """A process of its own does this and is killed there."""
    environment = {**os.environ, "AGENTSTATE_FAILPOINTS": f"{failpoint}=kill", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", ALONE, str(desk.tenant_id), str(desk.session_id), act]
    done = subprocess.run(command, env=environment, timeout=60, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.fixture
def is_due(redis: redis_client.Redis) -> Callable[[Desk], None]:
    def make_due(desk: Desk) -> None:
        redis.zadd(f"as:{desk.tenant_id}:buffers", {desk.session_id.hex: 0})

    return make_due


def test_a_flush_killed_between_commit_and_removal_repeats_nothing(desk: Desk, is_due: Callable[[Desk], None]) -> None:
    desk.append("a", "b")
    is_due(desk)
    killed(desk, "flush", "memory.flush.committed")
    assert desk.said() == ["a", "b"] and desk.waiting() == ["a", "b"]
    desk.append("c")
    is_due(desk)
    messages.flush_due([desk.tenant_id])
    assert desk.said() == ["a", "b", "c"] and desk.waiting() == []
    with tenant_scope(desk.tenant_id):
        assert session_reads.get(desk.session_id).message_count == 3


def test_an_append_killed_between_commit_and_removal_repeats_nothing(desk: Desk) -> None:
    desk.append("a")
    killed(desk, "sync", "memory.flush.committed")
    assert desk.said() == ["a", "last"] and desk.waiting() == ["a"]
    desk.flush()
    assert desk.said() == ["a", "last"] and desk.waiting() == []


def test_a_worker_killed_with_messages_in_the_buffer_loses_none(desk: Desk) -> None:
    desk.append("a")
    killed(desk, "batched", "memory.append.buffered")
    assert desk.said() == []
    desk.flush()
    assert desk.said() == ["a", "last"]


def test_redis_wiped_between_commit_and_removal_is_harmless(desk: Desk, redis: redis_client.Redis) -> None:
    desk.append("a")
    killed(desk, "sync", "memory.flush.committed")
    redis.flushall()
    desk.append("b")
    desk.flush()
    assert desk.said() == ["a", "last", "b"]


def test_every_gap_of_the_buffer_has_a_failpoint() -> None:
    assert {"memory.append.buffered", "memory.flush.committed"} <= set(failpoints.NAMES)
