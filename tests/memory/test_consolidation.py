"""Consolidation and expiry: bounded batches that do a thing once, keep what is pinned, and can be taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from agentstate.audit import history
from agentstate.core import clock, failpoints
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import keys
from memory.models import Item, ItemRevision, Subject, Unit
from memory.services import cap, consolidation, editing, expiry, items, revising, subjects, upkeep
from memory.services.drafts import ItemChanges, NewItem
from memory.states import ItemStatus, SubjectStatus
from tests.memory.test_cap import check_counts, text

in_scope = pytest.mark.usefixtures("scope")


def keep(subject: Subject, actor: Actor, said: str, *, days_ago: float = 0, **fields: Any) -> Item:
    kept = items.remember(subject.id, NewItem(said, **fields), actor=actor)
    assert kept.item is not None, kept.refused
    if days_ago:
        at = clock.now() - timedelta(days=days_ago)
        Item.objects.filter(id=kept.item.id).update(updated_at=at)
    return kept.item


def said(item_id: UUID) -> str:
    item = Item.objects.get(id=item_id)
    return revising.content_of(item, keys.existing(item.subject_id)).text


def over(subject: Subject, actor: Actor, *texts: str, namespace: str = "") -> list[Item]:
    """Items that left recall at the cap."""
    found = [keep(subject, actor, each, namespace=namespace, importance=0.01) for each in texts]
    key = keys.existing(subject.id)
    held = subjects.locked(subject.id)
    for item in found:
        revising.move(held, item, to=ItemStatus.OVER_CAP, key=key, actor=actor, expires_at=item.expires_at)
    revising.save_counts(held)
    return found


def statuses(*found: Item) -> list[str]:
    by_id = {item.id: item for item in Item.objects.filter(id__in=[each.id for each in found])}
    return [by_id[each.id].status for each in found]


@in_scope
class TestConsolidation:
    def test_many_become_one_that_names_them(self, subject: Subject, alice: Actor) -> None:
        old = over(
            subject,
            alice,
            "She bought a lamp of brass in May. It was a sunny day, and the shop was as full as shops are.",
            "The lamp was returned because the switch failed. Nobody at the desk had much to say about that.",
            "She asked for a refund of 79 francs. The talk was long and friendly and went on for a while.",
            namespace="orders",
        )
        assert consolidation.consolidate(subject.id) == 3
        one = Item.objects.get(status="active")
        first = ItemRevision.objects.get(item_id=one.id)
        assert (first.change, sorted(first.merged_ids)) == ("consolidated", sorted(item.id for item in old))
        assert statuses(*old) == ["forgotten"] * 3
        assert {item.superseded_by for item in Item.objects.filter(status="forgotten")} == {one.id}
        told = said(one.id)
        sources = " ".join(said(item.id) for item in old)
        assert 0 < len(told) <= len(sources) // 2
        assert all(sentence in sources for sentence in told.split("\n"))
        assert "79 francs" in told
        assert one.namespace == "orders"
        check_counts(subject.id)
        assert consolidation.consolidate(subject.id) == 0

    def test_the_same_items_give_the_same_words(self, new_subject: Callable[..., Subject], alice: Actor) -> None:
        told = []
        for name in ("one", "two"):
            subject = new_subject(name)
            over(subject, alice, *(f"{text(120, seed)}. {text(80, seed + 50)}." for seed in range(6)))
            consolidation.consolidate(subject.id)
            told.append(said(Item.objects.get(subject_id=subject.id, status="active").id))
        assert told[0] == told[1]

    def test_the_next_round_goes_on_with_the_same_item(self, subject: Subject, alice: Actor) -> None:
        over(subject, alice, *(f"{text(200, seed)}. {text(90, seed + 50)}." for seed in range(4)))
        consolidation.consolidate(subject.id)
        one = Item.objects.get(status="active")
        more = over(subject, alice, f"{text(200, 90)}. It cost 45 francs.")
        consolidation.consolidate(subject.id)
        again = Item.objects.get(status="active")
        assert (again.id, again.version) == (one.id, 2)
        assert ItemRevision.objects.get(item_id=one.id, version=2).merged_ids == [more[0].id]
        assert again.bytes <= 8192 // consolidation.CONSOLIDATED_SHARE
        check_counts(subject.id)

    def test_what_a_person_has_edited_is_theirs(self, subject: Subject, alice: Actor) -> None:
        over(subject, alice, *(f"{text(200, seed)}. {text(90, seed + 50)}." for seed in range(4)))
        consolidation.consolidate(subject.id)
        one = Item.objects.get(status="active")
        changes = ItemChanges(text="Mine now")
        editing.edit(one.id, expected_version=1, changes=changes, reason="x", actor=alice)
        over(subject, alice, *(f"{text(200, seed)}. {text(90, seed + 50)}." for seed in range(10, 13)))
        consolidation.consolidate(subject.id)
        assert said(one.id) == "Mine now"
        assert Item.objects.filter(status="active").count() == 2

    def test_what_is_known_anyway_is_merged_into_it(self, subject: Subject, alice: Actor) -> None:
        (same, near) = over(subject, alice, "Likes green tea in the office", "Lives in a flat at the big station")
        keep(subject, alice, "Likes green tea in the office")
        longer = keep(subject, alice, "Lives in a small flat at the big station")
        assert consolidation.consolidate(subject.id) == 2
        assert statuses(same, near) == ["forgotten", "forgotten"]
        assert Item.objects.get(id=near.id).superseded_by == longer.id
        assert Item.objects.filter(status="active").count() == 2

    def test_without_room_it_is_dropped_and_can_be_restored(self, subject: Subject, alice: Actor) -> None:
        for seed in range(4):
            keep(subject, alice, text(2000, seed), pinned=True)
        keep(subject, alice, text(180, 9), importance=1)
        gone = keep(subject, alice, text(190, 10), importance=0)
        assert statuses(gone) == ["active"]
        left = Item.objects.filter(status="over_cap").get()
        before = set(Item.objects.filter(status="active").values_list("id", "version"))
        assert consolidation.consolidate(subject.id) == 1
        assert statuses(left) == ["forgotten"]
        assert set(Item.objects.filter(status="active").values_list("id", "version")) == before
        assert [entry.action for entry in history.of("item", left.id)][-1] == "item.forgotten"
        editing.restore(left.id, version=1, reason="needed", actor=alice)
        assert statuses(left) == ["active"]
        check_counts(subject.id)

    def test_old_ones_of_little_worth_give_their_room_and_pinned_or_new_ones_do_not(
        self, subject: Subject, alice: Actor
    ) -> None:
        pinned = keep(subject, alice, text(1900, 1), pinned=True, days_ago=90, importance=0.01)
        settled = keep(subject, alice, f"{text(1500, 2)}. {text(300, 3)}.", days_ago=60, importance=0.1)
        valued = keep(subject, alice, text(1900, 4), days_ago=60, importance=1)
        fresh = keep(subject, alice, text(1900, 5), importance=0.9)
        (gone,) = over(subject, alice, f"{text(300, 6)}. {text(150, 7)}.")
        consolidation.consolidate(subject.id)
        assert statuses(pinned, valued, fresh) == ["active"] * 3
        assert statuses(settled, gone) == ["forgotten"] * 2
        one = ItemRevision.objects.get(change="consolidated", status="active")
        assert sorted(one.merged_ids) == sorted([settled.id, gone.id])
        assert not Item.objects.filter(status="over_cap").exists()
        check_counts(subject.id)

    def test_overdue_ones_expire_instead(self, subject: Subject, alice: Actor) -> None:
        (item,) = over(subject, alice, text(200, 1))
        Item.objects.filter(id=item.id).update(expires_at=clock.now() - timedelta(seconds=1))
        consolidation.consolidate(subject.id)
        assert statuses(item) == ["expired"]

    def test_a_sentence_that_an_item_says_already_is_no_second_item(self, subject: Subject, alice: Actor) -> None:
        keep(subject, alice, "The invoice of 79 francs is open", importance=1)
        long = "aaaa bbbb cccc dddd eeee ffff gggg hhhh iiii jjjj kkkk llll mmmm nnnn oooo pppp qqqq rrrr ssss tttt"
        (item,) = over(subject, alice, f"The invoice of 79 francs is open\n{long} {long} {long}")
        consolidation.consolidate(subject.id)
        assert statuses(item) == ["forgotten"]
        check_counts(subject.id)


@in_scope
class TestExpiry:
    def test_what_is_due_leaves_recall_and_what_is_pinned_stays(self, subject: Subject, alice: Actor) -> None:
        due = keep(subject, alice, "One")
        keep(subject, alice, "Two", pinned=True)
        keep(subject, alice, "Three")
        Item.objects.filter(id=due.id).update(expires_at=clock.now() - timedelta(seconds=1))
        assert expiry.expire_due("") == upkeep.Progressed("", 1, True)
        assert expiry.expire_due("") == upkeep.Progressed("", 0, True)
        row = Item.objects.get(id=due.id)
        assert (row.status, row.version, row.known_to is not None) == ("expired", 2, True)
        assert not Unit.objects.get(id=due.id).in_recall
        assert [entry.action for entry in history.of("item", due.id)] == ["item.created", "item.expired"]
        check_counts(subject.id)

    def test_subjects_that_are_being_erased_are_left_alone_and_do_not_stop_the_round(
        self, subject: Subject, alice: Actor
    ) -> None:
        keep(subject, alice, "One")
        Item.objects.update(expires_at=clock.now() - timedelta(seconds=1))
        Subject.objects.update(status=SubjectStatus.ERASING)
        assert expiry.expire_due("") == upkeep.Progressed("", 0, True)


@pytest.fixture
def crowd(committed_db: None, tenant: Tenant, new_subject: Callable[..., Subject], agent: Actor) -> list[Subject]:
    """Five subjects with three items that are due and three that are over the cap."""
    found = [new_subject(f"s{number}") for number in range(5)]
    with tenant_scope(tenant.id):
        for number, subject in enumerate(found):
            due = [keep(subject, agent, text(60, 100 * number + seed)).id for seed in range(3)]
            Item.objects.filter(id__in=due).update(expires_at=clock.now() - timedelta(seconds=1))
            over(subject, agent, *(f"{text(150, 900 * number + 50 + seed)}." for seed in range(3)))
    return found


def standing_of(tenant: Tenant) -> list[tuple[Any, ...]]:
    with tenant_scope(tenant.id):
        return sorted(Item.objects.values_list("id", "status", "version"))


@pytest.mark.parametrize(("name", "work"), [("expire", "expire"), ("consolidate", "consolidate")])
def test_killed_between_batches_it_does_each_item_once(
    tenant: Tenant, crowd: list[Subject], monkeypatch: pytest.MonkeyPatch, name: str, work: str
) -> None:
    monkeypatch.setattr(expiry, "BATCH_ITEMS", 4)
    monkeypatch.setattr(consolidation, "BATCH_SUBJECTS", 2)
    act = {"expire": expiry.expire_due, "consolidate": consolidation.consolidate_due}[work]
    for failpoint in ("memory.upkeep.worked=raise@2", "memory.upkeep.between=raise"):
        with failpoints.armed(failpoint), pytest.raises(failpoints.FailpointReached):
            upkeep.drive(tenant.id, name, act)
    assert upkeep.drive(tenant.id, name, act) is not None
    left: dict[str, dict[str, Any]] = {
        "expire": {"status": "active", "expires_at__lte": clock.now()},
        "consolidate": {"status": "over_cap"},
    }
    before = standing_of(tenant)
    again = upkeep.drive(tenant.id, name, act)
    assert again is not None and again.done == 0
    assert standing_of(tenant) == before
    with tenant_scope(tenant.id):
        assert not Item.objects.filter(**left[work]).exists()
        for subject in crowd:
            check_counts(subject.id)
        assert {row.version for row in Item.objects.filter(status="expired")} <= {2}


def test_two_rounds_at_once_and_writers_beside_them_do_each_thing_once(
    tenant: Tenant, crowd: list[Subject], agent: Actor
) -> None:
    start, problems = threading.Barrier(4), []

    def guarded(act: Callable[[], object]) -> None:
        try:
            start.wait(20)
            act()
        except Exception as problem:
            problems.append(problem)
        finally:
            connection.close()

    def write() -> None:
        for number in range(10):
            for subject in reversed(crowd):
                with tenant_scope(tenant.id):
                    items.remember(subject.id, NewItem(text(900, 7000 + number)), actor=agent)

    acts: list[Callable[[], object]] = [
        lambda: upkeep.drive(tenant.id, "expire", expiry.expire_due),
        lambda: upkeep.drive(tenant.id, "expire", expiry.expire_due),
        lambda: upkeep.drive(tenant.id, "consolidate", consolidation.consolidate_due),
        write,
    ]
    threads = [threading.Thread(target=guarded, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []
    with tenant_scope(tenant.id):
        assert Item.objects.filter(status="expired").count() == 15
        for subject in crowd:
            check_counts(subject.id)
            assert Subject.objects.get(id=subject.id).item_bytes <= cap.of(subject)
