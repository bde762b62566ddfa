"""Items and messages as the API lists them: items of one subject or of all, messages by time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id
from agentstate.db import sql
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.models import Item, Message
from memory.selectors import directory, messages, shelf
from memory.selectors.messages import Messages
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemFilter, ItemRow, Items

SESSION_OF = """
SELECT s.id, s.subject_id, coalesce(u.external_id, ''), u.name, s.message_count
FROM memory_session s JOIN memory_subject u ON u.id = s.subject_id WHERE s.key = %s
"""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A session and whom it is about."""

    session_id: UUID
    subject_id: UUID
    subject: str  # its name, else its external id; "" when there is neither to read
    messages: int


def page(subject_id: UUID | None, wanted: ItemFilter, *, after: str, rows_max: int) -> Items:
    """Of a subject as its page shows them; of all the newest first. Raises: NotFound, Invalid(field="after")."""
    if subject_id is not None:
        _, words = directory.get(subject_id)
        return shelf.page(subject_id, wanted, words, after=after, rows_max=rows_max)
    # Index: memory_item_list.
    rows = cursors.page(
        shelf.narrowed(shelf.with_words(), wanted),
        order=("-id",),
        after=after,
        scope=f"{current_tenant()}:items:{wanted}",
        rows_max=rows_max,
    )
    opened = keys.several({item.subject_id for item in rows.rows})
    return Items([shelf.row_of(item, Words(opened.get(item.subject_id))) for item in rows.rows], rows.after)


def find(public: str) -> tuple[ItemRow, Words]:
    """Raises: NotFound."""
    item_id = parse_id("item", public)
    subject_id = Item.objects.filter(id=item_id).values_list("subject_id", flat=True).first()
    if subject_id is None:
        raise NotFound("There is no such item.")
    words = Words(keys.several([subject_id]).get(subject_id))
    return shelf.some(subject_id, [item_id], words)[item_id], words


def spoken(
    subject_id: UUID, *, since: datetime | None, until: datetime | None, with_undone: bool, after: str, rows_max: int
) -> Messages:
    """What was said in all sessions of a subject, the oldest first. Raises: Invalid(field="after")."""
    found = Message.objects.filter(subject_id=subject_id)
    wanted = {"sent_at__gte": since, "sent_at__lt": until}
    found = found.filter(**{name: value for name, value in wanted.items() if value is not None})
    if not with_undone:
        found = found.filter(undone_in=None)
    scope = f"{current_tenant()}:spoken:{subject_id}:{since}:{until}:{with_undone}"
    # Index: memory_message_time.
    rows = cursors.page(found, order=("sent_at", "id"), after=after, scope=scope, rows_max=rows_max)
    opened = messages.some([row.id for row in rows.rows])
    return Messages([opened[row.id] for row in rows.rows], rows.after)


def session_of(key: str) -> Spoken | None:
    """The session of this key, if there is one. One read, two when there is. Index: memory_session_key."""
    found = sql.row(SESSION_OF, [key])
    if found is None:
        return None
    session_id, subject_id, external_id, sealed, messages = found
    words = Words(keys.several([subject_id]).get(subject_id))
    name = "" if words.erased else words.text("memory_subject", subject_id, sealed)
    return Spoken(session_id, subject_id, name or external_id, messages)
