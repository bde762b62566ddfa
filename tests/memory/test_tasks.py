"""The tasks of memory: over all tenants, bounded in time, and harmless when they run twice at once or are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import current_app
from django.db import connection

from agentstate import celery_settings
from agentstate.celery import QUEUES
from agentstate.core import clock
from agentstate.llm import chat
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import tasks
from memory.models import Item, Message, Proposal, Session, Subject, Summary, Unit
from memory.recall import words
from memory.selectors import sessions as session_reads
from memory.services import extraction, items, learning, messages, policies, rounds, sessions, subjects, upkeep
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage

pytestmark = pytest.mark.usefixtures("committed_db", "redis")
NAMES = ("flush", "expire", "summarise", "extract", "consolidate", "embed", "reword", "backfill", "retain")


class Tenanted:
    """One session of one tenant."""

    def __init__(self, tenant: Tenant, actor: Actor, alice: Actor) -> None:
        self.tenant_id, self.actor = tenant.id, actor
        with tenant_scope(tenant.id):
            self.subject = subjects.resolve(external_id="ada")
            policies.set_for_agent("desk", {"summarise_at_messages": 4}, actor=alice)
            self.session = sessions.open("talk", subject_id=self.subject.id, agent="desk", actor=actor)

    def say(self, *lines: str, persistence: Any = "sync", role: str = "user") -> list[UUID]:
        with tenant_scope(self.tenant_id):
            new = [NewMessage(role, line) for line in lines]
            said = messages.append(self.session.id, new, persistence=persistence, actor=self.actor)
        return [id for id, _ in said.messages]

    def count(self, model: Any, **where: Any) -> int:
        with tenant_scope(self.tenant_id):
            return int(model.objects.filter(**where).count())

    def row(self) -> session_reads.SessionRow:
        with tenant_scope(self.tenant_id):
            return session_reads.get(self.session.id)

    def age(self, **by: float) -> None:
        with tenant_scope(self.tenant_id):
            past = clock.now() - timedelta(**by)
            Session.objects.filter(id=self.session.id).update(last_active_at=past, due_at=past)


@pytest.fixture
def both(tenant: Tenant, other_tenant: Tenant, agent: Actor, alice: Actor, charlie: Actor) -> list[Tenanted]:
    there = Actor("worker", "desk-2", "desk-2", other_tenant.id, scopes=frozenset({"runs.work", "memory.write"}))
    return [Tenanted(tenant, agent, alice), Tenanted(other_tenant, there, charlie)]


def test_every_task_is_in_the_schedule_and_has_a_queue_that_is_served() -> None:
    current_app.loader.import_default_modules()
    beat: dict[Any, Any] = {entry["task"]: entry for entry in celery_settings.beat_schedule.values()}
    ours = {name for name in current_app.tasks if not name.startswith("celery.")}
    assert {f"memory.{name}" for name in NAMES} <= ours
    assert ours - set(beat) == {"runs.drive"}, "what nobody sends by the clock is sent when a run is woken"
    assert set(celery_settings.task_routes) <= ours, "a route to no task"
    queues = {name: current_app.amqp.router.route({}, name)["queue"].name for name in ours}
    assert set(queues.values()) == set(QUEUES), "a queue that nobody serves, or nobody fills"
    assert (queues["runs.drive"], queues["memory.embed"], queues["memory.flush"]) == ("drive", "summarise", "sweep")
    assert beat["memory.flush"]["schedule"] == 1.0
    assert len(celery_settings.beat_schedule) == len(beat), "no two entries send the same task"


def test_flush_records_what_is_due_in_every_tenant(both: list[Tenanted], redis: Any) -> None:
    for one in both:
        one.say("waits", persistence="batched")
        redis.zadd(f"as:{one.tenant_id}:buffers", {one.session.id.hex: 0})
    assert tasks.flush() == 2 and tasks.flush() == 0
    assert [one.count(Message) for one in both] == [1, 1]


def test_expire_ends_what_is_due_in_every_tenant(both: list[Tenanted]) -> None:
    for one in both:
        one.age(days=2)
        with tenant_scope(one.tenant_id):
            kept = items.remember(one.subject.id, NewItem("Ada lives in Graz."), actor=one.actor)
            Item.objects.filter(id=kept.item.id).update(expires_at=clock.now() - timedelta(days=1))  # type: ignore[union-attr]
    tasks.expire()
    assert [one.row().status for one in both] == ["expired"] * 2
    assert [one.count(Item, status="expired") for one in both] == [1, 1]


def test_summarise_tells_the_sessions_of_every_tenant(both: list[Tenanted]) -> None:
    for one in both:
        one.say(*[f"This is line {number} of our talk." for number in range(9)])
    tasks.summarise()
    assert [one.count(Summary, level="session", stale=False) for one in both] == [1, 1]


SAID = "Please remember: I prefer to be called by mail. My customer number is 77-1200."


def test_extract_proposes_what_was_said_once(both: list[Tenanted]) -> None:
    for one in both:
        one.say(SAID)
    tasks.extract()
    found = [one.count(Proposal) + one.count(Item) for one in both]
    assert all(found) and found[0] == found[1]
    tasks.extract()
    with tenant_scope(both[0].tenant_id):
        Session.objects.filter(id=both[0].session.id).update(extracted_seq=0)  # as if killed before it was noted
    tasks.extract()
    assert [one.count(Proposal) + one.count(Item) for one in both] == found


def test_extract_reads_nothing_when_the_policy_says_off(both: list[Tenanted], alice: Actor) -> None:
    with tenant_scope(both[0].tenant_id):
        policies.set_for_agent("desk", {"extraction": "off"}, actor=alice)
    both[0].say(SAID)
    tasks.extract()
    assert both[0].count(Proposal) == 0
    with tenant_scope(both[0].tenant_id):
        session = Session.objects.get(id=both[0].session.id)
        assert session.extracted_seq == session.last_seq == 1


def test_a_model_that_is_down_leaves_the_stretch_for_the_next_round(
    both: list[Tenanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    both[0].say(SAID)

    def down(*_: object, **__: object) -> object:
        raise chat.ModelUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "after_turn", down)
        tasks.extract()
    with tenant_scope(both[0].tenant_id):
        assert Session.objects.get(id=both[0].session.id).extracted_seq == 0
        (row,) = (row for row in upkeep.standing() if row.name == learning.NAME)
        assert row.state == "failed" and row.error.startswith("ModelUnavailable")
    tasks.extract()
    assert both[0].count(Proposal) + both[0].count(Item) > 0
    with tenant_scope(both[0].tenant_id):
        assert all(row.state == "idle" for row in upkeep.standing() if row.name == learning.NAME)


@pytest.mark.parametrize("name", NAMES)
def test_two_at_once_are_harmless(both: list[Tenanted], name: str, redis: Any) -> None:
    for one in both:
        one.say(SAID, *[f"This is line {number} of our talk." for number in range(20)])
        one.say("waits", persistence="batched")
        redis.zadd(f"as:{one.tenant_id}:buffers", {one.session.id.hex: 0})
    run: Callable[[], object] = getattr(tasks, name)
    start = threading.Barrier(2)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            start.wait(timeout=10)
            run()
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    everyone = [threading.Thread(target=work) for _ in range(2)]
    for one_ in everyone:
        one_.start()
    for one_ in everyone:
        one_.join(timeout=60)
    assert not failed
    for one in both:
        messages_ = one.count(Message)
        assert messages_ in (21, 22) and one.row().message_count == messages_
        with tenant_scope(one.tenant_id):
            told = list(Summary.objects.filter(level="segment").values_list("from_seq", flat=True))
            proposed = list(Proposal.objects.values_list("digest", flat=True))
            assert all(row.state in ("idle", "running") for row in upkeep.standing())
        assert len(told) == len(set(told)) and len(proposed) == len({bytes(digest) for digest in proposed})


@pytest.mark.parametrize("name", NAMES)
def test_a_task_with_nothing_to_do_does_nothing(tenant: Tenant, other_tenant: Tenant, name: str) -> None:
    started = time.monotonic()
    getattr(tasks, name)()
    assert time.monotonic() - started < 30


ALONE = "import django; django.setup(); from memory import tasks; tasks.extract()"


def test_an_extraction_killed_before_it_is_noted_proposes_nothing_twice(both: list[Tenanted]) -> None:
    both[0].say(SAID)
    environment = {
        **os.environ,
        "AGENTSTATE_FAILPOINTS": "memory.extract.proposed=kill",
        "PYTHONPATH": str(Path.cwd()),
    }
    done = subprocess.run([sys.executable, "-c", ALONE], env=environment, timeout=60, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    before = both[0].count(Proposal) + both[0].count(Item)
    assert before > 0
    tasks.extract()
    assert both[0].count(Proposal) + both[0].count(Item) == before


def test_a_round_gives_every_tenant_its_turn_and_ends_in_time(both: list[Tenanted]) -> None:
    turns: list[UUID] = []

    def endless(tenant_id: UUID, until_s: float) -> bool:
        turns.append(tenant_id)
        time.sleep(max(0.0, min(0.02, until_s - time.monotonic())))
        return True

    started = time.monotonic()
    rounds.over_tenants(endless, for_s=0.3)
    assert time.monotonic() - started < 5
    each = [turns.count(one.tenant_id) for one in both]
    assert min(each) >= 1 and max(each) - min(each) <= 1


def test_a_tenant_in_trouble_does_not_keep_the_others(both: list[Tenanted]) -> None:
    reached: list[UUID] = []

    def refused(tenant_id: UUID, until_s: float) -> bool:
        reached.append(tenant_id)
        raise chat.ModelUnavailable("down")

    rounds.over_tenants(refused, for_s=5)
    assert set(reached) == {one.tenant_id for one in both}


def test_a_subject_is_one_row_per_tenant(both: list[Tenanted]) -> None:
    assert [one.count(Subject) for one in both] == [1, 1]


def test_words_are_kept_anew_once_after_the_setting_changed(both: list[Tenanted], alice: Actor) -> None:
    talk, _ = both
    talk.say("The parcel stands at the back door.")
    parcel = words.digest("parcel").to_bytes(8, "little")

    def kept() -> tuple[bytes, list[Any]]:
        with tenant_scope(talk.tenant_id):
            ended = [row.finished_at for row in upkeep.standing() if row.name == "reword"]
            return bytes(Unit.objects.values_list("words", flat=True).get() or b""), ended

    tasks.reword()
    assert parcel in kept()[0]
    with tenant_scope(talk.tenant_id):
        policies.set_for_tenant("fulltext", "blind", actor=alice)
    tasks.reword()
    blind, ended = kept()
    assert blind
    assert parcel not in blind
    tasks.reword()
    assert kept() == (blind, ended)  # nothing was left to do
