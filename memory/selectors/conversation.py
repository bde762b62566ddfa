"""One session as its page shows it: a window of its messages, and what each answer in it knew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db.models import QuerySet

from agentstate.core.errors import Invalid, NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.db import sql
from memory import keys
from memory.models import Author, ItemRevision, Message, Session, Subject, Summary
from memory.selectors import directory, removed
from memory.selectors.messages import OpenedMessage
from memory.selectors.opening import Words
from memory.selectors.sessions import SessionRow

WINDOW = 50  # messages on a page
SUMMARIES_SHOWN = 20

# Index: memory_injection_session; calls since the message before the window, without the tail they also were given.
KNOWN = """
select call_id, run_id, step_seq, min(at), sum(tokens), count(*) filter (where part = 'tail'),
  coalesce(json_agg(json_build_object('part', part, 'source', source, 'id', source_id, 'version', version)
    order by position) filter (where part <> 'tail'), '[]')::text
from memory_injection where session_id = %s and at <= %s
  and at > coalesce((select recorded_at from memory_message where session_id = %s and seq = %s), '-infinity')
group by call_id, run_id, step_seq order by min(at) desc limit 200
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing a call was given, besides the newest messages."""

    part: str
    source: str
    source_id: UUID
    version: int
    text: str = ""  # of an item, as this version has it; "" when it is gone

    @property
    def public_id(self) -> str:
        return public_id(self.source, self.source_id)


@dataclass(frozen=True, slots=True)
class Known:
    """What an answer was given."""

    call_id: UUID
    run_id: UUID | None
    step_seq: int | None
    at: datetime
    tokens: int
    tail: int  # messages word for word
    pieces: list[Piece]

    @property
    def run(self) -> str:
        return public_id("run", self.run_id) if self.run_id else ""

    def count(self, *parts: str) -> int:
        return sum(piece.part in parts for piece in self.pieces)

    @property
    def items(self) -> int:
        return sum(piece.source == "item" for piece in self.pieces)

    @property
    def recalled_messages(self) -> int:
        return sum(piece.source == "message" for piece in self.pieces)

    @property
    def summaries(self) -> int:
        return self.count("summary")

    @property
    def prompt(self) -> Piece | None:
        return next((piece for piece in self.pieces if piece.source == "prompt"), None)


@dataclass(frozen=True, slots=True)
class SummaryRow:
    id: UUID
    level: str
    from_seq: int
    to_seq: int
    text: str
    tokens: int
    method: str
    created_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("summary", self.id)


@dataclass(frozen=True, slots=True)
class Conversation:
    session: SessionRow
    subject: str  # its name
    subject_id: UUID
    words: Words

    @property
    def subject_public_id(self) -> str:
        return public_id("subject", self.subject_id)


@dataclass(frozen=True, slots=True)
class Window:
    rows: list[OpenedMessage] = field(default_factory=list)
    known: dict[UUID, Known] = field(default_factory=dict)  # by the answer's id
    before: int = 0  # there are messages before this number
    after: int = 0  # and after this one

    @property
    def first(self) -> int:
        return self.rows[0].seq if self.rows else 0

    @property
    def last(self) -> int:
        return self.rows[-1].seq if self.rows else 0


def find(public: str) -> Conversation:
    """Three reads. Raises: NotFound."""
    session_id = parse_id("session", public)
    session = Session.objects.filter(id=session_id).first()
    if session is None:
        raise NotFound(removed.session_told(session_id))
    words = Words(keys.several([session.subject_id]).get(session.subject_id))
    subject = Subject.objects.filter(id=session.subject_id).first()
    name = directory.name_of(subject, words) if subject else ""
    return Conversation(_row(session, words), name, session.subject_id, words)


def by_key(key: str) -> str | None:
    """The public id of the session with this key. Index: memory_session_key."""
    found = Session.objects.filter(key=key).values_list("id", flat=True).first() if "\0" not in key else None
    return public_id("session", found) if found else None


def newest_of(subject_id: UUID, words: Words, *, rows_max: int, named: str = "") -> list[SessionRow]:
    """`named`: the session with this public id, and no other. Index: memory_session_of_subject, or the primary key.

    Raises: Invalid when it is not one of this subject's.
    """
    found = Session.objects.filter(subject_id=subject_id)
    if not named:
        return [_row(session, words) for session in found.order_by("-last_active_at")[:rows_max]]
    try:
        return [_row(found.get(id=parse_id("session", named)), words)]
    except (NotFound, Session.DoesNotExist):
        raise Invalid(
            "There is no such session of this subject. Choose one of those offered.", field="session"
        ) from None


def window(
    shown: Conversation,
    *,
    first: int = 0,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Window:
    """Messages from number `first` on (0: the newest), or of a time range; undone ones too. Four reads."""
    # Indexes: memory_message_seq; for a time range memory_message_time.
    found: QuerySet[Message] = Message.objects.filter(session_id=shown.session.id, subject_id=shown.subject_id)
    if since is not None:
        found = found.filter(sent_at__gte=since)
    if until is not None:
        found = found.filter(sent_at__lt=until)
    if first or since is not None:
        rows = list(found.filter(seq__gte=first).order_by("seq")[: WINDOW + 1])
        more_after, rows = len(rows) > WINDOW, rows[:WINDOW]
        more_before = bool(rows) and rows[0].seq > 1 and since is None
    else:
        rows = list(found.order_by("-seq")[: WINDOW + 1])
        more_before, rows, more_after = len(rows) > WINDOW, rows[:WINDOW][::-1], False
    return Window(
        _opened(shown, rows),
        _worded(shown, _known(shown.session.id, rows)),
        before=rows[0].seq if more_before else 0,
        after=rows[-1].seq if more_after else 0,
    )


def last_standing(shown: Conversation, *, last_n: int) -> list[OpenedMessage]:
    """The newest messages that an undo would take back, in their order. Index: memory_message_seq."""
    found = Message.objects.filter(session_id=shown.session.id, undone_in=None).order_by("-seq")[:last_n]
    return _opened(shown, list(found)[::-1])


def summaries(shown: Conversation) -> list[SummaryRow]:
    """Those in force, the widest first. Index: memory_summary_new."""
    found = Summary.objects.filter(session_id=shown.session.id, stale=False).order_by("-to_seq", "from_seq")
    return [
        SummaryRow(
            row.id,
            row.level,
            row.from_seq,
            row.to_seq,
            shown.words.text("memory_summary", row.id, row.text),
            row.tokens,
            row.method,
            row.created_at,
        )
        for row in found[:SUMMARIES_SHOWN]
    ]


def _row(session: Session, words: Words) -> SessionRow:
    plain = {name: getattr(session, name) for name in SessionRow.__dataclass_fields__ if name != "title"}
    return SessionRow(title=words.text("memory_session", session.id, session.title), **plain)


def _opened(shown: Conversation, rows: Sequence[Message]) -> list[OpenedMessage]:
    names = _authors(shown, {row.author_no for row in rows} - {0})
    return [
        OpenedMessage(
            author=names.get(row.author_no, ""),
            text=shown.words.text("memory_message", row.id, row.text),
            **{name: getattr(row, name) for name in _PLAIN},
        )
        for row in rows
    ]


_PLAIN = [name for name in OpenedMessage.__dataclass_fields__ if name not in ("author", "text")]


def _authors(shown: Conversation, numbers: set[int]) -> dict[int, str]:
    found = Author.objects.filter(subject_id=shown.subject_id, no__in=numbers) if numbers else []
    return {row.no: shown.words.text("memory_author", f"{row.subject_id}:{row.no}", row.name) for row in found}


def _known(session_id: UUID, rows: Sequence[Message]) -> dict[UUID, Known]:
    """For each answer the last call of its run before it was recorded, and after the answer before that."""
    answers = [row for row in rows if row.role == "assistant"]
    if not answers:
        return {}
    found = sql.rows(KNOWN, [session_id, answers[-1].recorded_at, session_id, rows[0].seq - 1])
    calls = [_call(row) for row in reversed(found)]
    matched: dict[UUID, Known] = {}
    for answer in answers:
        mine = [call for call in calls if call.run_id == answer.run_id and call.at <= answer.recorded_at]
        if mine:
            matched[answer.id] = mine[-1]
            calls = [call for call in calls if call.run_id != answer.run_id or call.at > mine[-1].at]
    return matched


def _worded(shown: Conversation, known: dict[UUID, Known]) -> dict[UUID, Known]:
    """The same with the words of their items. One read. Index: memory_itemrevision_pkey."""
    wanted = {piece.source_id for call in known.values() for piece in call.pieces if piece.source == "item"}
    found = ItemRevision.objects.filter(item_id__in=wanted, subject_id=shown.subject_id) if wanted else []
    texts = {
        (row.item_id, row.version): shown.words.text(
            "memory_itemrevision", f"{row.item_id}:{row.version}:text", row.text
        )
        for row in found
    }

    def worded(piece: Piece) -> Piece:
        return replace(piece, text=texts.get((piece.source_id, piece.version), ""))

    return {answer: replace(call, pieces=[worded(piece) for piece in call.pieces]) for answer, call in known.items()}


def _call(found: tuple[Any, ...]) -> Known:
    call_id, run_id, step_seq, at, tokens, tail, pieces = found
    parts = [Piece(each["part"], each["source"], UUID(each["id"]), each["version"]) for each in orjson.loads(pieces)]
    return Known(call_id, run_id, step_seq, at, tokens, tail, parts)
