"""Proposals: decided once, whoever clicks, and never against something that has changed since."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection

from agentstate.audit import history
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import keys
from memory.models import Item, Proposal, Subject
from memory.services import editing, items, proposals, revising
from memory.services.drafts import ItemChanges, NewItem
from memory.services.proposals import Proposed
from memory.sources import Source

in_scope = pytest.mark.usefixtures("scope")


def propose(subject: Subject, actor: Actor, text: str = "Likes tea", **how: Any) -> Proposed:
    given: dict[str, Any] = {"act": "add", "method": "rules", **how}
    return proposals.propose(subject.id, new=NewItem(text), actor=actor, **given)


def remembered(subject: Subject, actor: Actor, text: str, **fields: Any) -> Item:
    kept = items.remember(subject.id, NewItem(text, **fields), actor=actor)
    assert kept.item is not None
    return kept.item


def said(item_id: UUID) -> str:
    item = Item.objects.get(id=item_id)
    return revising.content_of(item, keys.existing(item.subject_id)).text


def only(proposed: Proposed) -> Proposal:
    assert proposed.proposal is not None, proposed
    return proposed.proposal


@in_scope
class TestProposing:
    def test_it_is_made_once_while_pending_and_sealed(self, subject: Subject, agent: Actor) -> None:
        first = propose(subject, agent, "Likes tea", why="She said “tea”.")
        again = propose(subject, agent, "likes  TEA")
        assert (first.outcome, again.outcome, only(again).id) == ("proposed", "known", only(first).id)
        row = Proposal.objects.get()
        assert b"tea" not in bytes(row.body) and b"tea" not in bytes(row.why)
        assert proposals.body_of(row, keys.existing(subject.id)).text == "Likes tea"
        assert not Item.objects.exists()

    def test_what_an_item_says_already_is_not_proposed(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        remembered(subject, alice, "Likes green tea in the office")
        for echo in ("likes green tea in the office", "As you told me, you like green tea in the office."):
            assert propose(subject, agent, echo).outcome == "known"
        assert propose(subject, agent, "Likes black tea in the office").outcome == "proposed"

    def test_a_policy_accepts_what_is_sure_and_loses_nothing(
        self, subject: Subject, agent: Actor, alice: Actor
    ) -> None:
        sure = propose(subject, agent, "Likes tea", accept="auto", confidence=0.9)
        assert (sure.outcome, only(sure).status, only(sure).decided_by) == ("accepted", "accepted", "policy")
        assert sure.kept is not None and sure.kept.item is not None
        assert only(sure).item_id == sure.kept.item.id
        assert propose(subject, agent, "Hates soap", accept="auto", confidence=0.3).outcome == "proposed"
        item = remembered(subject, alice, "Lives in Bern")
        for act in ("supersede", "update", "forget"):
            text = f"Lives in Rome: {act}"
            found = propose(subject, agent, text, act=act, item_id=item.id, accept="auto", confidence=1)
            assert found.outcome == "proposed"
        assert said(item.id) == "Lives in Bern"

    def test_the_same_messages_ask_only_once(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        from tests.memory.test_fence import say

        source = Source(message_ids=(say(subject, agent, "I like tea"),))
        first = only(propose(subject, agent, source=source))
        proposals.reject(first.id, actor=alice, reason="a joke")
        assert propose(subject, agent, source=source).outcome == "decided"
        later = Source(message_ids=(say(subject, agent, "I do like tea"),))
        assert propose(subject, agent, source=later).outcome == "proposed"

    def test_what_cannot_be_proposed_names_its_field(self, subject: Subject, agent: Actor, victor: Actor) -> None:
        for how, field in (
            ({"act": "think"}, "act"),
            ({"method": ""}, "method"),
            ({"confidence": 2}, "confidence"),
            ({"text": "\0"}, "text"),
        ):
            with pytest.raises(Invalid) as refused:
                propose(subject, agent, **how)
            assert refused.value.field == field
        with pytest.raises(NotFound):
            propose(subject, agent, act="update", item_id=uuid4())
        with pytest.raises(Forbidden):
            propose(subject, victor)


@in_scope
class TestDeciding:
    def test_accepting_does_it_and_says_who(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        proposal = only(propose(subject, agent))
        decided = proposals.accept(proposal.id, actor=alice, reason="true")
        assert decided.item is not None
        assert (said(decided.item.id), decided.proposal.decided_by) == ("Likes tea", "Alice")
        assert [entry.action for entry in history.of("proposal", proposal.id)] == [
            "proposal.made",
            "proposal.accepted",
        ]
        again = proposals.accept(proposal.id, actor=alice)
        assert (again.proposal.id, Item.objects.count()) == (proposal.id, 1)

    def test_a_person_may_put_it_in_other_words(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        proposal = only(propose(subject, agent))
        decided = proposals.accept(proposal.id, actor=alice, new=NewItem("Likes green tea"))
        assert decided.item is not None and said(decided.item.id) == "Likes green tea"

    def test_the_second_decision_is_told_who_was_first(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        proposal = only(propose(subject, agent))
        proposals.reject(proposal.id, actor=alice, reason="no")
        assert proposals.reject(proposal.id, actor=alice).proposal.status == "rejected"
        for act in (proposals.accept, proposals.reject):
            with pytest.raises(Conflict, match="by Alice") as refused:
                act(proposal.id, actor=agent)
            assert refused.value.data["status"] == "rejected"
        assert not Item.objects.exists()
        with pytest.raises(NotFound):
            proposals.accept(uuid4(), actor=alice)

    def test_an_item_that_changed_since_withdraws_its_proposals(
        self, subject: Subject, agent: Actor, alice: Actor
    ) -> None:
        item = remembered(subject, alice, "Lives in Bern")
        stale = only(propose(subject, agent, "Lives in Rome", act="update", item_id=item.id))
        editing.edit(item.id, expected_version=1, changes=ItemChanges(text="Lives in Basel"), reason="x", actor=alice)
        decided = proposals.accept(stale.id, actor=alice)
        assert (decided.proposal.status, decided.item) == ("withdrawn", None)
        assert "is at version 2 by now, not 1" in decided.why
        assert said(item.id) == "Lives in Basel"

    def test_the_version_that_the_person_saw_counts_too(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        item = remembered(subject, alice, "Lives in Bern")
        proposal = only(propose(subject, agent, "Lives in Rome", act="update", item_id=item.id))
        assert proposals.accept(proposal.id, actor=alice, expected_version=7).proposal.status == "withdrawn"

    def test_an_update_edits_and_withdraws_what_is_now_out_of_date(
        self, subject: Subject, agent: Actor, alice: Actor
    ) -> None:
        item = remembered(subject, alice, "Lives in Bern")
        update = only(propose(subject, agent, "Lives in Rome", act="update", item_id=item.id))
        other = only(propose(subject, agent, "x", act="forget", item_id=item.id))
        decided = proposals.accept(update.id, actor=alice)
        assert (said(item.id), decided.withdrawn) == ("Lives in Rome", [other.id])
        assert Proposal.objects.get(id=other.id).status == "withdrawn"

    def test_forgetting_by_proposal(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        item = remembered(subject, alice, "Lives in Bern")
        proposal = only(propose(subject, agent, "no longer needed", act="forget", item_id=item.id))
        proposals.accept(proposal.id, actor=alice)
        assert Item.objects.get(id=item.id).status == "forgotten"


@in_scope
class TestSuperseding:
    def test_the_old_one_ends_where_the_new_one_begins_and_can_come_back(
        self, subject: Subject, agent: Actor, alice: Actor
    ) -> None:
        old = remembered(subject, agent, "Lives in Bern", attribute="home")
        other = remembered(subject, alice, "Her flat is in Chur", attribute="home")
        new = remembered(subject, agent, "Has moved to Rome", attribute="home")
        proposal = Proposal.objects.get(item_id=old.id, digest=_digest(old, "Has moved to Rome"))
        decided = proposals.accept(proposal.id, actor=alice)
        row = Item.objects.get(id=old.id)
        assert (row.status, row.superseded_by, row.valid_to) == ("superseded", new.id, new.valid_from)
        assert row.known_to is not None
        assert [hint.item_id for hint in decided.collateral] == [other.id]
        assert Subject.objects.get(id=subject.id).item_count == 2
        editing.restore(old.id, version=1, reason="wrongly", actor=alice)
        row = Item.objects.get(id=old.id)
        assert (row.status, row.superseded_by, row.valid_to, row.known_to) == ("active", None, None, None)

    def test_an_agents_own_supersede_brings_the_new_words(self, subject: Subject, agent: Actor, alice: Actor) -> None:
        old = remembered(subject, agent, "Lives in Bern")
        proposal = only(propose(subject, agent, "Lives in Rome since spring", act="supersede", item_id=old.id))
        decided = proposals.accept(proposal.id, actor=alice)
        assert decided.item is not None
        assert (said(decided.item.id), Item.objects.get(id=old.id).status) == (
            "Lives in Rome since spring",
            "superseded",
        )


def test_many_clickers_make_one_decision(committed_db: None, tenant: Tenant, subject: Subject, agent: Actor) -> None:
    with tenant_scope(tenant.id):
        proposal = only(propose(subject, agent))
    start = Barrier(6)

    def click(number: int) -> str:
        actor = actors.system(f"person {number}", tenant_id=tenant.id)
        act = proposals.accept if number % 2 else proposals.reject
        try:
            start.wait(20)
            with tenant_scope(tenant.id):
                return str(act(proposal.id, actor=actor).proposal.status)
        except Conflict:
            return "told"
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(click, range(6), timeout=60))
    assert sorted(outcomes)[-5:] == ["told"] * 5
    with tenant_scope(tenant.id):
        row = Proposal.objects.get()
        assert row.status in outcomes
        assert Item.objects.count() == (row.status == "accepted")
        assert len(history.of("proposal", row.id)) == 2


def _digest(item: Item, text: str) -> bytes:
    from memory.services import suggesting

    return suggesting.digest_of("supersede", item.id, text)
