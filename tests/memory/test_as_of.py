"""As of: the past answers as it was known, whatever was changed, replaced, forgotten or brought back since."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentstate.core.clock import now
from agentstate.core.errors import Conflict
from agentstate.db import sql
from agentstate.tenants.actors import Actor
from memory import keys
from memory.models import Item, Proposal, Subject
from memory.selectors.as_of import items_as_of
from memory.services import editing, items, proposals, revising
from memory.services.drafts import ItemChanges, NewItem

pytestmark = pytest.mark.usefixtures("scope")
DAY = timedelta(days=1)


def texts(subject: Subject, *, true_at: datetime | None = None, known_at: datetime | None = None) -> list[str]:
    return sorted(each.text for each in items_as_of(subject.id, true_at=true_at, known_at=known_at))


def keep(subject: Subject, actor: Actor, text: str, **fields: Any) -> Item:
    kept = items.remember(subject.id, NewItem(text, **fields), actor=actor)
    assert kept.item is not None
    return kept.item


def test_both_axes_of_a_move(subject: Subject, alice: Actor) -> None:
    """Ada lived in Bern; on day 0 she moved to Rome; we heard of it later, and had it wrong for a while."""
    moved = now() - 10 * DAY
    bern = keep(subject, alice, "Lives in Bern", attribute="home", valid_from=moved - 100 * DAY)
    heard_first = now()
    rome = keep(subject, alice, "Has moved to Rome", attribute="home", valid_from=moved)
    proposals.accept(Proposal.objects.get().id, actor=alice)
    heard_move = now()
    editing.restore(bern.id, version=1, reason="it was a mistake", actor=alice)
    editing.forget(rome.id, reason="a mistake", actor=alice)
    corrected = now()
    before, after = moved - DAY, moved + DAY
    assert texts(subject, true_at=after, known_at=heard_first) == ["Lives in Bern"]
    assert texts(subject, true_at=after, known_at=heard_move) == ["Has moved to Rome"]
    assert texts(subject, true_at=before, known_at=heard_move) == ["Lives in Bern"]
    assert texts(subject, true_at=before, known_at=corrected) == ["Lives in Bern"]
    assert texts(subject, true_at=after, known_at=corrected) == ["Lives in Bern"]
    assert texts(subject) == ["Lives in Bern"]
    assert texts(subject, true_at=moved - 200 * DAY) == []
    assert texts(subject, known_at=moved) == []


def test_superseded_is_still_true_before_it_ended(subject: Subject, alice: Actor) -> None:
    moved = now() - 10 * DAY
    keep(subject, alice, "Lives in Bern", attribute="home", valid_from=moved - 100 * DAY)
    keep(subject, alice, "Has moved to Rome", attribute="home", valid_from=moved)
    proposal = Proposal.objects.get()
    proposals.accept(proposal.id, actor=alice)
    assert proposal.item_id is not None
    old = Item.objects.get(id=proposal.item_id)
    assert (old.valid_from, old.valid_to) == (moved - 100 * DAY, moved)
    assert texts(subject, true_at=moved - DAY) == ["Lives in Bern"]
    assert texts(subject, true_at=moved) == ["Has moved to Rome"]


def test_any_walk_is_remembered_moment_by_moment(subject: Subject, alice: Actor) -> None:
    """After each act the active words are noted; afterwards every noted moment answers the same."""
    dice = random.Random(5)
    noted: list[tuple[datetime, list[str]]] = []
    for turn in range(60):
        found = list(Item.objects.filter(subject_id=subject.id).order_by("id"))
        item = dice.choice(found) if found else None
        act = dice.choice(["new", "new", "edit", "forget", "restore", "pin", "unpin"])
        how: dict[str, Any] = {"reason": "x", "actor": alice}
        try:
            if act == "new" or item is None:
                keep(subject, alice, f"word{turn} " * dice.randint(5, 100))
            elif act == "edit":
                editing.edit(item.id, expected_version=item.version, changes=ItemChanges(text=f"edit{turn}"), **how)
            elif act == "restore":
                editing.restore(item.id, version=dice.randint(1, item.version), **how)
            else:
                getattr(editing, act)(item.id, **how)
        except Conflict:
            pass
        key = keys.existing(subject.id)
        noted.append((now(), sorted(each.content.text for each in revising.active(subject, key))))
    assert len({tuple(words) for _, words in noted}) > 25
    for moment, words in noted:
        assert texts(subject, known_at=moment) == words


def test_it_costs_two_statements_whatever_there_is(subject: Subject, alice: Actor) -> None:
    for number in range(30):
        keep(subject, alice, f"Statement number {number}", namespace=f"n{number}")
    with sql.watched() as by_hand, CaptureQueriesContext(connection) as by_orm:
        assert len(items_as_of(subject.id)) == 30
    asked = [each["sql"] for each in by_orm.captured_queries if "keyring" not in each["sql"]]
    assert len(by_hand) + len(asked) == 2


def test_what_was_erased_says_so(subject: Subject, alice: Actor) -> None:
    keep(subject, alice, "Lives in Bern")
    keys.destroy(subject.id)
    assert texts(subject) == ["[erased]"]
