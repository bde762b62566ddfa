"""Items: remembered once, changed in revisions by people who say why, and never changed behind anybody's back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentstate.audit import history
from agentstate.core import clock
from agentstate.core.errors import Conflict, Corrupt, DomainError, Forbidden, Invalid, NotFound, TooLarge
from agentstate.db import sql
from agentstate.tenants.actors import Actor
from memory import keys
from memory.models import Item, ItemRevision, Proposal, Subject, Unit
from memory.recall.words import ENTRY_BYTES
from memory.services import editing, items, locking, rehearsing, revising, subjects
from memory.services.drafts import ItemChanges, NewItem
from memory.services.items import Kept
from memory.services.rehearsing import Rehearsal
from memory.sources import Source

pytestmark = pytest.mark.usefixtures("scope")
TEA = "Ada prefers green tea in the office kitchen"
Remember = Callable[..., Item]


@pytest.fixture
def remember(subject: Subject, agent: Actor) -> Remember:
    """Writes as the agent; the item."""

    def write(text: str = TEA, **fields: Any) -> Item:
        kept = items.remember(subject.id, NewItem(text, **fields), actor=agent)
        assert kept.item is not None, kept.refused
        return kept.item

    return write


def words(item_id: UUID, version: int | None = None) -> str:
    """The text of a version as it is stored."""
    item = Item.objects.get(id=item_id)
    found = ItemRevision.objects.get(item_id=item_id, version=version or item.version)
    return revising.unsealed(item, found.version, found.text, found.facts, keys.existing(item.subject_id)).text


def all_refused(error: type[DomainError], *wanted: Callable[[], object], match: str = "") -> list[DomainError]:
    """What each of these acts was refused with."""
    refusals = []
    for act in wanted:
        with pytest.raises(error, match=match or None) as refused:
            act()
        refusals.append(refused.value)
    return refusals


def everything() -> list[list[Any]]:
    """All rows that an item's change may touch."""
    tables: tuple[Any, ...] = (Item, ItemRevision, Subject, Unit, Proposal)
    return [list(table.objects.order_by("pk").values()) for table in tables]


def acts(item: Item) -> list[str]:
    return [entry.action for entry in history.of("item", item.id)]


class TestRemember:
    def test_it_is_sealed_counted_indexed_and_audited(self, subject: Subject, remember: Remember) -> None:
        item = remember(namespace="preferences", importance=0.7)
        row, held, unit = Item.objects.get(), Subject.objects.get(), Unit.objects.get()
        assert words(item.id) == TEA
        assert b"green tea" not in bytes(ItemRevision.objects.get().text)
        assert (row.status, row.version, row.bytes) == ("active", 1, len(TEA))
        assert (held.item_bytes, held.pinned_bytes, held.item_count) == (len(TEA), 0, 1)
        assert (unit.id, unit.kind, unit.in_recall) == (item.id, "item", True)
        assert acts(item) == ["item.created"]
        assert row.expires_at is not None and timedelta(days=89) < row.expires_at - clock.now() <= timedelta(days=90)

    def test_the_same_again_is_nothing_new(self, subject: Subject, remember: Remember, agent: Actor) -> None:
        first = remember()
        for text in (TEA, TEA.upper(), f"  {TEA}\n", TEA.replace("green", "ｇｒｅｅｎ")):
            again = items.remember(subject.id, NewItem(text), actor=agent)
            assert (again.change, again.item) == ("duplicate", first)
        assert ItemRevision.objects.count() == 1
        assert Subject.objects.get().item_count == 1

    def test_nearly_the_same_is_a_revision_with_the_longer_words(
        self, subject: Subject, remember: Remember, agent: Actor
    ) -> None:
        first = remember(importance=0.2)
        longer = "Ada prefers green tea in the bright office kitchen."
        again = items.remember(subject.id, NewItem(longer, importance=0.9), actor=agent)
        assert (again.change, again.item and again.item.id) == ("merged", first.id)
        assert (words(first.id), words(first.id, 1)) == (longer, TEA)
        assert Item.objects.get().importance == 0.9
        assert Subject.objects.get().item_bytes == len(longer)
        assert acts(first) == ["item.created", "item.merged"]

    @pytest.mark.parametrize(
        "other",
        [
            "Ada prefers black tea in the office kitchen",
            "Ada never prefers green tea in the office kitchen",
            "Ada prefers 2 green tea in the office kitchen",
            "Ada prefers green tea in the office kitchen on Mondays and Monday",
            "Bob prefers green tea in the office kitchen",
            "Ada formerly prefers green tea in the office kitchen",
        ],
    )
    def test_another_statement_is_never_merged(
        self, remember: Remember, subject: Subject, agent: Actor, other: str
    ) -> None:
        remember()
        assert items.remember(subject.id, NewItem(other), actor=agent).change == "created"
        assert {words(item.id) for item in Item.objects.all()} == {TEA, other}

    def test_namespaces_keep_the_same_words_apart(self, remember: Remember, subject: Subject, alice: Actor) -> None:
        remember(namespace="a")
        assert items.remember(subject.id, NewItem(TEA, namespace="b"), actor=alice).change == "created"

    def test_facts_that_come_later_join_the_words(self, remember: Remember, subject: Subject, alice: Actor) -> None:
        first = remember()
        facts = {"about": "tea", "value": "green"}
        kept = items.remember(subject.id, NewItem(TEA, fact_kind="preference", facts=facts), actor=alice)
        assert (kept.change, kept.item and kept.item.id) == ("merged", first.id)
        item = Item.objects.get()
        assert revising.content_of(item, keys.existing(subject.id)).facts == facts
        assert item.bytes == Subject.objects.get().item_bytes > len(TEA)

    def test_a_key_writes_once(self, subject: Subject, agent: Actor, new_subject: Callable[..., Subject]) -> None:
        source = Source(run_id=uuid4(), step_seq=3, key="k" * 200)
        first = items.remember(subject.id, NewItem("One"), actor=agent, source=source)
        again = items.remember(subject.id, NewItem("Two, by mistake"), actor=agent, source=source)
        assert first.item and again.item and again.item.id == first.item.id
        assert (again.change, Item.objects.count()) == ("created", 1)
        assert first.item.source_run_id == source.run_id
        with pytest.raises(Conflict, match="another subject"):
            items.remember(new_subject("bob").id, NewItem("Three"), actor=agent, source=source)

    @pytest.mark.parametrize(
        ("new", "error", "field"),
        [
            (NewItem(""), Invalid, "text"),
            (NewItem(" \n"), Invalid, "text"),
            (NewItem("a\0b"), Invalid, "text"),
            (NewItem("\ud83d"), Invalid, "text"),
            (NewItem("x" * 2049), TooLarge, "text"),
            (NewItem("漢" * 683), TooLarge, "text"),
            (NewItem("x", kind="other"), Invalid, "kind"),
            (NewItem("x", namespace="n" * 201), Invalid, "namespace"),
            (NewItem("x", namespace="\0"), Invalid, "namespace"),
            (NewItem("x", importance=1.1), Invalid, "importance"),
            (NewItem("x", importance=float("nan")), Invalid, "importance"),
            (NewItem("x", importance="high"), Invalid, "importance"),  # type: ignore[arg-type]
            (NewItem("x", fact_kind="nonsense", facts={}), Invalid, "fact_kind"),
            (NewItem("x", facts={"a": 1}), Invalid, "fact_kind"),
            (NewItem("x", fact_kind="order", facts={"number": ""}), Invalid, "facts/number"),
            (NewItem("x", fact_kind="order"), Invalid, "facts"),
            (NewItem("x", valid_from=datetime(2026, 1, 1)), Invalid, "valid_from"),  # noqa: DTZ001
            (
                NewItem("x", valid_from=clock.now(), valid_to=clock.now() - timedelta(1)),
                Invalid,
                "valid_to",
            ),
            (NewItem("x", expires_at=clock.now() - timedelta(1)), Invalid, "expires_at"),
            (NewItem("x", pinned=True, expires_at=clock.now() + timedelta(1)), Invalid, "expires_at"),
        ],
    )
    def test_what_cannot_be_kept_is_refused_by_field(
        self, subject: Subject, agent: Actor, new: NewItem, error: type[Invalid], field: str
    ) -> None:
        with pytest.raises(error) as refused:
            items.remember(subject.id, new, actor=agent)
        assert refused.value.field == field
        assert not Item.objects.exists()

    @pytest.mark.parametrize("text", ["漢字とかな", "Привет, мир", "שלום 123 world", "👩‍🚀🚀", "a\u0301", "\u202eevil"])
    def test_every_script_comes_back_unchanged(self, subject: Subject, agent: Actor, text: str) -> None:
        kept = items.remember(subject.id, NewItem(text), actor=agent)
        assert kept.item is not None and words(kept.item.id) == text

    def test_messages_of_others_are_no_source(self, subject: Subject, agent: Actor) -> None:
        with pytest.raises(Invalid) as refused:
            items.remember(subject.id, NewItem("x"), actor=agent, source=Source(message_ids=(uuid4(),)))
        assert refused.value.field == "source.message_ids"

    def test_who_may_not_write_is_told_so(self, subject: Subject, victor: Actor, remember: Remember) -> None:
        item = remember()
        how: dict[str, Any] = {"reason": "because", "actor": victor}
        for refused in all_refused(
            Forbidden,
            lambda: items.remember(subject.id, NewItem("x"), actor=victor),
            lambda: editing.edit(item.id, expected_version=1, changes=ItemChanges(text="x"), **how),
            lambda: editing.forget(item.id, **how),
            lambda: editing.pin(item.id, **how),
            lambda: locking.lock(item.id, actor=victor),
            lambda: editing.restore(item.id, version=1, **how),
        ):
            assert refused.message
        assert acts(item) == ["item.created"]

    def test_a_destroyed_key_ends_all_writing(self, subject: Subject, agent: Actor, remember: Remember) -> None:
        item = remember()
        keys.destroy(subject.id)
        for refused in all_refused(
            Corrupt,
            lambda: items.remember(subject.id, NewItem("x"), actor=agent),
            lambda: editing.forget(item.id, reason="x", actor=agent),
        ):
            assert refused.message

    def test_a_write_costs_a_fixed_number_of_statements(self, subject: Subject, alice: Actor, agent: Actor) -> None:
        for number in range(40):
            items.remember(subject.id, NewItem(f"Statement {number}", namespace=f"n{number}"), actor=alice)
        with sql.watched() as by_hand, CaptureQueriesContext(connection) as by_orm:
            items.remember(subject.id, NewItem("Another one altogether"), actor=agent)
        asked = [each["sql"] for each in by_orm.captured_queries if "keyring" not in each["sql"]]
        assert len(by_hand) + len(asked) <= 15, [*by_hand, *asked]


class TestEdit:
    def test_an_edit_is_a_revision_with_who_and_why(self, remember: Remember, alice: Actor) -> None:
        item = remember()
        edited = editing.edit(
            item.id,
            expected_version=1,
            changes=ItemChanges(text="Ada prefers coffee"),
            reason="she said so",
            actor=alice,
        )
        found = ItemRevision.objects.get(item_id=item.id, version=2)
        assert (edited.version, words(item.id), words(item.id, 1)) == (2, "Ada prefers coffee", TEA)
        assert (found.change, found.actor_name, found.actor_kind) == ("edited", "Alice", "user")
        assert b"said so" not in bytes(found.reason)
        assert Subject.objects.get().item_bytes == len("Ada prefers coffee")
        assert acts(item) == ["item.created", "item.edited"]

    def test_a_stale_edit_gets_what_it_needs_to_merge(self, remember: Remember, alice: Actor, agent: Actor) -> None:
        item = remember()
        editing.edit(item.id, expected_version=1, changes=ItemChanges(text="Theirs"), reason="x", actor=agent)
        with pytest.raises(Conflict) as refused:
            editing.edit(item.id, expected_version=1, changes=ItemChanges(text="Mine"), reason="y", actor=alice)
        told = refused.value.data
        assert (told["version"], told["base"]["text"], told["theirs"]["text"]) == (2, TEA, "Theirs")
        assert (told["theirs"]["by"], words(item.id)) == ("desk-1", "Theirs")
        with pytest.raises(Conflict) as refused:
            editing.edit(item.id, expected_version=99, changes=ItemChanges(text="Mine"), reason="y", actor=alice)
        assert refused.value.data["base"] is None

    def test_people_say_why(self, remember: Remember, alice: Actor) -> None:
        item = remember()
        for refused in all_refused(
            Invalid,
            lambda: editing.edit(item.id, expected_version=1, changes=ItemChanges(text="x"), reason=" ", actor=alice),
            lambda: editing.forget(item.id, reason="", actor=alice),
            lambda: editing.pin(item.id, reason="", actor=alice),
            lambda: editing.restore(item.id, version=1, reason="r" * 5000, actor=alice),
        ):
            assert refused.field == "reason"
        assert acts(item) == ["item.created"]

    def test_an_edit_without_a_difference_writes_nothing(self, remember: Remember, alice: Actor) -> None:
        item = remember()
        same = editing.edit(item.id, expected_version=1, changes=ItemChanges(text=TEA), reason="x", actor=alice)
        assert (same.version, ItemRevision.objects.count()) == (1, 1)

    def test_two_items_cannot_be_edited_into_one(self, remember: Remember, alice: Actor) -> None:
        item, other = remember(), remember("Lives in Bern")
        with pytest.raises(Conflict, match="says the same already"):
            editing.edit(other.id, expected_version=1, changes=ItemChanges(text=TEA), reason="x", actor=alice)
        assert words(other.id) == "Lives in Bern"
        assert item.id != other.id

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            (ItemChanges(text=""), "text"),
            (ItemChanges(text="x" * 2049), "text"),
            (ItemChanges(importance=7), "importance"),
            (ItemChanges(valid_to=datetime(2000, 1, 1, tzinfo=clock.now().tzinfo)), "valid_to"),
            (ItemChanges(valid_from=None), "valid_from"),  # type: ignore[arg-type]
            (ItemChanges(facts={"a": 1}), "fact_kind"),
            (ItemChanges(expires_at=datetime(2000, 1, 1, tzinfo=clock.now().tzinfo)), "expires_at"),
        ],
    )
    def test_bad_changes_name_their_field(
        self, remember: Remember, alice: Actor, changes: ItemChanges, field: str
    ) -> None:
        item = remember()
        with pytest.raises(Invalid) as refused:
            editing.edit(item.id, expected_version=1, changes=changes, reason="x", actor=alice)
        assert (refused.value.field, ItemRevision.objects.count()) == (field, 1)

    def test_a_rehearsal_tells_and_does_nothing(self, remember: Remember, subject: Subject, alice: Actor) -> None:
        item = remember(attribute="drink", namespace="p")
        remember("Ada prefers coffee", attribute="drink", namespace="p", importance=1)
        subjects.set_cap(subject.id, cap_bytes=4096, actor=alice)
        for number in range(2):
            remember(" ".join(f"w{number}x{place}" for place in range(300))[:1990], namespace=f"fill{number}")
        before = everything()
        told: Rehearsal[int] = rehearsing.edit(
            item.id,
            expected_version=1,
            changes=ItemChanges(text="y" * 500),
            actor=alice,
            look=lambda: len(Unit.objects.get(id=item.id).words or b"") // ENTRY_BYTES,
        )
        assert everything() == before
        assert len(told.evicted) == 1
        assert (told.cap_bytes, told.seen) == (4096, 1)
        assert told.bytes_after <= 4096
        assert [hint.why for hint in told.contradicts] == ["attribute"]

    def test_a_rehearsal_refuses_what_the_edit_would(self, remember: Remember, alice: Actor) -> None:
        item = remember()
        with pytest.raises(Conflict):
            rehearsing.edit(item.id, expected_version=2, changes=ItemChanges(text="x"), actor=alice)
        told: Rehearsal[None] = rehearsing.new_item(item.subject_id, NewItem("Lives in Bern"), actor=alice)
        assert (told.bytes_after, Item.objects.count()) == (len(TEA) + 13, 1)


class TestStanding:
    def test_forgotten_is_out_of_recall_and_can_be_restored(self, remember: Remember, alice: Actor) -> None:
        item = remember()
        editing.forget(item.id, expected_version=1, reason="asked to", actor=alice)
        editing.forget(item.id, reason="asked twice", actor=alice)
        row, held = Item.objects.get(), Subject.objects.get()
        assert (row.status, row.known_to is not None, Unit.objects.get().in_recall) == ("forgotten", True, False)
        assert (held.item_bytes, held.item_count) == (0, 0)
        editing.restore(item.id, version=1, expected_version=2, reason="by mistake", actor=alice)
        row, held = Item.objects.get(), Subject.objects.get()
        assert (row.status, row.version, row.known_to, words(item.id)) == ("active", 3, None, TEA)
        assert (held.item_bytes, held.item_count, Unit.objects.get().in_recall) == (len(TEA), 1, True)
        assert acts(item) == ["item.created", "item.forgotten", "item.restored"]

    def test_a_restore_is_a_new_revision(self, remember: Remember, alice: Actor) -> None:
        item = remember(importance=0.2)
        editing.edit(
            item.id, expected_version=1, changes=ItemChanges(text="Wrong", importance=0.9), reason="x", actor=alice
        )
        editing.restore(item.id, version=1, expected_version=2, reason="was right", actor=alice)
        assert [words(item.id, version) for version in (1, 2, 3)] == [TEA, "Wrong", TEA]
        found = ItemRevision.objects.get(item_id=item.id, version=3)
        assert (found.change, found.restored_from, found.importance) == ("restored", 1, 0.2)
        with pytest.raises(NotFound, match="no version 9"):
            editing.restore(item.id, version=9, reason="x", actor=alice)

    def test_what_was_said_again_meanwhile_is_not_restored_beside_it(self, remember: Remember, alice: Actor) -> None:
        item = remember()
        editing.forget(item.id, reason="x", actor=alice)
        again = remember()
        assert again.id != item.id
        with pytest.raises(Conflict, match="says the same already"):
            editing.restore(item.id, version=1, reason="x", actor=alice)

    def test_pinned_stays_and_unpinned_gets_a_new_expiry(self, remember: Remember, alice: Actor) -> None:
        item = remember(expires_at=clock.now() + timedelta(days=2))
        pinned = editing.pin(item.id, expected_version=1, reason="always", actor=alice)
        assert (pinned.expires_at, Subject.objects.get().pinned_bytes) == (None, len(TEA))
        assert Unit.objects.get().expires_at is None
        assert editing.pin(item.id, reason="twice", actor=alice).version == 2
        loose = editing.unpin(item.id, expected_version=2, reason="enough", actor=alice)
        assert loose.expires_at is not None and loose.expires_at > clock.now() + timedelta(days=89)
        assert (Subject.objects.get().pinned_bytes, acts(item)[1:]) == (0, ["item.pinned", "item.unpinned"])

    def test_what_is_not_active_must_be_restored_first(self, remember: Remember, alice: Actor) -> None:
        item = remember()
        editing.forget(item.id, reason="x", actor=alice)
        for refused in all_refused(
            Conflict,
            lambda: editing.pin(item.id, reason="x", actor=alice),
            lambda: editing.edit(item.id, expected_version=2, changes=ItemChanges(text="y"), reason="x", actor=alice),
            match="Restore it first",
        ):
            assert refused.message

    def test_unknown_items_are_not_found(self, alice: Actor) -> None:
        for act in (editing.pin, editing.forget):
            with pytest.raises(NotFound):
                act(uuid4(), reason="x", actor=alice)


class TestLock:
    def test_who_edits_keeps_others_out_until_it_ends(self, remember: Remember, alice: Actor, agent: Actor) -> None:
        item = remember()
        locking.lock(item.id, actor=alice, seconds=60)
        locking.lock(item.id, actor=alice, seconds=60)
        for refused in all_refused(
            Conflict,
            lambda: editing.edit(item.id, expected_version=1, changes=ItemChanges(text="x"), reason="x", actor=agent),
            lambda: locking.lock(item.id, actor=agent),
            lambda: locking.unlock(item.id, actor=agent),
            lambda: editing.forget(item.id, reason="x", actor=agent),
            match="Alice is editing",
        ):
            assert refused.data["locked_by"] == "Alice"
        Item.objects.update(locked_until=clock.now() - timedelta(seconds=1))
        assert locking.lock(item.id, actor=agent).locked_name == "desk-1"  # the time was over

    def test_saving_or_unlocking_lets_others_in(self, remember: Remember, alice: Actor, agent: Actor) -> None:
        item = remember()
        locking.lock(item.id, actor=alice)
        editing.edit(item.id, expected_version=1, changes=ItemChanges(text="x"), reason="x", actor=alice)
        locking.lock(item.id, actor=agent)
        locking.unlock(item.id, actor=agent)
        locking.unlock(item.id, actor=alice)
        assert Item.objects.get().locked_by == ""
        for seconds in (0, -1, 10_000):
            with pytest.raises(Invalid):
                locking.lock(item.id, actor=alice, seconds=seconds)


class TestContradictions:
    def test_the_same_attribute_with_another_value_is_proposed_and_nothing_else(
        self, subject: Subject, agent: Actor
    ) -> None:
        first = items.remember(subject.id, NewItem("Ada lives in Bern", attribute="home"), actor=agent)
        second = items.remember(subject.id, NewItem("Her flat is in Rome", attribute="home"), actor=agent)
        assert [(hint.item_id, hint.why) for hint in second.contradicts] == [(_id(first), "attribute")]
        proposal = Proposal.objects.get()
        assert (proposal.act, proposal.item_id, proposal.status) == ("supersede", _id(first), "pending")
        assert {item.status for item in Item.objects.all()} == {"active"}

    def test_facts_about_the_same_contradict_and_others_do_not(self, subject: Subject, agent: Actor) -> None:
        def order(number: str, status: str) -> Kept:
            facts = {"number": number, "status": status}
            new = NewItem(f"Order {number} is {status}", fact_kind="order", facts=facts)
            return items.remember(subject.id, new, actor=agent)

        first = order("A-1", "paid")
        assert order("A-2", "shipped").contradicts == []
        assert [(hint.item_id, hint.why) for hint in order("a-1", "shipped").contradicts] == [(_id(first), "facts")]

    def test_another_number_in_the_same_words_is_a_hint_without_a_proposal(
        self, subject: Subject, agent: Actor
    ) -> None:
        items.remember(subject.id, NewItem("Ada has 2 children at the local school"), actor=agent)
        kept = items.remember(subject.id, NewItem("Ada has 3 children at the local school"), actor=agent)
        assert [hint.why for hint in kept.contradicts] == ["wording"]
        assert not Proposal.objects.exists()


def _id(kept: Kept) -> UUID:
    assert kept.item is not None
    return kept.item.id
