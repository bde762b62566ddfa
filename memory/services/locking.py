"""Locks of one item: the row lock under which it changes, and the sign by which an editor keeps others from it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import ITEM_LOCK_S_MAX
from agentstate.db import locks
from agentstate.tenants.actors import Actor
from memory.models import Item, Subject
from memory.services import rights, subjects

_LOCK = ["locked_by", "locked_name", "locked_until"]


def lock(item_id: UUID, *, actor: Actor, seconds: int = ITEM_LOCK_S_MAX) -> Item:
    """Tell others that you are editing it. Again by the same actor: renewed. It ends by itself.

    Raises: Conflict naming who holds it until when; Invalid; NotFound; Forbidden.
    """
    rights.require_writing(actor)
    if not 0 < seconds <= ITEM_LOCK_S_MAX:
        raise Invalid(f"An item is locked for 1 to {ITEM_LOCK_S_MAX} seconds.", field="seconds")
    _, item = both(item_id)
    check_free(item, actor)
    item.locked_by, item.locked_name = actor.id, actor.name
    item.locked_until = now() + timedelta(seconds=seconds)
    item.save(update_fields=_LOCK)
    return item


def unlock(item_id: UUID, *, actor: Actor) -> Item:
    """Idempotent. Raises: Conflict while somebody else holds it."""
    rights.require_writing(actor)
    _, item = both(item_id)
    check_free(item, actor)
    item.locked_by, item.locked_name, item.locked_until = "", "", None
    item.save(update_fields=_LOCK)
    return item


def both(item_id: UUID) -> tuple[Subject, Item]:
    """Subject, then item. Raises: NotFound, Conflict, LockTimeout."""
    subject_id = Item.objects.filter(id=item_id).values_list("subject_id", flat=True).first()
    if subject_id is None:
        raise NotFound("There is no such item.")
    subject = subjects.locked(subject_id)
    try:
        (item,) = locks.lock_in_order(Item(id=item_id))
    except Item.DoesNotExist:
        raise NotFound("There is no such item.") from None
    return subject, item


def check_free(item: Item, actor: Actor) -> None:
    """Raises: Conflict while somebody else is editing it."""
    held = item.locked_by and item.locked_until is not None and item.locked_until > now()
    if held and item.locked_by != actor.id and actor.kind != "system":
        assert item.locked_until is not None
        raise Conflict(
            f"{item.locked_name} is editing {public_id('item', item.id)} until {item.locked_until:%H:%M:%S} UTC.",
            locked_by=item.locked_name,
            locked_until=item.locked_until.isoformat(),
            version=item.version,
        )
