"""The cap: no number of writers, and no walk through the verbs, brings a subject over it; what goes is told."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agentstate.audit import history
from agentstate.core import clock
from agentstate.core.errors import Conflict, DomainError, Invalid
from agentstate.db import sql
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope
from memory import keys
from memory.models import Item, ItemRevision, Subject, Unit
from memory.services import cap, consolidation, editing, expiry, items, revising, subjects
from memory.services.drafts import ItemChanges, NewItem
from memory.states import ItemStatus

LETTERS = "abcdefghijklmnopqrstuvwxyz"
Fill = Callable[..., items.Kept]


def text(size: int, seed: int) -> str:
    """`size` bytes of words that no other seed has."""
    words = random.Random(seed)
    made = " ".join("".join(words.choices(LETTERS, k=8)) for _ in range(size // 9 + 1))
    return made[:size].strip().ljust(size, "q")


@pytest.fixture
def fill(subject: Subject, agent: Actor) -> Fill:
    def write(size: int, seed: int, **fields: Any) -> items.Kept:
        return items.remember(subject.id, NewItem(text(size, seed), **fields), actor=agent)

    return write


def check_counts(subject_id: UUID) -> None:
    """The counts of the subject's row are those of its items, and nothing is over its cap."""
    subject = Subject.objects.get(id=subject_id)
    found = list(Item.objects.filter(subject_id=subject_id, status=ItemStatus.ACTIVE))
    key = keys.existing(subject_id)
    for item in found:
        assert item.bytes == revising.content_of(item, key).bytes
    assert subject.item_bytes == sum(item.bytes for item in found)
    assert subject.pinned_bytes == sum(item.bytes for item in found if item.pinned)
    assert subject.item_count == len(found)
    assert subject.item_bytes <= cap.of(subject)
    recalled = set(Unit.objects.filter(subject_id=subject_id, kind="item", in_recall=True).values_list("id", flat=True))
    assert recalled == {item.id for item in found}


@pytest.mark.usefixtures("scope")
class TestRoom:
    def test_over_the_cap_the_oldest_leaves_and_is_named(self, subject: Subject, fill: Fill) -> None:
        first = fill(2000, 1)
        for seed in (2, 3, 4):
            assert fill(2000, seed).evicted == []
        last = fill(2000, 5)
        assert first.item is not None
        assert [(gone.item_id, gone.bytes) for gone in last.evicted] == [(first.item.id, 2000)]
        row = Item.objects.get(id=first.item.id)
        assert (row.status, row.known_to) == ("over_cap", None)
        assert [entry.action for entry in history.of("item", row.id)] == ["item.created", "item.over_cap"]
        check_counts(subject.id)

    def test_the_unimportant_leaves_before_the_important_and_the_due_before_all(
        self, subject: Subject, fill: Fill
    ) -> None:
        kept = [fill(2000, seed, importance=importance) for seed, importance in enumerate((0.9, 0.1, 0.9, 0.5))]
        ids = [each.item.id for each in kept if each.item]
        assert [gone.item_id for gone in fill(1900, 11).evicted] == [ids[1]]
        Item.objects.filter(id=ids[2]).update(expires_at=clock.now() - timedelta(seconds=1))
        assert [gone.item_id for gone in fill(2000, 12).evicted] == [ids[2]]
        assert Item.objects.get(id=ids[2]).status == ItemStatus.EXPIRED
        check_counts(subject.id)

    def test_importance_fades_with_age(self, subject: Subject, fill: Fill) -> None:
        old, new = fill(2000, 1, importance=0.9).item, fill(2000, 2, importance=0.5).item
        assert old is not None and new is not None
        Item.objects.filter(id=old.id).update(updated_at=clock.now() - 3 * cap.HALF_LIFE)
        fill(2000, 3, importance=1)
        fill(2000, 4, importance=1)
        assert [gone.item_id for gone in fill(2000, 5).evicted] == [old.id]

    def test_pinned_never_leaves_and_too_much_of_it_is_refused(
        self, subject: Subject, fill: Fill, alice: Actor
    ) -> None:
        pinned = [fill(2000, seed, pinned=True).item for seed in range(3)]
        loose = fill(2000, 3).item
        assert loose is not None
        for seed in range(4, 9):
            fill(2000, seed)
        assert {item.status for item in Item.objects.filter(pinned=True)} == {"active"}
        newest = Item.objects.filter(status="active", pinned=False).get()
        editing.pin(newest.id, reason="x", actor=alice)
        before = Subject.objects.get(id=subject.id)
        with pytest.raises(Invalid, match="8,000 bytes are pinned") as refused, transaction.atomic():
            fill(500, 20)
        assert (refused.value.data["pinned_bytes"], refused.value.data["cap_bytes"]) == (8000, 8192)
        with pytest.raises(Invalid, match="Unpin or shorten"), transaction.atomic():
            fill(500, 21, pinned=True)
        after = Subject.objects.get(id=subject.id)
        assert (after.item_bytes, after.item_count, after.audit_seq) == (8000, 4, before.audit_seq)
        assert len(pinned) == 3
        check_counts(subject.id)

    def test_a_pin_that_does_not_fit_is_refused_and_changes_nothing(
        self, subject: Subject, fill: Fill, alice: Actor
    ) -> None:
        subjects.set_cap(subject.id, cap_bytes=4096, actor=alice)
        fill(2000, 1, pinned=True)
        fill(2000, 2, pinned=True)
        with pytest.raises(Invalid), transaction.atomic():
            fill(200, 3)
        item = fill(90, 4).item
        assert item is not None
        edit = ItemChanges(text=text(200, 5))
        with pytest.raises(Invalid), transaction.atomic():
            editing.edit(item.id, expected_version=1, changes=edit, reason="x", actor=alice)
        assert Item.objects.get(id=item.id).version == 1
        check_counts(subject.id)

    def test_a_lower_cap_takes_effect_at_once_but_never_below_what_is_pinned(
        self, subject: Subject, fill: Fill, alice: Actor
    ) -> None:
        fill(2000, 1, pinned=True)
        fill(2000, 2, pinned=True)
        fill(2000, 3)
        gone = subjects.set_cap(subject.id, cap_bytes=5000, actor=alice)
        assert [each.bytes for each in gone] == [2000]
        third = Item.objects.get(status="over_cap")
        subjects.set_cap(subject.id, cap_bytes=None, actor=alice)
        editing.restore(third.id, version=1, reason="there is room", actor=alice)
        editing.pin(third.id, reason="x", actor=alice)
        with pytest.raises(Invalid, match="6,000 bytes are pinned"), transaction.atomic():
            subjects.set_cap(subject.id, cap_bytes=4096, actor=alice)
        for wrong in (0, 4095, 8193):
            with pytest.raises(Invalid) as refused:
                subjects.set_cap(subject.id, cap_bytes=wrong, actor=alice)
            assert refused.value.field == "cap_bytes"
        check_counts(subject.id)

    def test_the_tenants_cap_holds_where_a_subject_has_none(self, subject: Subject, fill: Fill) -> None:
        TenantSetting.objects.create(key="memory.tenant", value={"cap_bytes": 4096})
        fill(2000, 1)
        fill(2000, 2)
        assert len(fill(2000, 3).evicted) == 1
        check_counts(subject.id)

    def test_a_restore_makes_room_like_a_write(self, subject: Subject, fill: Fill, alice: Actor) -> None:
        first = fill(2000, 1).item
        for seed in range(2, 6):
            fill(2000, seed)
        assert first is not None
        editing.restore(first.id, version=1, reason="needed", actor=alice)
        assert Item.objects.get(id=first.id).status == "active"
        assert Item.objects.filter(status="over_cap").count() == 1
        check_counts(subject.id)

    def test_many_tiny_items_are_bounded_too(
        self, subject: Subject, fill: Fill, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cap, "SUBJECT_ITEMS_MAX", 5)
        for seed in range(9):
            fill(9, seed)
        assert Subject.objects.get(id=subject.id).item_count == 5
        check_counts(subject.id)


def test_writers_at_once_never_pass_the_cap(committed_db: None, tenant: Tenant, subject: Subject, agent: Actor) -> None:
    writers, each_writes = 6, 8
    start = Barrier(writers)

    def write(writer: int) -> set[UUID]:
        gone = set()
        try:
            start.wait(20)
            for number in range(each_writes):
                with tenant_scope(tenant.id):
                    new = NewItem(text(900, 100 * writer + number))
                    gone |= {each.item_id for each in items.remember(subject.id, new, actor=agent).evicted}
                with tenant_scope(tenant.id):
                    found = sql.row(
                        "SELECT coalesce(sum(bytes), 0) FROM memory_item WHERE subject_id = %s AND status = 'active'",
                        [subject.id],
                    )
                    assert found is not None and found[0] <= 8192
        finally:
            connection.close()
        return gone

    with ThreadPoolExecutor(writers) as pool:
        gone = [each for found in pool.map(write, range(writers), timeout=120) for each in found]
    with tenant_scope(tenant.id):
        check_counts(subject.id)
        assert Item.objects.count() == writers * each_writes
        assert Subject.objects.get(id=subject.id).item_count == 9
        # Each item that left was told to exactly one writer.
        assert sorted(gone) == sorted(Item.objects.filter(status="over_cap").values_list("id", flat=True))


WRITE_ALONE = """
import sys
from uuid import UUID
import django
django.setup()
from agentstate.tenants import actors
from agentstate.tenants.scope import tenant_scope
from memory.services import items
from memory.services.drafts import NewItem
from tests.memory.test_cap import text
tenant, subject, first = UUID(sys.argv[1]), UUID(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(6):
    with tenant_scope(tenant, durable=True):
        items.remember(subject, NewItem(text(1500, first + number)), actor=actors.system("writer"))
"""


def test_processes_at_once_never_pass_the_cap(committed_db: None, tenant: Tenant, subject: Subject) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_ALONE, str(tenant.id), str(subject.id), str(1000 * number)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(10)
    with tenant_scope(tenant.id):
        check_counts(subject.id)
        assert (Item.objects.count(), Subject.objects.get(id=subject.id).item_count) == (18, 5)


class Walk(RuleBasedStateMachine):
    """Anything in any order, by people and machines; the model is the database's own rows."""

    subject: Subject
    alice: Actor
    seed = 0

    @initialize()
    def begin(self) -> None:
        with tenant_scope(self.subject.tenant_id):
            made = subjects.resolve(external_id=uuid4().hex)
        self.subject_id = made.id
        self.at: datetime | None = None

    def act(self, act: Callable[[], Any]) -> None:
        """In a scope of its own. What is refused must leave no trace, which the invariant sees."""
        try:
            with tenant_scope(self.subject.tenant_id):
                act()
        except (Invalid, Conflict) as refused:
            assert isinstance(refused, DomainError)

    def any_item(self, place: int) -> Item | None:
        with tenant_scope(self.subject.tenant_id):
            found = list(Item.objects.filter(subject_id=self.subject_id).order_by("id"))
        return found[place % len(found)] if found else None

    @rule(size=st.integers(20, 2000), pinned=st.booleans(), importance=st.floats(0, 1), by_hand=st.booleans())
    def remember(self, size: int, pinned: bool, importance: float, by_hand: bool) -> None:
        Walk.seed += 1
        actor = self.alice if by_hand else actors.system("agent", tenant_id=self.subject.tenant_id)
        new = NewItem(text(size, Walk.seed), pinned=pinned and size < 1000, importance=importance)
        self.act(lambda: items.remember(self.subject_id, new, actor=actor))

    @rule(place=st.integers(0, 50))
    def remember_again(self, place: int) -> None:
        if item := self.any_item(place):
            with tenant_scope(self.subject.tenant_id):
                said = revising.content_of(item, keys.existing(self.subject_id)).text
            self.act(lambda: items.remember(self.subject_id, NewItem(said), actor=self.alice))

    @rule(place=st.integers(0, 50), size=st.integers(20, 2000))
    def edit(self, place: int, size: int) -> None:
        if item := self.any_item(place):
            Walk.seed += 1
            changes = ItemChanges(text=text(size, Walk.seed))
            how: dict[str, Any] = {"reason": "x", "actor": self.alice}
            self.act(lambda: editing.edit(item.id, expected_version=item.version, changes=changes, **how))

    @rule(place=st.integers(0, 50), verb=st.sampled_from(["pin", "unpin", "forget"]))
    def stand(self, place: int, verb: str) -> None:
        if item := self.any_item(place):
            self.act(lambda: getattr(editing, verb)(item.id, reason="x", actor=self.alice))

    @rule(place=st.integers(0, 50), version=st.integers(1, 3))
    def restore(self, place: int, version: int) -> None:
        if item := self.any_item(place):
            wanted = min(version, item.version)
            self.act(lambda: editing.restore(item.id, version=wanted, reason="x", actor=self.alice))

    @rule(cap_bytes=st.sampled_from([None, 4096, 6000, 8192]))
    def set_cap(self, cap_bytes: int | None) -> None:
        self.act(lambda: subjects.set_cap(self.subject_id, cap_bytes=cap_bytes, actor=self.alice))

    @rule(place=st.integers(0, 50))
    def expire(self, place: int) -> None:
        if item := self.any_item(place):
            with tenant_scope(self.subject.tenant_id):
                Item.objects.filter(id=item.id, pinned=False).update(expires_at=clock.now() - timedelta(seconds=1))
        self.act(lambda: expiry.expire_due(""))

    @rule()
    def consolidate(self) -> None:
        self.act(lambda: consolidation.consolidate(self.subject_id))

    @invariant()
    def counts_are_exact_and_under_the_cap(self) -> None:
        if not hasattr(self, "subject_id"):
            return
        with tenant_scope(self.subject.tenant_id):
            check_counts(self.subject_id)
            for item in Item.objects.filter(subject_id=self.subject_id):
                kept = ItemRevision.objects.filter(item_id=item.id)
                assert sorted(kept.values_list("version", flat=True)) == list(range(1, item.version + 1))
                newest = kept.get(version=item.version)
                assert (newest.status, newest.pinned) == (item.status, item.pinned)
                assert item.audit_seq == item.version  # each revision has its entry, and nothing else does


def test_no_walk_leads_over_the_cap_or_loses_count(subject: Subject, alice: Actor) -> None:
    class Bound(Walk):
        pass

    Bound.subject, Bound.alice = subject, alice
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each step writes: shrinking takes minutes
        ),
    )
