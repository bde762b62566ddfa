"""An erasure reaches everything about one subject, nothing about another, and goes on wherever it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
import redis as redis_client
from django.db import connection

from agentstate.affairs import erasing, invariants, receipts, residue
from agentstate.affairs.models import Erasure
from agentstate.affairs.states import ErasureStatus
from agentstate.audit import verification
from agentstate.core.errors import Conflict, Corrupt, Forbidden, Invalid, NotFound
from agentstate.core.failpoints import NAMES, FailpointReached, armed
from agentstate.db import sql
from agentstate.sdk.store import End, Failure, Turn
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import TenantSetting
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys as run_keys
from memory import keys
from memory.context import building
from memory.context.parts import ContextRequest
from memory.models import Injection, Message, Subject
from memory.recall import searching
from memory.services import items, ledger, messages, progress, sessions, subjects
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage
from runs.models import Run
from runs.services import control
from tests.affairs.erasable import Person, Town

pytestmark = pytest.mark.django_db
FAILPOINTS = sorted(name for name in NAMES if name.startswith("erase."))


@pytest.fixture
def town(alice: Actor) -> Town:
    return Town(alice)


@pytest.fixture
def ada(town: Town) -> Person:
    return town.settle("ada", "Adalbert")


@pytest.fixture
def ben(town: Town) -> Person:
    return town.settle("ben", "Benedikt")


def erase(town: Town, person: Person, *, wait_s: float = 0.6) -> Erasure:
    return erasing.erase(
        person.subject.id, actor=town.actor, reason="has asked for it", confirm=f"{person.word} Lind", wait_s=wait_s
    )


def erased(town: Town, person: Person) -> Erasure:
    """As far as it goes: the worker of the driven run obeys when it is asked."""
    begun = erase(town, person)
    assert begun.status == ErasureStatus.STOPPING, (begun.status, begun.problem)
    town.lose_worker(person.runs["driven"])
    return erasing.go_on(town.tenant_id, begun.id, for_s=20)


def everything() -> dict[str, set[str]]:
    """Each row of every table as its text, by table."""
    found = {}
    for table in sorted(residue.tables()):
        found[table] = {text for (text,) in sql.rows(f"SELECT t::text FROM {table} t")}
    return found


class TestReach:
    def test_nothing_is_left_and_the_receipt_says_so(self, town: Town, ada: Person, ben: Person) -> None:
        with tenant_scope(town.tenant_id):
            planned = erasing.plan(ada.subject.id)
        assert {run.run_id for run in planned.runs} == set(ada.run_ids.values())
        assert {run.run_id for run in planned.live} == {ada.run_ids["asking"], ada.run_ids["driven"]}
        assert planned.shared_ids == frozenset()
        assert min(planned.counts.values()) > 0, planned.counts
        done = erased(town, ada)
        assert done.status == ErasureStatus.VERIFIED, done.problem
        assert done.receipt is not None
        assert done.receipt["rows_deleted"]["memory_message"] == planned.counts["memory_message"]
        assert set(done.receipt["runs_stopped"]) == {run.public_id for run in planned.live}
        assert done.keys_destroyed == 1 + len(planned.runs)
        with tenant_scope(town.tenant_id):
            assert residue.search([ada.subject.id]) == {}
            assert residue.search([ben.subject.id]) != {}
            assert not Subject.objects.filter(id=ada.subject.id).exists()
            for run_id in ada.run_ids.values():
                with pytest.raises(Corrupt, match="key destroyed"):
                    run_keys.existing(run_id)
            statuses = dict(Run.objects.values_list("id", "status"))
        assert [statuses[run_id] for run_id in ada.run_ids.values()] == ["succeeded", *["cancelled"] * 2, "succeeded"]
        assert [statuses[run_id] for run_id in ben.run_ids.values()] == ["succeeded", "waiting", "running", "succeeded"]

    def test_no_other_subject_changes_by_one_byte(self, town: Town, ada: Person, ben: Person) -> None:
        with tenant_scope(town.tenant_id):
            town.give(ben, to=ada.run_ids["done"])  # a run that involves both
            town.give(ada, to=ben.run_ids["asking"])
        # A run that was given words of hers is reached with what belongs to it, whosever it is.
        shared = Person("", ada.subject, ada.session, {"asking": ben.runs["asking"]})
        mine, theirs = town.ids_of(ada) | town.ids_of(shared), town.ids_of(ben)
        with tenant_scope(town.tenant_id):
            before = everything()
            planned = erasing.plan(ada.subject.id)
        assert planned.shared_ids == {ada.run_ids["done"], ben.run_ids["asking"]}
        done = erased(town, ada)
        assert done.status == ErasureStatus.VERIFIED, done.problem
        assert set(done.shared_ids) == planned.shared_ids
        with tenant_scope(town.tenant_id):
            after = everything()
        compared = 0
        for table, rows in before.items():
            others = {row for row in rows if not any(each in row for each in mine)}
            gone = others - after[table]
            assert gone == set(), (table, gone)
            compared += len(others)
        assert compared > 60
        own = {table: {row for row in rows if str(ben.subject.id) in row} for table, rows in before.items()}
        assert sum(map(len, own.values())) > 30
        for table, rows in own.items():  # also what stands beside a run or a session of hers
            assert rows <= after[table], table
        assert any(str(ada.session.id) not in row for row in own["memory_injection"])
        with tenant_scope(town.tenant_id):
            for name, run_id in ben.run_ids.items():
                assert (run_id in run_keys.several(ben.run_ids.values())) == (name != "asking")
            assert theirs <= town.ids_of(ben)
            found = searching.search(ben.subject.id, "What does Benedikt like?")
        assert found.hits

    def test_the_trail_and_the_invariants_hold_afterwards(self, town: Town, ada: Person, ben: Person) -> None:
        assert erased(town, ada).status == ErasureStatus.VERIFIED
        assert verification.verify(town.tenant_id) == []
        assert [each for each in invariants.check(town.tenant_id) if each.rule != "running_has_lease"] == []

    def test_the_callers_id_and_the_sessions_name_are_free_again(self, town: Town, ada: Person) -> None:
        erased(town, ada)
        again = town.meet("ada", "Adalbert")
        assert again.subject.id != ada.subject.id and again.session.id != ada.session.id
        with tenant_scope(town.tenant_id):
            assert Message.objects.filter(subject_id=again.subject.id).count() == 0
            assert again.subject.name != ada.subject.name

    def test_a_document_without_a_subject_goes_with_its_session(self, town: Town) -> None:
        with tenant_scope(town.tenant_id):
            written = progress.write("mail-Adalbert", "## Goal\nAdalbert", actor=town.actor, reason="x").progress
        ada = town.meet("ada", "Adalbert")
        assert erase(town, ada, wait_s=20).status == ErasureStatus.VERIFIED
        with tenant_scope(town.tenant_id):
            assert keys.is_destroyed(written.progress_id)
            assert progress.read("mail-Adalbert") is None

    def test_a_failed_run_cannot_go_on_without_its_words(self, town: Town, ada: Person) -> None:
        claim = town.desk.start(input="x", session="mail-2")
        town.desk.store.turn(claim, Turn(then=End("failed", failure=Failure("Boom", "x"))))
        with tenant_scope(town.tenant_id):
            town.give(ada, to=(run_id := UUID(hex=claim.run_id[4:])))
        assert erased(town, ada).status == ErasureStatus.VERIFIED
        with pytest.raises(Conflict, match="erased"):
            control.resume(run_id, actor=town.actor, reason="again")


class TestWhileItGoesOn:
    def test_nothing_is_written_or_recalled(self, town: Town, ada: Person) -> None:
        begun = erase(town, ada)
        assert begun.status == ErasureStatus.STOPPING
        subject_id, session_id, actor = ada.subject.id, ada.session.id, town.actor
        attempts: list[Callable[[], object]] = [
            lambda: items.remember(subject_id, NewItem("new"), actor=actor),
            lambda: messages.append(session_id, [NewMessage("user", "new")], actor=actor),
            lambda: messages.append(session_id, [NewMessage("user", "new")], persistence="periodic", actor=actor),
            lambda: messages.undo(session_id, last_n=1, expected_version=2, reason="x", actor=actor),
            lambda: sessions.open("mail-Adalbert", subject_id=subject_id, actor=actor),
            lambda: sessions.open("mail-new", subject_id=subject_id, actor=actor),
            lambda: subjects.resolve(external_id="ada", actor=actor),
            lambda: progress.write("mail-Adalbert", "## Goal\nnew", reason="x", actor=actor),
            lambda: ledger.keep_question(subject_id, "desk", "new?"),
            lambda: building.build(ContextRequest(session_id=session_id, agent="desk", question="tea?")),
            lambda: building.build(ContextRequest(session_id=session_id, agent="desk", question="tea?"), record=False),
        ]
        for attempt in attempts:
            with pytest.raises((Conflict, NotFound)), tenant_scope(town.tenant_id):
                attempt()
        with tenant_scope(town.tenant_id):
            assert searching.search(subject_id, "tea").hits == []

    def test_a_key_that_this_process_has_used_is_of_no_use(self, town: Town, ada: Person) -> None:
        """Every opening reads the row; what is cached is the unwrapping of a key that no longer comes."""
        with tenant_scope(town.tenant_id):
            assert keys.existing(ada.subject.id) == keys.existing(ada.subject.id)
            run_keys.existing(ada.run_ids["done"])
        erased(town, ada)
        with tenant_scope(town.tenant_id):
            with pytest.raises(Corrupt, match="key destroyed"):
                keys.existing(ada.subject.id)
            assert keys.several([ada.subject.id]) == run_keys.several(ada.run_ids.values()) == {}

    def test_a_driven_run_is_waited_for_and_its_call_recorded(self, town: Town, ada: Person) -> None:
        claim = ada.runs["driven"]
        under_way = town.desk.begin(claim, "pay", effect="destructive", kind="tool")
        begun = erase(town, ada)
        assert begun.status == ErasureStatus.STOPPING and ada.run_ids["driven"] in begun.stopped_ids
        town.desk.finish(claim, under_way.seq, output="paid")
        assert town.desk.step(claim, under_way.seq).status == "done"
        town.lose_worker(claim)
        assert erasing.go_on(town.tenant_id, begun.id, for_s=20).status == ErasureStatus.VERIFIED

    def test_a_run_that_begins_meanwhile_is_reached_too(self, town: Town, ada: Person) -> None:
        with armed("erase.rows=raise@1"), pytest.raises(FailpointReached):
            begun = erase(town, ada)
            town.lose_worker(ada.runs["driven"])
            erasing.go_on(town.tenant_id, begun.id, for_s=20)
        late = town.desk.store.admit("desk", {"for": ada.word}, session="mail-Adalbert")
        done = erase(town, ada, wait_s=20)
        run_id = UUID(hex=late.run_id[4:])
        assert done.status == ErasureStatus.VERIFIED and run_id in done.run_ids and run_id in done.stopped_ids
        with tenant_scope(town.tenant_id):
            assert run_keys.is_destroyed(run_id)
            assert Run.objects.get(id=run_id).session_key == ""

    def test_something_left_is_said_and_gets_no_receipt(self, town: Town, ada: Person) -> None:
        with tenant_scope(town.tenant_id):
            planted = TenantSetting.objects.create(key="planted", value={"vip": f"subject_{ada.subject.id.hex}"})
        failed = erased(town, ada)
        assert failed.status == ErasureStatus.FAILED and failed.receipt is None
        assert failed.problem == "tenants_tenantsetting.value: 1"
        with pytest.raises(Conflict, match="failed"):
            erasing.document(failed)
        with tenant_scope(town.tenant_id):
            planted.delete()
        assert erase(town, ada, wait_s=20).status == ErasureStatus.VERIFIED


class TestCrashes:
    def test_every_failpoint_is_tried(self) -> None:
        assert len(FAILPOINTS) == 6

    @pytest.mark.parametrize("failpoint", FAILPOINTS)
    def test_it_goes_on_wherever_it_died(self, town: Town, ada: Person, ben: Person, failpoint: str) -> None:
        with tenant_scope(town.tenant_id):
            planned = erasing.plan(ada.subject.id)
        with pytest.raises(FailpointReached), armed(f"{failpoint}=raise@1"):
            erased(town, ada)
        with tenant_scope(town.tenant_id):
            assert keys.is_destroyed(ada.subject.id)
        if failpoint in ("erase.begun", "erase.stopped"):
            assert erasing.go_on_with_all(for_s=0.3) == 1
            town.lose_worker(ada.runs["driven"])
        for _ in range(30):
            if erasing.go_on_with_all(for_s=5) == 0:
                break
        with tenant_scope(town.tenant_id):
            done = erasing.find(ada.subject.id)
            assert done.status == ErasureStatus.VERIFIED, done.problem
            assert residue.search([ada.subject.id]) == {}
            assert {table: count for table, count in planned.counts.items() if count} == done.counts
            assert subjects.get(ben.subject.id).message_count == 6
        assert done.keys_destroyed == 1 + len(planned.runs)

    def test_killed_for_real_between_two_batches(self, committed_db: None, town: Town, ada: Person) -> None:
        environment = {**os.environ, "AGENTSTATE_FAILPOINTS": "erase.rows=kill@3", "PYTHONPATH": str(Path.cwd())}
        begun = erase(town, ada)
        town.lose_worker(ada.runs["driven"])
        command = [sys.executable, "-c", ALONE, str(town.tenant_id), str(begun.id)]
        killed = subprocess.run(command, env=environment, timeout=90, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        with tenant_scope(town.tenant_id):
            half = erasing.find(ada.subject.id)
            assert half.status == ErasureStatus.ERASING and half.counts
        assert erasing.go_on(town.tenant_id, begun.id, for_s=20).status == ErasureStatus.VERIFIED

    def test_a_call_that_began_before_records_nothing_afterwards(
        self, committed_db: None, town: Town, ada: Person
    ) -> None:
        reached, done = threading.Event(), threading.Event()
        outcome: list[BaseException | None] = []

        def late() -> None:
            try:
                with tenant_scope(town.tenant_id):
                    town.give(ada, to=ada.run_ids["done"])
                    reached.set()
                    done.wait(60)
                outcome.append(None)
            except Exception as error:
                outcome.append(error)
            finally:
                connection.close()

        thread = threading.Thread(target=late)
        thread.start()
        assert reached.wait(30)
        assert erased(town, ada).status == ErasureStatus.VERIFIED
        done.set()
        thread.join(30)
        assert "memory_injection_of_subject" in str(outcome[0])
        with tenant_scope(town.tenant_id):
            assert not Injection.objects.filter(subject_id=ada.subject.id).exists()

    def test_two_at_once_erase_once(self, committed_db: None, town: Town, ada: Person) -> None:
        found: list[Erasure] = []

        def go() -> None:
            try:
                found.append(erase(town, ada, wait_s=20))
            finally:
                connection.close()

        threads = [threading.Thread(target=go) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait = threading.Event()
        for _ in range(100):
            with tenant_scope(town.tenant_id):
                run = Run.objects.get(id=ada.run_ids["driven"])
            if run.control == "cancel":
                break
            wait.wait(0.1)
        town.lose_worker(ada.runs["driven"])
        for thread in threads:
            thread.join(60)
        assert {each.status for each in found} == {"verified"} and len({each.id for each in found}) == 1
        with tenant_scope(town.tenant_id):
            assert verification.verify(town.tenant_id) == []


ALONE = """
import sys
from uuid import UUID
import django
django.setup()
from agentstate.affairs import erasing
erasing.go_on(UUID(sys.argv[1]), UUID(sys.argv[2]), for_s=30)
"""


class TestRights:
    def test_only_who_may_erases_and_only_with_the_name(
        self, town: Town, ada: Person, olga: Actor, bob: Actor, charlie: Actor
    ) -> None:
        for nobody in (olga, bob):
            with pytest.raises(Forbidden):
                erasing.erase(ada.subject.id, actor=nobody, reason="x", confirm="Adalbert Lind")
        with pytest.raises(NotFound):
            erasing.erase(ada.subject.id, actor=charlie, reason="x", confirm="Adalbert Lind")
        for confirm in ("", "adalbert", "Benedikt Lind", " "):
            with pytest.raises(Invalid, match="Type the name"):
                erasing.erase(ada.subject.id, actor=town.actor, reason="x", confirm=confirm)
        with pytest.raises(Invalid, match="Say why"):
            erasing.erase(ada.subject.id, actor=town.actor, reason=" ", confirm="Adalbert Lind")
        with tenant_scope(town.tenant_id):
            assert Erasure.objects.count() == 0 and subjects.get(ada.subject.id).status == "active"

    def test_another_tenants_erasures_are_not_there(self, town: Town, ada: Person, charlie: Actor) -> None:
        erased(town, ada)
        assert charlie.tenant_id is not None
        with tenant_scope(charlie.tenant_id), pytest.raises(NotFound):
            erasing.find(ada.subject.id)

    def test_asked_again_it_is_the_same_erasure(self, town: Town, ada: Person) -> None:
        first = erased(town, ada)
        again = erasing.erase(ada.subject.id, actor=town.actor, reason="x", confirm="whatever")
        assert (again.id, again.receipt) == (first.id, first.receipt)

    def test_one_that_never_was_is_not_found(self, town: Town) -> None:
        with pytest.raises(NotFound):
            erasing.erase(uuid4(), actor=town.actor, reason="x", confirm="x")


class TestReceipt:
    def test_it_verifies_and_no_change_survives(self, town: Town, ada: Person, charlie: Actor) -> None:
        file = orjson.dumps(erasing.document(erased(town, ada)), option=orjson.OPT_INDENT_2)
        assert receipts.check(file)["subject"] == f"subject_{ada.subject.id.hex}"
        changed = orjson.loads(file)
        changed["receipt"]["rows_deleted"]["memory_message"] += 1
        with pytest.raises(Invalid, match="was changed"):
            receipts.check(orjson.dumps(changed))
        assert charlie.tenant_id is not None
        forged = orjson.loads(file)["receipt"] | {"tenant_id": str(town.tenant_id)}
        documents: tuple[object, ...] = (
            receipts.document(charlie.tenant_id, forged, receipts.sign(charlie.tenant_id, forged)),
            {"receipt": {}},
            [],
            {"receipt": forged, "signature": {"algorithm": "none", "public_key": "", "value": ""}},
        )
        for document in documents:
            with pytest.raises(Invalid):
                receipts.check(orjson.dumps(document))

    def test_it_holds_ids_and_counts_and_no_word(self, town: Town, ada: Person) -> None:
        done = erased(town, ada)
        assert ada.word not in orjson.dumps(erasing.document(done)).decode()
        with tenant_scope(town.tenant_id):
            assert ada.word not in str(sql.rows("SELECT t::text FROM affairs_erasure t"))


def scratchpad_keys(redis: redis_client.Redis, person: Person) -> list[Any]:
    return [key for run_id in person.run_ids.values() for key in redis.keys(f"*{run_id}*")]


def test_redis_holds_nothing_of_it(town: Town, ada: Person, ben: Person, redis: redis_client.Redis) -> None:
    assert scratchpad_keys(redis, ada) and redis.keys(f"*{ada.session.id}*")
    erased(town, ada)
    assert not redis.keys(f"*{ada.session.id}*")
    assert redis.zscore(f"as:{town.tenant_id}:buffers", ada.session.id.hex) is None
    assert scratchpad_keys(redis, ben) and redis.keys(f"*{ben.session.id}*")
