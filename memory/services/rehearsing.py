"""What a change of an item would do: the change itself, taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from django.db import transaction

from agentstate.core.errors import Invalid
from agentstate.tenants.actors import Actor
from memory.services import cap, editing, hints, items, revising, subjects
from memory.services.cap import Evicted
from memory.services.drafts import ItemChanges, NewItem
from memory.services.editing import Edited
from memory.services.hints import Hint
from memory.services.revising import Held

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Rehearsal(Generic[Seen]):
    """What a change would do; nothing of it was done."""

    evicted: list[Evicted]
    bytes_after: int  # of the subject's active items
    cap_bytes: int
    tokens_after: int  # of the item
    contradicts: list[Hint]
    seen: Seen | None = None  # what the caller's look found while the change was in force


def edit(
    item_id: UUID,
    *,
    expected_version: int,
    changes: ItemChanges,
    actor: Actor,
    look: Callable[[], Seen] | None = None,
) -> Rehearsal[Seen]:
    """The edit itself, taken back: what the cap would evict, and what would contradict it.

    `look` is called while the edit is in force: what recall would find then. Raises: as edit().
    """
    return _rehearsed(
        lambda: editing.edited(
            item_id, expected_version=expected_version, changes=changes, reason="rehearsed", actor=actor
        ),
        look,
    )


def new_item(
    subject_id: UUID, new: NewItem, *, actor: Actor, look: Callable[[], Seen] | None = None
) -> Rehearsal[Seen]:
    """As edit(), for an item that is not there yet."""

    def act() -> Edited:
        kept = items.remember(subject_id, new, actor=actor)
        if kept.item is None:
            raise Invalid(f"This would not be stored: {kept.refused}.", field="text")
        subject = subjects.get(subject_id)
        return Edited(Held(kept.item, revising.content_of(kept.item, subjects.key_of(subject))), kept.evicted)

    return _rehearsed(act, look)


def _rehearsed(act: Callable[[], Edited], look: Callable[[], Seen] | None) -> Rehearsal[Seen]:
    with transaction.atomic():
        done = act()
        held, evicted = done.held, done.evicted
        subject = subjects.get(held.item.subject_id)
        gone = {each.item_id for each in evicted}
        others = [each for each in revising.active(subject, subjects.key_of(subject)) if each.item.id not in gone]
        found: Rehearsal[Seen] = Rehearsal(
            evicted=evicted,
            bytes_after=subject.item_bytes,
            cap_bytes=cap.of(subject),
            tokens_after=held.content.tokens,
            contradicts=hints.against(held.item, held.content, others),
            seen=None if look is None else look(),
        )
        transaction.set_rollback(True)
    return found
