"""Sessions, their messages and what was told of them."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Q

from agentstate.core import tokens
from memory import sealing, transfer
from memory.models import Message, Session, Summary
from memory.recall import units
from memory.services import recording
from memory.services.imports.desk import Desk
from memory.services.imports.lines import Numbered, bad


def take_session(desk: Desk, batch: Sequence[Numbered]) -> None:
    here = desk.here(Session, batch)
    taken = set(Session.objects.filter(key__in=[each.line.key for each in batch]).values_list("key", flat=True))
    for each in batch:
        line: transfer.SessionLine = each.line
        if line.id in desk.sessions:
            raise bad(each.number, "this session came before")
        if line.id in here:
            desk.sessions[line.id] = here[line.id]
        elif line.key in taken:
            desk.conflict(each, f"the session {line.key} is here already.")
            desk.sessions[line.id] = desk.row_id(line.id)
            continue
        else:
            _write_session(desk, line)
        desk.session_lines[desk.sessions[line.id]] = line.key, each.number
        desk.counted("session", line.id not in here)


def take_message(desk: Desk, batch: Sequence[Numbered]) -> None:
    here, pairs = desk.here(Message, batch), []
    for each in batch:
        line: transfer.MessageLine = each.line
        if line.session not in desk.sessions:
            raise bad(each.number, "its session did not come before it")
        if line.author not in desk.authors:
            raise bad(each.number, f"author {line.author} did not come before it")
        desk.counted("message", line.id not in here)
        desk.link(line.run)
        if line.id not in here:
            pairs.append((each, _message(desk, line), desk.authors[line.author][1]))
    _check_places(desk, pairs)
    if desk.report.conflicts:
        return
    Message.objects.bulk_create([row for _, row, _ in pairs])
    units.index_messages([(row, each.line.text, author) for each, row, author in pairs])


def take_summary(desk: Desk, batch: Sequence[Numbered]) -> None:
    here, rows = desk.here(Summary, batch), []
    for each in batch:
        line: transfer.SummaryLine = each.line
        if line.session is not None and line.session not in desk.sessions:
            raise bad(each.number, "its session did not come before it")
        desk.counted("summary", line.id not in here)
        desk.link(line.run)
        if line.id not in here:
            row = Summary(
                id=desk.row_id(line.id),
                subject=desk.subject,
                session_id=desk.sessions[line.session] if line.session else None,
                tokens=tokens.count(line.text),
                source_ids=desk.row_ids(line.sources),
                **line.model_dump(
                    include={"level", "from_seq", "to_seq", "session_version", "method", "stale", "created_at"}
                ),
            )
            row.text = sealing.seal_text(desk.key, "memory_summary", row.id, line.text)
            rows.append(row)
    Summary.objects.bulk_create(rows)


def _write_session(desk: Desk, line: transfer.SessionLine) -> None:
    session_id = desk.sessions[line.id] = desk.row_id(line.id)
    is_open = line.status == "open"
    due_at = recording.due_at(last_active_at=line.last_active_at, idle_s=line.idle_s, expires_at=line.expires_at)
    fields = line.model_dump(include={"key", "agent", "status", "version", "summarised_seq", "idle_s"})
    Session.objects.create(
        id=session_id,
        subject=desk.subject,
        title=desk.sealed(line.title, "memory_session", session_id),
        created_at=line.created_at,
        last_active_at=line.last_active_at,
        expires_at=line.expires_at,
        ended_at=line.ended_at,
        due_at=due_at if is_open else None,
        **fields,
    )


def _message(desk: Desk, line: transfer.MessageLine) -> Message:
    message_id = desk.row_id(line.id)
    return Message(
        id=message_id,
        session_id=desk.sessions[line.session],
        subject_id=desk.subject.id,
        author_no=desk.authors[line.author][0],
        text=sealing.seal_text(desk.key, "memory_message", message_id, line.text),
        tokens=tokens.count(line.text),
        bytes=len(line.text.encode()),
        **line.model_dump(
            include={
                *("seq", "role", "importance", "origin", "outcome", "client_id"),
                *("sent_at", "recorded_at", "undone_in"),
            }
        ),
    )


def _check_places(desk: Desk, pairs: Sequence[tuple[Numbered, Message, str]]) -> None:
    """A place in a session that something else has by now."""
    wanted = Q()
    for _, row, _ in pairs:
        wanted |= Q(session_id=row.session_id, seq=row.seq)
    taken = set(Message.objects.filter(wanted).values_list("session_id", "seq")) if pairs else set()
    for each, row, _ in pairs:
        if (row.session_id, row.seq) in taken:
            desk.conflict(each, f"message {row.seq} of its session is another one here.")
        taken.add((row.session_id, row.seq))
