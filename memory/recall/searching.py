"""Recall: the units of one subject that answer a question best, exactly, with the parts of every score.

One statement reads all units that may be recalled, one the tokens of the best hundred; numpy does the rest. What is
missing (a model, its tokens, the words) lowers the rung: bits, sentence, words. The answer says which, and why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import numpy as np

from agentstate.core.clock import now
from agentstate.core.errors import Invalid, NotFound
from agentstate.core.limits import QUESTION_AUTHORS_MAX, SUBJECT_RECALL_MAX
from agentstate.db import sql
from memory import keys, sealing, texts
from memory.models.unit import UNIT_KINDS
from memory.recall import cues, questions, ranking, rows, words
from memory.recall.questions import Asked
from memory.recall.ranking import Floats, Integers, Scores, Units
from memory.recall.rows import Filters, Found
from memory.states import SubjectStatus

# The subject, and its authors unless they are too many. A search is one short statement: compiling it costs more.
_STANDING = """
WITH named AS (SELECT no, name FROM memory_author WHERE subject_id = %(subject)s ORDER BY no LIMIT %(limit)s)
SELECT s.status, set_config('jit', 'off', true),
  (SELECT array_agg(a.no ORDER BY a.no) FROM named a), (SELECT array_agg(a.name ORDER BY a.no) FROM named a)
FROM memory_subject s WHERE s.id = %(subject)s"""


@dataclass(frozen=True, slots=True)
class Hit:
    """`scores`: parts that add up to `score`; a part that has no say is left out. `matched`: words of the question
    that the unit holds, when explanations were asked for; `raw` then holds the figures before they were scaled."""

    id: UUID
    kind: str
    score: float
    scores: dict[str, float]
    session_id: UUID | None
    seq: int
    author_no: int
    sent_at: datetime
    subject_id: UUID
    matched: tuple[str, ...] = ()
    raw: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recall:
    """`rung`: bits, sentence or words. `units`: how many were compared; `embedded`: of those by vectors.

    `took`: milliseconds of each part.
    """

    hits: list[Hit]
    rung: str
    degraded_because: str
    units: int
    embedded: int
    took: dict[str, float]
    is_shortened: bool = False  # the question: only its first 4,000 characters were asked


def search(
    subject_id: UUID,
    question: str | Asked,
    *,
    k: int = 10,
    kinds: Sequence[str] = UNIT_KINDS,
    session_id: UUID | None = None,
    authors: Sequence[str] = (),
    after: datetime | None = None,
    before: datetime | None = None,
    at: datetime | None = None,
    namespace: str = "",
    explain: bool = False,
) -> Recall:
    """The best `k` units of the subject. Inside tenant_scope; hand over questions.asked() to ask the model before it.

    `authors`: names. `at`: only what was known at that moment, and held true then; words are those of today, and what
    was superseded since is not recalled. `namespace`: items of it and of those below it.
    Raises: Invalid, NotFound.
    """
    clock = Clock()
    check(k=k, kinds=kinds)
    asked = question if isinstance(question, Asked) else questions.asked(question)
    clock.lap("question")
    status, names = _standing(subject_id)
    if status != SubjectStatus.ACTIVE:
        return Recall([], "words", "the subject is being erased", 0, 0, clock.laps)
    wanted = Filters(
        now=now(),
        kinds=tuple(kinds),
        session_id=session_id,
        authors=_numbers(subject_id, authors) if authors else None,
        after=after,
        before=before,
        at=at,
        namespace=namespace,
    )
    lexemes = words.asked(asked.text, words.wording())
    clock.lap("words")
    return answer(subject_id, asked, lexemes, wanted, names=names, k=k, explain=explain, clock=clock)


def answer(
    subject_id: UUID | None,
    asked: Asked,
    lexemes: words.AskedWords,
    wanted: Filters,
    *,
    names: Mapping[int, str],
    k: int,
    explain: bool,
    clock: Clock,
) -> Recall:
    """The search itself, over a subject or (None) the whole tenant. `names`: authors by number, for the cue."""
    found, asked = _read(subject_id, asked, lexemes, wanted)
    clock.lap("units")
    named = cues.found(asked.text, found.units, authors=names)
    scores, rung, tokens_ms = _ranked(found, named, asked)
    clock.lap("ranking")
    clock.move("ranking", "tokens", tokens_ms)
    best = scores.best(found.units, k)
    hits = [_hit(found, scores, place, lexemes if explain else None) for place in map(int, best)]
    clock.lap("hits")
    embedded = int((found.units.model >= 0).sum())
    why = _why_less(asked, rung, units=len(found.units), embedded=embedded, has_words=not lexemes.is_off)
    return Recall(hits, rung, why, len(found.units), embedded, clock.laps, asked.is_shortened)


def check(*, k: int, kinds: Sequence[str]) -> None:
    """Raises: Invalid."""
    if not 1 <= k <= SUBJECT_RECALL_MAX:
        raise Invalid(f"k is how many units to recall: 1 to {SUBJECT_RECALL_MAX}.", field="k")
    if not kinds or not set(kinds) <= set(UNIT_KINDS):
        raise Invalid(f"kinds holds some of {', '.join(UNIT_KINDS)}.", field="kinds")


class Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        at = time.perf_counter()
        self.laps[name], self._last = (at - self._last) * 1_000, at

    def move(self, source: str, to: str, ms: float) -> None:
        self.laps[source], self.laps[to] = self.laps[source] - ms, ms


def _standing(subject_id: UUID) -> tuple[str, dict[int, str]]:
    """The subject's status and the names of its authors by number; none when they are very many. Raises: NotFound."""
    found = sql.row(_STANDING, {"subject": subject_id, "limit": QUESTION_AUTHORS_MAX + 1}, binary=True)
    if found is None:
        raise NotFound("There is no such subject.")
    status, _, numbers, sealed = found
    if not numbers or len(numbers) > QUESTION_AUTHORS_MAX or status != SubjectStatus.ACTIVE:
        return status, {}
    key = keys.existing(subject_id)
    opened = {
        number: sealing.open_text(key, "memory_author", f"{subject_id}:{number}", name)
        for number, name in zip(numbers, sealed, strict=True)
    }
    return status, opened


def _numbers(subject_id: UUID, authors: Sequence[str]) -> tuple[int, ...]:
    """Of the authors with these names; names that nobody has are left out. Index: memory_author_digest."""
    digests = [sealing.digest("author", str(subject_id), texts.normalised(name)) for name in authors]
    found = sql.rows("SELECT no FROM memory_author WHERE subject_id = %s AND digest = ANY (%s)", [subject_id, digests])
    return tuple(no for (no,) in found)


def _read(subject_id: UUID | None, asked: Asked, lexemes: words.AskedWords, wanted: Filters) -> tuple[Found, Asked]:
    """During a move to another model a second time, with the question in the former one too."""

    def read(question: Asked) -> Found:
        vectors = [rows.Vector(model.label, model.question.vector.tolist()) for model in question.models]
        return rows.units(subject_id, lexemes=lexemes.stored, query=lexemes.tsquery, vectors=vectors, filters=wanted)

    found = read(asked)
    if not found.strangers or not asked.models:
        return found, asked
    more = questions.also(asked, found.strangers)
    return (read(more), more) if len(more.models) > len(asked.models) else (found, more)


def _ranked(found: Found, named: ranking.Cues, asked: Asked) -> tuple[Scores, str, float]:
    """Scores, the rung, and the milliseconds that tokens took."""
    units = found.units
    if not (units.model >= 0).any():
        return ranking.draft(units, named, ranking.WORDS), "words", 0.0
    drafted = ranking.draft(units, named)
    started = time.perf_counter()
    top = ranking.candidates(units, drafted)
    late = _late(found, asked, top)
    tokens_ms = (time.perf_counter() - started) * 1_000
    if np.isnan(late).all():
        return ranking.draft(units, named, ranking.SENTENCE), "sentence", tokens_ms
    return ranking.settle(units, named, drafted, top, late), "bits", tokens_ms


def _late(found: Found, asked: Asked, top: Integers) -> Floats:
    """For each candidate; NaN where its tokens are not there. Those of one model are compared with each other."""
    late = np.full(len(top), np.nan)
    for number, model in enumerate(asked.models):
        vectors, ids = model.question.token_vectors, model.question.token_ids
        if vectors is None or ids is None:
            continue
        of_model = [place for place, unit in enumerate(top) if found.units.model[unit] == number]
        unit_ids = {place: found.id(int(top[place])) for place in of_model}
        tokens = rows.tokens(list(unit_ids.values()), model=model.label, dimensions=vectors.shape[1])
        places = [place for place in of_model if unit_ids[place] in tokens]
        late[places] = ranking.late_interaction(vectors, ids, [tokens[unit_ids[place]] for place in places])
    return late


def _hit(found: Found, scores: Scores, place: int, lexemes: words.AskedWords | None) -> Hit:
    return Hit(
        id=found.id(place),
        kind="item" if found.is_item[place] else "message",
        score=float(scores.total[place]),
        scores={name: float(part[place]) for name, part in scores.parts.items() if part[place]},
        session_id=found.session_id(place),
        seq=int(found.units.seq[place]),
        author_no=int(found.units.author[place]),
        sent_at=found.sent_at(place),
        subject_id=found.subject_id(place),
        matched=_matched(found.units, place, lexemes) if lexemes else (),
        raw=_raw(scores, place) if lexemes else {},
    )


def _matched(units: Units, place: int, lexemes: words.AskedWords) -> tuple[str, ...]:
    return tuple(lexemes.readable[number] for number in sorted(units.hit_lexeme[units.hit_unit == place]))


def _raw(scores: Scores, place: int) -> dict[str, float]:
    return {name: float(part[place]) for name, part in scores.raw.items() if not np.isnan(part[place])}


def _why_less(asked: Asked, rung: str, *, units: int, embedded: int, has_words: bool) -> str:
    why = asked.why_less
    if not why and embedded < units:
        why = f"{units - embedded:,} of {units:,} units have no vector of this model yet"
    elif not why and units and rung != "bits":
        why = "the model gives no tokens"
    return why if has_words else f"{why}, and full text is off" if why else "full text is off"
