"""A worker that never comes back keeps no erasure from its end, and what it says afterwards brings no word back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis as redis_client
from django.conf import settings
from django.db import connection

from agentstate.affairs import erasing, invariants
from agentstate.affairs.states import ErasureStatus
from agentstate.audit import verification
from agentstate.core import clock
from agentstate.core.errors import Fenced
from agentstate.core.limits import ERASE_GRACE_S
from agentstate.sdk.store import Claim, Entry, StepFinish
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from runs.models import Approval, LateReply, Run, Step
from runs.selectors import attention, steps
from tests.affairs.erasable import Person, Town
from tests.affairs.test_erasing import erase

if TYPE_CHECKING:
    from django.test import Client

    from agentstate.affairs.models import Erasure
    from agentstate.tenants.models import User

pytestmark = pytest.mark.django_db
CALL = {"effect": "destructive", "kind": "tool", "payload": {"to": "Adalbert"}}


@pytest.fixture
def town(alice: Actor) -> Town:
    return Town(alice)


@pytest.fixture
def ada(town: Town) -> Person:
    """One run of hers is being driven, and its call is under way."""
    person = town.meet("ada", "Adalbert")
    person.runs["driven"] = town.driven_run(person)
    town.desk.begin(person.runs["driven"], "pay", **CALL)
    return person


def go_on(town: Town, begun: Erasure, *, for_s: float = 20) -> Erasure:
    return erasing.go_on(town.tenant_id, begun.id, for_s=for_s)


def out_of_patience(town: Town, begun: Erasure) -> None:
    """The time for which the erasure waits is over."""
    with tenant_scope(town.tenant_id):
        row = erasing.find(begun.subject_id)
        row.waits = {run: (clock.now() - timedelta(seconds=1)).isoformat() for run in row.waits}
        row.save(update_fields=["waits"])


def check_doubt(town: Town, claim: Claim) -> None:
    """Called once, in doubt for ever, and nobody is asked what cannot be read."""
    with tenant_scope(town.tenant_id):
        step = Step.objects.get(run_id=Run.objects.get(trace_id=claim.trace_id).id, effect="destructive")
        assert (step.status, step.outcome, step.attempt, step.sent) == ("in_doubt", "unknown", 1, 1)
        assert step.key
        assert not Approval.objects.filter(status="pending").exists()
        assert attention.doubts() == []
        assert [each.body for each in steps.late(step.run_id, step.seq, b"")] == [None] * LateReply.objects.count()
        assert all(bytes(late.body) == b"" for late in LateReply.objects.all())
    assert verification.verify(town.tenant_id) == []
    assert invariants.check(town.tenant_id) == []


def say_afterwards(town: Town, claim: Claim, redis: redis_client.Redis) -> None:
    """The worker comes back, with everything that it holds."""
    for attempt in (
        lambda: town.desk.store.renew(claim),
        lambda: town.desk.finish(claim, 1, output={"paid": "Adalbert"}),
        lambda: town.desk.begin(claim, "more", **CALL),
    ):
        with pytest.raises(Fenced):
            attempt()
    town.desk.store.note(claim, [Entry(2, "note", "Adalbert was paid")])  # not shown: the window is shut
    town.desk.store.late(claim, StepFinish(1, output={"paid": "Adalbert"}))
    assert not redis.keys("as:*:pad")


class TestLostWorkers:
    def test_a_call_that_is_held_open_for_ever_is_left_in_doubt(
        self, town: Town, ada: Person, redis: redis_client.Redis, client: Client, alice_user: User
    ) -> None:
        claim = ada.runs["driven"]
        begun = go_on(town, erase(town, ada, wait_s=0.3), for_s=0.3)
        town.desk.store.renew(claim)  # it lives, and says so
        assert begun.status == ErasureStatus.STOPPING
        assert begun.waits.keys() == {claim.run_id}
        until = clock.now() + timedelta(seconds=settings.LEASE_S + ERASE_GRACE_S)
        assert begun.waits[claim.run_id] <= until.isoformat()
        assert go_on(town, begun, for_s=0).waits == begun.waits, "looking again gives it no more time"
        out_of_patience(town, begun)
        done = go_on(town, begun)
        assert (done.status, done.waits) == (ErasureStatus.VERIFIED, {}), done.problem
        say_afterwards(town, claim, redis)
        check_doubt(town, claim)
        client.force_login(alice_user)
        for page in ("", "steps/1/", "audit/", "resume/"):
            answer = client.get(f"/t/acme/runs/{claim.run_id}/{page}")
            assert answer.status_code == 200, page
            assert "Adalbert" not in answer.content.decode()
        assert client.get("/t/acme/approvals/").status_code == 200

    def test_one_whose_lease_ended_is_not_waited_for(self, town: Town, ada: Person, redis: redis_client.Redis) -> None:
        town.desk.lose(ada.runs["driven"])
        assert erase(town, ada, wait_s=20).status == ErasureStatus.VERIFIED
        say_afterwards(town, ada.runs["driven"], redis)
        check_doubt(town, ada.runs["driven"])

    def test_one_that_gave_its_run_back_is_not_waited_for(self, town: Town, ada: Person) -> None:
        begun = go_on(town, erase(town, ada, wait_s=0.3), for_s=0)
        with tenant_scope(town.tenant_id):
            Run.objects.filter(control="cancel").update(status="queued", lease_until=None)
        assert go_on(town, begun).status == ErasureStatus.VERIFIED

    def test_a_doubt_that_nobody_had_settled_asks_nobody_any_more(self, town: Town, ada: Person) -> None:
        claim = town.desk.retake(ada.runs["driven"])
        assert town.desk.begin(claim, "pay", **CALL).action == "doubt"
        town.desk.lose(claim)
        with tenant_scope(town.tenant_id):
            assert len(attention.doubts()) == 1
        assert erase(town, ada, wait_s=20).status == ErasureStatus.VERIFIED
        check_doubt(town, claim)

    def test_a_row_that_somebody_holds_does_not_hold_us(self, committed_db: None, town: Town, ada: Person) -> None:
        """A worker that was frozen inside a transaction: looked at again later, while everything else goes on."""
        begun = go_on(town, erase(town, ada, wait_s=0.3), for_s=0)
        out_of_patience(town, begun)
        holding, done = threading.Event(), threading.Event()

        def hold() -> None:
            try:
                with tenant_scope(town.tenant_id):
                    list(Run.objects.select_for_update(no_key=True).filter(control="cancel"))
                    holding.set()
                    done.wait(60)
            finally:
                connection.close()

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            assert holding.wait(30)
            assert go_on(town, begun, for_s=0.3).status == ErasureStatus.STOPPING
        finally:
            done.set()
            thread.join(30)
        assert go_on(town, begun).status == ErasureStatus.VERIFIED

    def test_a_frozen_process_is_left_behind(self, committed_db: None, town: Town, redis: redis_client.Redis) -> None:
        """SIGSTOP in the middle of a destructive call, for ever; then it wakes up, and has an answer to report."""
        ada = town.meet("ada", "Adalbert")
        run = town.desk.store.admit("desk", {"who": ada.word}, session="mail-Adalbert")
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        command = [sys.executable, "-c", FROZEN, str(town.tenant_id), run.run_id]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
            try:
                _, status = os.waitpid(worker.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(status), worker.communicate(timeout=60)[1].decode()
                claim = Claim(run_id=run.run_id, agent="desk", fence=1, lease_s=1, trace_id=self.trace_of(town))
                done = erase(town, ada, wait_s=60)
                assert done.status == ErasureStatus.VERIFIED, (done.status, done.waits, done.problem)
                os.kill(worker.pid, signal.SIGCONT)
                said, errors = worker.communicate(timeout=60)
            finally:
                worker.kill()
        assert said.decode().split() == ["turn", "fenced", "late", "kept"], errors.decode()
        with tenant_scope(town.tenant_id):
            assert LateReply.objects.count() == 1
        check_doubt(town, claim)
        assert not redis.keys("as:*:pad")

    def trace_of(self, town: Town) -> str:
        with tenant_scope(town.tenant_id):
            return Run.objects.get().trace_id


FROZEN = """
import os, signal, sys
from uuid import UUID
import django
django.setup()
from agentstate.core.errors import Fenced
from agentstate.sdk.store import StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from runs.engine.store import LocalStore
from runs.services import workers
from tests.runs.conftest import SPEC
actor = Actor(kind="worker", id="w", name="w", tenant_id=UUID(sys.argv[1]), role="", scopes=frozenset({"runs.work"}))
store = LocalStore(actor, lease_s=1)
claim = store.claim(workers.this_process(), agents={"desk": SPEC}, run_id=sys.argv[2])
call = StepStart("refund#1", "refund", kind="tool", effect="destructive", payload={"to": "Adalbert"})
begun = store.turn(claim, Turn(start=[call])).begun[0]
os.kill(os.getpid(), signal.SIGSTOP)
answer = StepFinish(begun.seq, output={"paid": "Adalbert"})
try:
    store.turn(claim, Turn(finish=[answer]))
except Fenced:
    print("turn fenced")
store.late(claim, answer)
print("late kept")
"""
