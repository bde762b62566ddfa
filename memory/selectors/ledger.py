"""The injection ledger, read both ways: what a step was given, word for word; and where a source was used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from agentstate.core.errors import Corrupt
from agentstate.core.ids import public_id
from agentstate.core.limits import INJECTIONS_MAX, PAGE_ROWS
from agentstate.db import sql
from memory import keys, sealing
from memory.models import (
    Injection,
    ItemRevision,
    Message,
    Progress,
    ProgressVersion,
    Prompt,
    PromptVersion,
    RecallQuestion,
    Summary,
)
from memory.selectors import removed

RUNS_NAMED_MAX = 200  # of one source's runs; the count covers all of them
SESSION_ROWS = 2_000

# Index: memory_injection_source.
USES = f"""
SELECT source_id, (array_agg(run_id ORDER BY newest DESC) FILTER (WHERE run_id IS NOT NULL))[1:{RUNS_NAMED_MAX}],
  count(run_id), max(newest)
FROM (SELECT source_id, run_id, max(at) AS newest FROM memory_injection
      WHERE source_id = ANY(%s) GROUP BY source_id, run_id) per_run
GROUP BY source_id
"""

Places = set[tuple[UUID, int]]  # (id, version)
Words = dict[tuple[UUID, int], str]


@dataclass(frozen=True, slots=True)
class Line:
    """One text that a call was given. `gone` says why its words cannot be shown; else `text` holds them."""

    position: int
    part: str
    source: str
    source_id: UUID
    version: int
    text: str
    gone: str
    tokens: int
    score: float | None
    scores: dict[str, float]
    masked: bool
    subject_id: UUID | None
    session_id: UUID | None  # the one that was asked for
    at: datetime
    spoken_in: UUID | None = None  # of a message: its own session, and its number there
    seq: int = 0

    @property
    def public_id(self) -> str:
        return public_id(self.source, self.source_id)


@dataclass(frozen=True, slots=True)
class Call:
    """One call and all it was given."""

    call_id: UUID
    run_id: UUID | None
    step_seq: int | None
    session_id: UUID | None
    at: datetime
    lines: list[Line]

    @property
    def tokens(self) -> int:
        return sum(line.tokens for line in self.lines)


@dataclass(frozen=True, slots=True)
class Uses:
    """Where one source was used: the newest runs, how many in all, and when last."""

    run_ids: list[UUID] = field(default_factory=list)  # newest first, at most RUNS_NAMED_MAX
    count: int = 0  # distinct runs
    last_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question that a call really asked."""

    question_id: UUID
    agent: str
    text: str
    run_id: UUID | None
    step_seq: int | None
    at: datetime


def of_step(run_id: UUID, step_seq: int) -> list[Line]:
    """What this step was given, with the words; empty for a step that read no memory.

    A step that was run again after a crash has several calls: the newest is the one whose answer it kept.
    """
    # Index: memory_injection_step.
    rows = list(Injection.objects.filter(run_id=run_id, step_seq=step_seq).order_by("-id")[: 2 * INJECTIONS_MAX])
    newest = [row for row in rows if row.call_id == rows[0].call_id]
    return lines_of(sorted(newest, key=lambda row: row.position))


def of_session(session_id: UUID, *, before: UUID | None = None) -> list[Call]:
    """The newest calls made for a session, newest first, each with what it was given; about SESSION_ROWS of them.

    `before`: the id of the oldest call you have.
    """
    # Index: memory_injection_session.
    rows = Injection.objects.filter(session_id=session_id).order_by("-id")
    if before is not None:
        rows = rows.filter(
            id__lt=Injection.objects.filter(call_id=before, session_id=session_id).order_by("id").values("id")[:1]
        )
    calls: dict[UUID, list[Injection]] = defaultdict(list)
    for row in rows[: max(SESSION_ROWS, INJECTIONS_MAX)]:
        calls[row.call_id].append(row)
        if len(calls) > PAGE_ROWS:
            break
    whole = [found for found in calls.values() if found[-1].position == 1]  # the first row of a call is its oldest
    lines = dict(_pairs([row for found in whole for row in found]))
    return [_call(found, lines) for found in whole[:PAGE_ROWS]]


def uses_of(source_id: UUID) -> Uses:
    """In which runs this message, item, summary, prompt or progress document was used."""
    return uses_of_many([source_id]).get(source_id, Uses())


def uses_of_many(source_ids: Iterable[UUID]) -> dict[UUID, Uses]:
    """Uses of each source that has any. One statement."""
    found = sql.rows(USES, [list(source_ids)])
    return {source_id: Uses(list(run_ids or ()), runs, last_at) for source_id, run_ids, runs, last_at in found}


def words(source: str, places: Places) -> Words:
    """Texts of one kind of source by (id, version); what was erased is left out."""
    return _READERS[source](places) if places else {}


def questions_of(subject_id: UUID) -> list[Question]:
    """The last questions that were really asked about a subject, newest first."""
    key = keys.several([subject_id]).get(subject_id)
    rows = RecallQuestion.objects.filter(subject_id=subject_id).order_by("-id") if key else []
    return [
        Question(
            row.id,
            row.agent,
            sealing.open_text(key or b"", "memory_recallquestion", row.id, row.text),
            row.run_id,
            row.step_seq,
            row.at,
        )
        for row in rows
    ]


def _call(rows: Sequence[Injection], lines: dict[UUID, Line]) -> Call:
    first = rows[0]
    ordered = sorted((lines[row.id] for row in rows), key=lambda line: line.position)
    return Call(first.call_id, first.run_id, first.step_seq, first.session_id, first.at, ordered)


def lines_of(rows: Sequence[Injection]) -> list[Line]:
    """These rows with their words, in at most two statements a kind of source."""
    return [line for _, line in _pairs(rows)]


def _pairs(rows: Sequence[Injection]) -> list[tuple[UUID, Line]]:
    """Each row with its words, in at most two statements a kind of source."""
    words: dict[tuple[str, UUID, int], str] = {}
    for source, read in _READERS.items():
        wanted = {(row.source_id, row.version) for row in rows if row.source == source}
        if wanted:
            words.update({(source, *place): text for place, text in read(wanted).items()})
    spots = _spots({row.source_id for row in rows if row.source == "message"})
    gone = removed.why_gone([row for row in rows if (row.source, row.source_id, row.version) not in words])
    return [
        (
            row.id,
            _line(
                row,
                words.get((row.source, row.source_id, row.version), ""),
                gone.get(row.id, ""),
                spots.get(row.source_id, (None, 0)),
            ),
        )
        for row in rows
    ]


def _spots(message_ids: set[UUID]) -> dict[UUID, tuple[UUID | None, int]]:
    """Session and number of each message that is still there."""
    found = Message.objects.filter(id__in=message_ids) if message_ids else Message.objects.none()
    return {id: (session_id, seq) for id, session_id, seq in found.values_list("id", "session_id", "seq")}


def _line(row: Injection, text: str, gone: str, spot: tuple[UUID | None, int]) -> Line:
    return Line(
        position=row.position,
        part=row.part,
        source=row.source,
        source_id=row.source_id,
        version=row.version,
        text=text.partition("\n")[0] if row.masked else text,
        gone=gone,
        tokens=row.tokens,
        score=row.score,
        scores={name: float(value) for name, value in row.scores.items()},
        masked=row.masked,
        subject_id=row.subject_id,
        session_id=row.session_id,
        at=row.at,
        spoken_in=spot[0],
        seq=spot[1],
    )


def _of_items(places: Places) -> Words:
    found = ItemRevision.objects.filter(_versions("item_id", places))
    return _unsealed(
        [(row.subject_id, (row.item_id, row.version), f"{row.item_id}:{row.version}:text", row.text) for row in found],
        table="memory_itemrevision",
    )


def _of_messages(places: Places) -> Words:
    found = Message.objects.filter(id__in=[source_id for source_id, _ in places])
    return _unsealed([(row.subject_id, (row.id, 1), row.id, row.text) for row in found], table="memory_message")


def _of_summaries(places: Places) -> Words:
    found = Summary.objects.filter(id__in=[source_id for source_id, _ in places])
    return _unsealed([(row.subject_id, (row.id, 1), row.id, row.text) for row in found], table="memory_summary")


def _of_progress(places: Places) -> Words:
    found = ProgressVersion.objects.filter(_versions("progress_id", places))
    ids = {row.progress_id for row in found}
    owners = {row.id: row.subject_id or row.id for row in Progress.objects.filter(id__in=ids)}
    return _unsealed(
        [
            (owners[row.progress_id], (row.progress_id, row.version), f"{row.progress_id}:{row.version}:body", row.body)
            for row in found
        ],
        table="memory_progressversion",
    )


def _of_prompts(places: Places) -> Words:
    found = PromptVersion.objects.filter(_versions("prompt_id", places))
    standing = set(Prompt.objects.filter(id__in={row.prompt_id for row in found}).values_list("id", flat=True))
    return _unsealed(
        [
            (row.prompt_id, (row.prompt_id, row.version), f"{row.prompt_id}:{row.version}:body", row.body)
            for row in found
            if row.prompt_id in standing
        ],
        table="memory_promptversion",
    )


_READERS: dict[str, Callable[[Places], Words]] = {
    "item": _of_items,
    "message": _of_messages,
    "summary": _of_summaries,
    "progress": _of_progress,
    "prompt": _of_prompts,
}


def _versions(column: str, places: Places) -> Q:
    """Rows of these ids; versions that were not asked for are dropped by the caller's dictionary."""
    return Q(**{f"{column}__in": {source_id for source_id, _ in places}, "version__in": {no for _, no in places}})


Sealed = tuple[UUID, tuple[UUID, int], UUID | str, bytes | memoryview]  # owner, place, name of the row, text


def _unsealed(rows: Sequence[Sealed], *, table: str) -> Words:
    """Open what still has a key; a text that does not verify says so in its own place."""
    opened = keys.several({owner_id for owner_id, *_ in rows})
    words: Words = {}
    for owner_id, place, row_name, sealed in rows:
        if owner_id not in opened:
            continue
        try:
            words[place] = sealing.open_text(opened[owner_id], table, row_name, sealed)
        except Corrupt as problem:
            words[place] = f"[{problem.message}]"
    return words
