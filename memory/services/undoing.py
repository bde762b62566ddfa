"""What an undo of messages takes with it: their units, the summaries over them, and what was learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import F

from agentstate.core.errors import Invalid
from agentstate.core.limits import ITEM_SOURCES_MAX
from agentstate.tenants.actors import Actor
from memory import keys
from memory.models import Item, Message, Session, Subject
from memory.recall import units
from memory.services import proposals, revising, summaries
from memory.services.drafts import NewItem
from memory.sources import Source
from memory.states import ItemStatus


@dataclass(frozen=True, slots=True)
class Undone:
    """The session as it is now, what was taken back, and the items that were proposed to be forgotten."""

    session: Session
    message_ids: list[UUID]
    from_seq: int
    item_ids: list[UUID]


def undo(session: Session, *, last_n: int, actor: Actor) -> Undone:
    """The session is held. Raises: Invalid when fewer messages stand. Locks: subject."""
    # Index: memory_message_seq, from its end.
    standing = Message.objects.filter(session=session, undone_in=None).order_by("-seq")
    rows = list(standing.values_list("id", "seq", "role", "tokens")[:last_n])
    if len(rows) < last_n:
        raise Invalid(f"Only {len(rows)} messages of this session stand: take back as many, or fewer.", field="/last_n")
    ids, from_seq = [row[0] for row in rows], rows[-1][1]
    session.version += 1
    session.message_count -= last_n
    session.turns -= sum(role == "user" for _, _, role, _ in rows)
    session.tokens -= sum(tokens for *_, tokens in rows)
    Message.objects.filter(id__in=ids).update(undone_in=session.version)
    units.set_in_recall(ids, False)
    session.save(update_fields=["version", "message_count", "turns", "tokens"])
    summaries.take_back(session, from_seq)
    Subject.objects.filter(id=session.subject_id).update(message_count=F("message_count") - last_n)
    return Undone(session, ids, from_seq, _propose_to_forget(session, ids, actor))


def _propose_to_forget(session: Session, message_ids: Sequence[UUID], actor: Actor) -> list[UUID]:
    """Items that were learned from what was taken back; a person decides, for others may have said the same."""
    learned = Item.objects.filter(
        subject_id=session.subject_id, status=ItemStatus.ACTIVE, source_message_ids__overlap=list(message_ids)
    )
    held = revising.opened(learned.order_by("id"), keys.existing(session.subject_id))
    for known in held:
        proposals.propose(
            session.subject_id,
            act="forget",
            new=NewItem(known.content.text, kind=known.item.kind, namespace=known.item.namespace),
            item_id=known.item.id,
            expected_version=known.item.version,
            method="undo",
            confidence=0.9,
            why="Messages it was learned from were taken back.",
            source=Source(message_ids=tuple(message_ids)[:ITEM_SOURCES_MAX]),
            actor=actor,
        )
    return [known.item.id for known in held]
