"""Recall: the units of one subject that answer a question best, exactly, with the parts of every score.

One round trip reads all units that may be recalled and what else is to be known, one the tokens of the best hundred;
numpy does the rest. What is missing (a model, its tokens, the words) lowers the rung: bits, sentence, words. The answer
says which, and why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from agentstate.core.clock import now
from agentstate.core.errors import Invalid, NotFound
from agentstate.core.limits import QUESTION_AUTHORS_MAX, SUBJECT_RECALL_MAX
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from memory import keys, policies, sealing, texts
from memory.models.unit import UNIT_KINDS
from memory.recall import cues, questions, ranking, rows, words
from memory.recall.questions import Asked
from memory.recall.ranking import Floats, Integers, Scores, Units
from memory.recall.rows import Filters, Found, Owners
from memory.recall.words import AskedWords
from memory.states import SubjectStatus

# What any search has to know. It is one short statement: compiling it costs more.
_KNOWN = f"""
set_config('jit', 'off', true), (SELECT value::text FROM tenants_tenantsetting WHERE key = '{policies.TENANT_KEY}'),
  ({words.ASKED})"""
OF_TENANT = f"SELECT {_KNOWN}"
# The subject, its key, and its authors unless they are too many.
_OF_SUBJECT = f"""
WITH named AS (SELECT no, name FROM memory_author WHERE subject_id = %(subject)s ORDER BY no LIMIT %(limit)s)
SELECT {_KNOWN}, s.status, (SELECT wrapped FROM memory_ownerkey WHERE owner_id = s.id),
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
    asked = of_caller(question)
    clock.lap("question")
    wanted = Filters(
        now=now(),
        kinds=tuple(kinds),
        session_id=session_id,
        authors=tuple(_digest_of_name(subject_id, name) for name in authors),
        after=after,
        before=before,
        at=at,
        namespace=namespace,
    )
    read = read_all(subject_id, asked, wanted, known=_OF_SUBJECT)
    if read is None:
        raise NotFound("There is no such subject.")
    status, wrapped, numbers, sealed = read.standing
    if status != SubjectStatus.ACTIVE:
        return Recall([], "words", "the subject is being erased", 0, 0, clock.laps)
    names = _names(subject_id, wrapped, numbers or [], sealed or [])
    clock.lap("units")
    owner = {subject_id.hex: wrapped} if wrapped else {}
    return answer(read, asked, names=names, owners=owner, k=k, explain=explain, clock=clock)


@dataclass(frozen=True, slots=True)
class Read:
    """What one round trip has read. `standing`: of the subject."""

    standing: Sequence[Any]
    found: Found
    lexemes: AskedWords


def of_caller(question: str | Asked) -> Asked:
    """A text is asked here and now, whatever the model takes. Asserts a scope then."""
    return question if isinstance(question, Asked) else questions.asked(question, tenant_id=current_tenant())


def read_all(subject_id: UUID | None, asked: Asked, wanted: Filters, *, known: str) -> Read | None:
    """In one round trip: what has to be known (OF_TENANT, and what follows it), and all units of the subject or (None)
    the whole tenant. None: there is no such subject."""
    vectors = [rows.Vector(model.label, model.question.vector.tolist()) for model in asked.models]
    units = rows.asking(subject_id, vectors=vectors, filters=wanted)
    args = {"subject": subject_id, "limit": QUESTION_AUTHORS_MAX + 1, **words.asking(asked.text)}
    standing, found = sql.together((known, args), units.query, binary=True)
    if not standing:
        return None
    _, policy, said, *rest = standing[0]
    how = words.of_policy(policies.of_tenant([(policy,)] if policy else []))
    lexemes = words.of_question(said, how)
    return Read(rest, units.read(found, lexemes.digests), lexemes)


def answer(
    read: Read,
    asked: Asked,
    *,
    names: Mapping[int, str],
    owners: Owners | None,
    k: int,
    explain: bool,
    clock: Clock,
) -> Recall:
    """The search itself, over what was read. `names`: authors by number, for the cue. `owners`: as rows.tokens()."""
    found, lexemes = read.found, read.lexemes
    named = cues.found(asked.text, found.units, authors=names)
    scores, rung, tokens_ms = _ranked(found, named, asked, owners)
    clock.lap("ranking")
    clock.move("ranking", "tokens", tokens_ms)
    hits = _hits(found, scores, scores.best(found.units, k), lexemes if explain else None)
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


def _names(subject_id: UUID, wrapped: bytes | None, numbers: Sequence[int], sealed: Sequence[bytes]) -> dict[int, str]:
    """Of the subject's authors by number; none when they are very many. Raises: Corrupt without the subject's key."""
    if not numbers or len(numbers) > QUESTION_AUTHORS_MAX:
        return {}
    key = keys.KEYS.opened(current_tenant(), subject_id, [] if wrapped is None else [(wrapped,)])
    return {
        number: sealing.open_text(key, "memory_author", f"{subject_id}:{number}", name)
        for number, name in zip(numbers, sealed, strict=True)
    }


def _digest_of_name(subject_id: UUID, name: str) -> bytes:
    """By which an author is found; one that nobody has finds nobody. Index: memory_author_digest."""
    return sealing.digest("author", str(subject_id), texts.normalised(name))


def _ranked(found: Found, named: ranking.Cues, asked: Asked, owners: Owners | None) -> tuple[Scores, str, float]:
    """Scores, the rung, and the milliseconds that tokens took."""
    units = found.units
    if not (units.model >= 0).any():
        return ranking.draft(units, named, ranking.WORDS), "words", 0.0
    drafted = ranking.draft(units, named)
    started = time.perf_counter()
    top = ranking.candidates(units, drafted)
    late = _late(found, asked, top, owners)
    tokens_ms = (time.perf_counter() - started) * 1_000
    if np.isnan(late).all():
        return drafted, "sentence", tokens_ms
    return ranking.settle(units, named, drafted, top, late), "bits", tokens_ms


def _late(found: Found, asked: Asked, top: Integers, owners: Owners | None) -> Floats:
    """For each candidate; NaN where its tokens are not there. Those of one model are compared with each other."""
    late = np.full(len(top), np.nan)
    for number, model in enumerate(asked.models):
        vectors, ids = model.question.token_vectors, model.question.token_ids
        of_model = np.flatnonzero(found.units.model[top] == number)
        if vectors is None or ids is None or not len(of_model):
            continue
        of_units = found.some(top[of_model])
        places, tokens = rows.tokens(of_units, model=model.label, dimensions=vectors.shape[1], owners=owners)
        late[of_model[places]] = ranking.late_interaction(vectors, ids, tokens)
    return late


def _hits(found: Found, scores: Scores, best: Integers, lexemes: AskedWords | None) -> list[Hit]:
    names, parts = list(scores.parts), np.stack(list(scores.parts.values()))[:, best].T.tolist()
    totals = scores.total[best].tolist()
    return [
        Hit(
            id=one.id,
            kind="item" if one.is_item else "message",
            score=total,
            scores={name: part for name, part in zip(names, of_one, strict=True) if part},
            session_id=one.session_id,
            seq=one.seq,
            author_no=one.author_no,
            sent_at=one.sent_at,
            subject_id=one.subject_id,
            matched=_matched(found.units, one.place, lexemes) if lexemes else (),
            raw=_raw(scores, one.place) if lexemes else {},
        )
        for one, total, of_one in zip(found.told(best), totals, parts, strict=True)
    ]


def _matched(units: Units, place: int, lexemes: AskedWords) -> tuple[str, ...]:
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
