"""Messages become rows: numbered without holes, sealed, counted and indexed in the transaction that holds the session.

What recording costs does not depend on how long the session is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import F, Max, Q
from django.db.models.functions import Greatest

from agentstate.core import tokens
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import AUTHORS_MAX
from agentstate.db import locks
from memory import sealing, texts
from memory.models import Author, Message, Session, Subject
from memory.recall import units
from memory.states import SessionStatus, SubjectStatus

NOBODY = 0  # the number of a message without an author


@dataclass(frozen=True, slots=True)
class Entry:
    """A message that was checked and has its id: it waits in a buffer, or becomes a row now."""

    id: UUID
    role: str
    text: str
    author: str
    importance: str
    outcome: str
    origin: str
    sent_at: datetime
    accepted_at: datetime
    client_id: str | None = None
    run_id: UUID | None = None
    step_seq: int | None = None

    @property
    def tokens(self) -> int:
        return tokens.count(self.text)


def locked(session_id: UUID) -> Session:
    """The session as it is while we hold it. Raises: NotFound, LockTimeout."""
    try:
        return locks.lock_in_order(Session(id=session_id))[0]
    except Session.DoesNotExist:
        raise NotFound("There is no such session.") from None


def has_ended(session: Session, now: datetime) -> bool:
    """Also when its time is over and nobody has marked it yet: what is due does not depend on the sweep's pace."""
    return session.status != SessionStatus.OPEN or (session.due_at is not None and session.due_at <= now)


def due_at(*, last_active_at: datetime, idle_s: int | None, expires_at: datetime | None) -> datetime | None:
    idle_until = last_active_at + timedelta(seconds=idle_s) if idle_s is not None else None
    return min((moment for moment in (idle_until, expires_at) if moment is not None), default=None)


def record(session: Session, entries: Sequence[Entry], *, key: bytes, replayed: bool = False) -> list[tuple[UUID, int]]:
    """Id and number of each entry; those that are there already keep what they have. Idempotent by client id.

    `replayed`: the entries come out of a buffer, so any of them may be there by its own id, and a client id that came
    with another text in the meantime keeps the first. The session is held and brought up to date; `key`: its subject's.
    Raises: Conflict for a client id with another text, or a subject that is being erased. Locks: subject.
    """
    assert connection.in_atomic_block, "a message, its place and its unit are one transaction"
    known = _known(session, entries, by_id=replayed)
    fresh: list[Entry] = []
    recorded = []
    for entry in entries:
        held = known.get(_name(entry)) or known.get(str(entry.id))
        if held is None:
            held = known[_name(entry)] = _Held(entry.id, session.last_seq + len(fresh) + 1)
            fresh.append(entry)
        elif held.sealed and not replayed:
            held.check(entry, key)
        recorded.append((held.id, held.seq))
    if fresh:
        _write(session, fresh, key)
    return recorded


@dataclass(frozen=True, slots=True)
class _Held:
    """A message that is there: a row, or an entry of the same call (nothing sealed yet)."""

    id: UUID
    seq: int
    role: str = ""
    sealed: bytes = b""

    def check(self, entry: Entry, key: bytes) -> None:
        """Raises: Conflict."""
        text = sealing.open_text(key, "memory_message", self.id, self.sealed)
        if (self.role, text) != (entry.role, entry.text):
            raise client_id_taken(entry.client_id, self.id)


def client_id_taken(client_id: str | None, message_id: UUID) -> Conflict:
    return Conflict(
        f"A message with the client_id {client_id} came before with another text. Use a new client_id for a new text.",
        message_id=public_id("message", message_id),
        client_id=client_id,
    )


def _name(entry: Entry) -> str:
    return f"client:{entry.client_id}" if entry.client_id is not None else str(entry.id)


def _known(session: Session, entries: Iterable[Entry], *, by_id: bool) -> dict[str, _Held]:
    client_ids = [entry.client_id for entry in entries if entry.client_id is not None]
    ids = [entry.id for entry in entries] if by_id else []
    if not client_ids and not ids:
        return {}
    # Indexes: memory_message_client_id, the primary key.
    wanted = Q(session=session, client_id__in=client_ids) | Q(id__in=ids)
    known = {}
    for id, seq, client_id, role, text in Message.objects.filter(wanted).values_list(
        "id", "seq", "client_id", "role", "text"
    ):
        held = _Held(id, seq, role=role, sealed=bytes(text))
        known[str(id)] = held
        if client_id is not None:
            known[f"client:{client_id}"] = held
    return known


def _write(session: Session, fresh: Sequence[Entry], key: bytes) -> None:
    _count_on_subject(session.subject_id, fresh)
    numbers = author_numbers(session.subject_id, {entry.author for entry in fresh}, key)
    rows = [
        _row(session, entry, seq=session.last_seq + place, author_no=numbers[entry.author], key=key)
        for place, entry in enumerate(fresh, start=1)
    ]
    Message.objects.bulk_create(rows)
    units.index_messages([(row, entry.text, entry.author) for row, entry in zip(rows, fresh, strict=True)])
    _count_on_session(session, rows, fresh)


def _row(session: Session, entry: Entry, *, seq: int, author_no: int, key: bytes) -> Message:
    return Message(
        id=entry.id,
        session_id=session.id,
        subject_id=session.subject_id,
        seq=seq,
        role=entry.role,
        author_no=author_no,
        text=sealing.seal_text(key, "memory_message", entry.id, entry.text),
        tokens=entry.tokens,
        bytes=len(entry.text.encode()),
        importance=entry.importance,
        origin=entry.origin,
        outcome=entry.outcome,
        client_id=entry.client_id,
        run_id=entry.run_id,
        step_seq=entry.step_seq,
        sent_at=entry.sent_at,
        recorded_at=entry.accepted_at,
    )


def _count_on_subject(subject_id: UUID, fresh: Sequence[Entry]) -> None:
    """Holds the subject: its authors are numbered by one at a time."""
    newest = max(entry.accepted_at for entry in fresh)
    active = Subject.objects.filter(id=subject_id, status=SubjectStatus.ACTIVE)
    with locks.translated():
        moved = active.update(
            message_count=F("message_count") + len(fresh), last_active_at=Greatest("last_active_at", newest)
        )
    if not moved:
        raise Conflict("The subject of this session is being erased: nothing is written about it any more.")


def _count_on_session(session: Session, rows: Sequence[Message], fresh: Sequence[Entry]) -> None:
    session.last_seq += len(rows)
    session.message_count += len(rows)
    session.turns += sum(row.role == "user" for row in rows)
    session.tokens += sum(row.tokens for row in rows)
    session.last_active_at = max(session.last_active_at, *(entry.accepted_at for entry in fresh))
    counted = ["last_seq", "message_count", "turns", "tokens", "last_active_at"]
    if session.status == SessionStatus.OPEN:
        session.due_at = due_at(
            last_active_at=session.last_active_at, idle_s=session.idle_s, expires_at=session.expires_at
        )
        counted.append("due_at")
    session.save(update_fields=counted)


def author_numbers(subject_id: UUID, names: Collection[str], key: bytes) -> dict[str, int]:
    """Name -> number; unknown names get the next ones. The subject's row is held."""
    digests = {name: author_digest(subject_id, name) for name in names if name}
    if not digests:
        return dict.fromkeys(names, NOBODY)
    # Index: memory_author_digest.
    found = Author.objects.filter(subject_id=subject_id, digest__in=list(digests.values()))
    numbers = {bytes(digest): no for digest, no in found.values_list("digest", "no")}
    unknown = sorted({digest: name for name, digest in digests.items() if digest not in numbers}.items())
    if unknown:
        numbers |= _name_authors(subject_id, unknown, key)
    return {name: numbers[digests[name]] if name else NOBODY for name in names}


def _name_authors(subject_id: UUID, unknown: Sequence[tuple[bytes, str]], key: bytes) -> dict[bytes, int]:
    highest = Author.objects.filter(subject_id=subject_id).aggregate(no=Max("no"))["no"] or NOBODY
    if highest + len(unknown) > AUTHORS_MAX:
        raise Invalid(f"A subject's sessions have at most {AUTHORS_MAX:,} authors.", field="/author")
    rows = [
        Author(
            subject_id=subject_id,
            no=no,
            digest=digest,
            name=sealing.seal_text(key, "memory_author", f"{subject_id}:{no}", name),
        )
        for no, (digest, name) in enumerate(unknown, start=highest + 1)
    ]
    Author.objects.bulk_create(rows)
    return {bytes(row.digest): row.no for row in rows}


def author_digest(subject_id: UUID, name: str) -> bytes:
    """Bound to the subject: the same name elsewhere has another digest."""
    return sealing.digest("author", str(subject_id), texts.normalised(name))
