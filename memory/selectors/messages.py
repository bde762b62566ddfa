"""Messages, opened: the end of a session inside a token budget, a range, a page, a span of time.

Nothing here reads more of a session than it returns; what was taken back is left out unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agentstate.core.errors import NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import PAGE_ROWS, PAGE_ROWS_MAX
from agentstate.db import sql
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.models import Author, Message, Session
from memory.selectors.opening import Words

TAIL_ROWS_MAX = 2_000
# The last messages that stand while their tokens fit. Index: memory_message_seq, from its end.
TAIL = """
SELECT m.id, m.seq, m.role, m.author_no, m.text, m.tokens, m.importance, m.origin, m.outcome, m.client_id, m.run_id,
       m.step_seq, m.sent_at, m.undone_in, m.subject_id, m.session_id
FROM (SELECT id, sum(tokens) OVER (ORDER BY seq DESC) AS so_far
      FROM (SELECT id, seq, tokens FROM memory_message WHERE session_id = %s AND undone_in IS NULL
            ORDER BY seq DESC LIMIT %s) newest) counted
JOIN memory_message m ON m.id = counted.id
WHERE so_far <= %s ORDER BY m.seq
"""


@dataclass(frozen=True, slots=True)
class OpenedMessage:
    """`undone_in`: the session's version that took it back; None while it stands."""

    id: UUID
    session_id: UUID
    subject_id: UUID
    seq: int
    role: str
    author: str
    text: str
    tokens: int
    importance: str
    origin: str
    outcome: str
    client_id: str | None
    run_id: UUID | None
    step_seq: int | None
    sent_at: datetime
    undone_in: int | None

    @property
    def public_id(self) -> str:
        return public_id("message", self.id)

    @property
    def speaker(self) -> str:
        return self.author or self.role


@dataclass(slots=True)
class SealedMessage:
    """A message that is opened when its text is asked for: of many that could be used, few are.

    `sent_at`: None where nobody asked for it.
    """

    words: Words
    id: UUID
    subject_id: UUID
    seq: int
    role: str
    speaker: str
    tokens: int
    importance: str
    sent_at: datetime | None
    sealed: bytes
    opened: str | None = None

    @property
    def text(self) -> str:
        return self.words.text("memory_message", self.id, self.sealed) if self.opened is None else self.opened


@dataclass(frozen=True, slots=True)
class Messages:
    rows: list[OpenedMessage]
    after: str


def open_all(chosen: Iterable[OpenedMessage | SealedMessage]) -> None:
    """Open those of one owner that are sealed still, in one go: cheaper than one after the other."""
    sealed = [one for one in chosen if isinstance(one, SealedMessage) and one.opened is None]
    if sealed:
        opened = sealed[0].words.texts("memory_message", [(one.id, one.sealed) for one in sealed])
        for one, text in zip(sealed, opened, strict=True):
            one.opened = text


def tail(session_id: UUID, tokens_max: int, *, rows_max: int = TAIL_ROWS_MAX) -> list[OpenedMessage]:
    """The last messages that stand and fit together, the oldest of them first. Reads no text of any other."""
    columns = TAIL.partition("FROM")[0].replace("SELECT", "").replace("m.", "").split(",")
    names = [column.strip() for column in columns]
    found = sql.rows(TAIL, [session_id, rows_max, tokens_max])
    return opened([dict(zip(names, row, strict=True)) for row in found])


def between(session_id: UUID, from_seq: int, to_seq: int, *, with_undone: bool = False) -> list[OpenedMessage]:
    """Both ends included. Index: memory_message_seq."""
    found = Message.objects.filter(session_id=session_id, seq__gte=from_seq, seq__lte=to_seq)
    return opened(_values(_standing(found, with_undone).order_by("seq")))


def following(session_id: UUID, seq: int, *, rows_max: int) -> list[OpenedMessage]:
    """The next messages that stand. Index: memory_message_seq."""
    found = Message.objects.filter(session_id=session_id, seq__gt=seq, undone_in=None)
    return opened(_values(found.order_by("seq")[:rows_max]))


def page(
    session_id: UUID,
    *,
    after: str = "",
    newest_first: bool = True,
    with_undone: bool = False,
    rows_max: int = PAGE_ROWS,
) -> Messages:
    """Index: memory_message_seq. Raises: NotFound, Invalid(field="after")."""
    if not Session.objects.filter(id=session_id).exists():
        raise NotFound("There is no such session.")
    found = _standing(Message.objects.filter(session_id=session_id), with_undone)
    scope = f"{current_tenant()}:messages:{session_id}:{newest_first}:{with_undone}"
    order = ("-seq",) if newest_first else ("seq",)
    rows = cursors.page(found, order=order, after=after, scope=scope, rows_max=rows_max)
    return Messages(opened([_plain(row) for row in rows.rows]), rows.after)


def in_time_range(
    subject_id: UUID,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    with_undone: bool = False,
    rows_max: int = PAGE_ROWS_MAX,
) -> list[OpenedMessage]:
    """Of all sessions of a subject, by when they were sent, the oldest first. Index: memory_message_time."""
    found = _standing(Message.objects.filter(subject_id=subject_id), with_undone)
    if since is not None:
        found = found.filter(sent_at__gte=since)
    if until is not None:
        found = found.filter(sent_at__lt=until)
    return opened(_values(found.order_by("sent_at", "id")[:rows_max]))


def some(message_ids: Iterable[UUID], *, with_undone: bool = True) -> dict[UUID, OpenedMessage]:
    """These messages by id; missing ones are left out."""
    found = _standing(Message.objects.filter(id__in=list(message_ids)), with_undone)
    return {message.id: message for message in opened(_values(found))}


def opened(rows: Sequence[dict[str, Any]]) -> list[OpenedMessage]:
    """Rows of the table with their words. Two reads: keys and authors."""
    if not rows:
        return []
    subject_ids = {row["subject_id"] for row in rows}
    words = {id: Words(key) for id, key in keys.several(subject_ids).items()}
    names = _names(subject_ids, {row["author_no"] for row in rows}, words)
    return [_opened(row, words.get(row["subject_id"], Words(None)), names) for row in rows]


def _opened(row: dict[str, Any], words: Words, names: dict[tuple[UUID, int], str]) -> OpenedMessage:
    plain = {name: value for name, value in row.items() if name not in ("text", "author_no")}
    return OpenedMessage(
        author=names.get((row["subject_id"], row["author_no"]), ""),
        text=words.text("memory_message", row["id"], row["text"]),
        **plain,
    )


def _names(subject_ids: set[UUID], numbers: set[int], words: dict[UUID, Words]) -> dict[tuple[UUID, int], str]:
    numbers = numbers - {0}
    if not numbers:
        return {}
    # Index: the primary key.
    found = Author.objects.filter(subject_id__in=subject_ids, no__in=numbers)
    return {
        (row.subject_id, row.no): words.get(row.subject_id, Words(None)).text(
            "memory_author", f"{row.subject_id}:{row.no}", row.name
        )
        for row in found
    }


def _standing(found: Any, with_undone: bool) -> Any:
    return found if with_undone else found.filter(undone_in=None)


def _values(found: Any) -> list[dict[str, Any]]:
    return list(found.values(*_COLUMNS))


def _plain(row: Message) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS}


_COLUMNS = [name for name in OpenedMessage.__dataclass_fields__ if name != "author"] + ["author_no"]
