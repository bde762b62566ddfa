"""Facts: refused by field, upgraded on reading and in the table, and never destroyed by code that is older."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from agentstate.core.errors import Conflict, Invalid, TooLarge
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import facts, keys
from memory.models import Item, ItemRevision, Subject
from memory.services import editing, items, revising, upkeep
from memory.services import facts as stored
from memory.services.drafts import ItemChanges, NewItem
from tests.memory.test_cap import check_counts

PET = "test-pet"


class PetV1(facts.Facts):
    name: str


class PetV2(facts.Facts):
    name: str
    species: str


class PetV3(facts.Facts):
    name: str
    species: str
    legs: int


@pytest.fixture
def pets() -> Iterator[None]:
    facts.register(PET, PetV1, key_fields=("name",))
    yield
    facts.forget(PET)


def upgrade_pets() -> None:
    """New code is deployed: version 3."""
    facts.forget(PET)
    facts.register(PET, PetV3, key_fields=("name",))
    facts.upcaster(PET, 1)(lambda doc: {**doc, "species": "dog"})
    facts.upcaster(PET, 2)(lambda doc: {**doc, "legs": 4})


def roll_back() -> None:
    facts.forget(PET)
    facts.register(PET, PetV1, key_fields=("name",))


def keep(subject: Subject, actor: Actor, name: str, **fields: Any) -> Item:
    new = NewItem(f"Has {name}", fact_kind=PET, facts={"name": name}, **fields)
    kept = items.remember(subject.id, new, actor=actor)
    assert kept.item is not None
    return kept.item


def content(item_id: UUID) -> revising.Content:
    item = Item.objects.get(id=item_id)
    return revising.content_of(item, keys.existing(item.subject_id))


@pytest.mark.parametrize(
    ("kind", "given", "field"),
    [
        ("contact", {"channel": "pigeon"}, "facts/channel"),
        ("contact", {}, "facts/channel"),
        ("contact", {"channel": "email", "extra": 1}, "facts/extra"),
        ("preference", {"about": " ", "value": "x"}, "facts/about"),
        ("order", {"number": "A", "ordered_on": "yesterday"}, "facts/ordered_on"),
        ("commitment", {"what": "x", "by": "nobody"}, "facts/by"),
        ("commitment", {"what": "a\0"}, "/facts/what"),
        ("commitment", {"what": "\ud800"}, "/facts/what"),
        ("planet", {}, "fact_kind"),
    ],
)
def test_wrong_facts_name_their_field(kind: str, given: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        facts.validated(kind, given)
    assert refused.value.field == field


def test_facts_are_kept_in_one_form(pets: None) -> None:
    assert facts.validated("order", {"number": " A-1 ", "ordered_on": "2026-03-01"}) == {
        "number": "A-1",
        "status": "",
        "ordered_on": "2026-03-01",
        "total": "",
    }
    with pytest.raises(TooLarge):
        facts.validated(PET, {"name": "x" * 3000})
    assert set(facts.kinds()) >= {"contact", "preference", "order", "commitment"}
    assert facts.schema("order")["properties"]["number"]


@pytest.mark.usefixtures("scope", "pets")
class TestVersions:
    def test_old_facts_are_read_in_the_new_form(self, subject: Subject, agent: Actor) -> None:
        item = keep(subject, agent, "Rex")
        upgrade_pets()
        assert content(item.id).facts == {"name": "Rex", "species": "dog", "legs": 4}
        assert content(item.id).schema_version == 3
        assert ItemRevision.objects.get().schema_version == 1

    def test_newer_facts_are_shown_and_carried_along(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        upgrade_pets()
        new = NewItem("Has Rex", fact_kind=PET, facts={"name": "Rex", "species": "cat", "legs": 3})
        item = items.remember(subject.id, new, actor=agent).item
        assert item is not None
        roll_back()
        editing.edit(item.id, expected_version=1, changes=ItemChanges(text="Has old Rex"), reason="x", actor=alice)
        with pytest.raises(Conflict, match="Newer code wrote"):
            editing.edit(item.id, expected_version=2, changes=ItemChanges(facts={"name": "R"}), reason="x", actor=alice)
        editing.pin(item.id, reason="x", actor=alice)
        read = facts.read(PET, 3, content(item.id).facts)
        assert read.facts == {"name": "Rex", "species": "cat", "legs": 3}
        assert "Newer code wrote version 3" in read.problem
        upgrade_pets()
        assert content(item.id).facts == {"name": "Rex", "species": "cat", "legs": 3}

    def test_facts_of_an_unknown_kind_are_shown(self) -> None:
        facts.forget(PET)
        read = facts.read(PET, 1, {"name": "Rex"})
        assert (read.facts, "does not know" in read.problem) == ({"name": "Rex"}, True)

    def test_an_upgrade_that_fails_shows_what_was_stored(self, subject: Subject, agent: Actor) -> None:
        item = keep(subject, agent, "Rex")
        facts.forget(PET)
        facts.register(PET, PetV2, key_fields=("name",))
        facts.upcaster(PET, 1)(lambda doc: doc)  # forgets the species
        assert content(item.id).facts == {"name": "Rex"}
        assert "species" in facts.read(PET, 1, {"name": "Rex"}).problem
        facts.upcaster(PET, 3)(lambda doc: doc)  # and there is none from 2
        assert "2 is missing" in facts.read(PET, 1, {"name": "Rex"}).problem
        step = upkeep.step("backfill", stored.backfill)
        assert step is not None and (step.done, step.failed) == (0, "")
        assert Item.objects.get().version == 1

    def test_a_restore_brings_old_facts_in_the_new_form(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        item = keep(subject, agent, "Rex")
        changes = ItemChanges(facts={"name": "Max"})
        editing.edit(item.id, expected_version=1, changes=changes, reason="x", actor=alice)
        upgrade_pets()
        editing.restore(item.id, version=1, reason="x", actor=alice)
        assert content(item.id).facts == {"name": "Rex", "species": "dog", "legs": 4}
        assert Item.objects.get().schema_version == 3
        check_counts(subject.id)


def test_the_back_fill_rewrites_all_in_batches_and_once(
    committed_db: None, tenant: Tenant, subject: Subject, agent: Actor, pets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "BATCH_ITEMS", 4)
    with tenant_scope(tenant.id):
        made = [keep(subject, agent, f"pet {number}") for number in range(10)]
        editing.forget(made[0].id, reason="x", actor=agent)
        editing.pin(made[1].id, reason="x", actor=agent)
    upgrade_pets()
    first = upkeep.drive(tenant.id, "backfill", stored.backfill, target=stored.target(), batches_max=1)
    assert first is not None and (first.done, first.is_over) == (4, False)
    rest = upkeep.drive(tenant.id, "backfill", stored.backfill, target=stored.target())
    assert rest is not None and (rest.done, rest.is_over) == (5, True)
    again = upkeep.drive(tenant.id, "backfill", stored.backfill, target=stored.target())
    assert again is not None and again.done == 0
    with tenant_scope(tenant.id):
        for item in Item.objects.exclude(id=made[0].id):
            newest = ItemRevision.objects.get(item_id=item.id, version=item.version)
            assert (item.schema_version, newest.schema_version, newest.change) == (3, 3, "upgraded")
            assert newest.actor_name == "upgrade"
        assert content(made[0].id).facts == {"name": "pet 0", "species": "dog", "legs": 4}  # by reading
        assert Item.objects.get(id=made[0].id).version == 2
        check_counts(subject.id)


def test_an_upgrade_never_costs_another_item_its_place(scope: None, subject: Subject, agent: Actor, pets: None) -> None:
    keep(subject, agent, "n" * 2000)
    for number in range(2):
        keep(subject, agent, f"{number}" + "m" * 990, importance=0.1)
    before = Subject.objects.get(id=subject.id).item_bytes
    facts.forget(PET)
    facts.register(PET, PetV2, key_fields=("name",))
    facts.upcaster(PET, 1)(lambda doc: {**doc, "species": "d" * 40})
    Subject.objects.filter(id=subject.id).update(cap_bytes=before + 60)
    step = upkeep.step("backfill", stored.backfill)
    assert step is not None and step.done == 1  # the others are read in the new form all the same
    active = Item.objects.filter(status="active")
    assert [active.count(), sum(item.bytes for item in active)] == [3, Subject.objects.get(id=subject.id).item_bytes]
    assert before < Subject.objects.get(id=subject.id).item_bytes <= before + 60
