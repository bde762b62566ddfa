"""Recall as agents and callers ask it: the search, the words of what it found, and the entry in the ledger.

The question is put to the model before the transaction is opened: `questions.asked()` may take a network call.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from agentstate.core import tokens
from agentstate.core.ids import public_id
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.recall import searching
from memory.recall.questions import Asked
from memory.recall.searching import Hit
from memory.selectors.opening import Words
from memory.services import ledger
from memory.services.ledger import Injected
from memory.sources import Source

KINDS = ("message", "item")

# Indexes: the primary keys.
_WORDS = """
SELECT m.id, k.wrapped, 1, m.text, m.author_no, a.name, m.role
FROM memory_message m JOIN memory_ownerkey k ON k.owner_id = m.subject_id
  LEFT JOIN memory_author a ON a.subject_id = m.subject_id AND a.no = m.author_no
WHERE m.id = ANY (%(message)s)
UNION ALL
SELECT i.id, k.wrapped, i.version, r.text, 0, NULL, ''
FROM memory_item i JOIN memory_itemrevision r ON r.item_id = i.id AND r.version = i.version
  JOIN memory_ownerkey k ON k.owner_id = i.subject_id
WHERE i.id = ANY (%(item)s)"""


@dataclass(frozen=True, slots=True)
class Found:
    """A hit with its words, which are those of `version`."""

    hit: Hit
    text: str
    version: int = 1
    author: str = ""

    @property
    def public_id(self) -> str:
        return public_id(self.hit.kind, self.hit.id)


@dataclass(frozen=True, slots=True)
class Answer:
    """`rung`, `degraded_because`: how recall worked, and why not better."""

    found: list[Found]
    rung: str
    degraded_because: str
    units: int
    took: dict[str, float] = field(default_factory=dict)  # milliseconds of each part


def ask(
    subject_id: UUID,
    question: Asked,
    *,
    k: int,
    kinds: Sequence[str] = KINDS,
    session_id: UUID | None = None,
    authors: Sequence[str] = (),
    after: datetime | None = None,
    before: datetime | None = None,
    at: datetime | None = None,
    namespace: str = "",
    explain: bool = False,
    agent: str = "",
    source: Source | None = None,
    for_session: UUID | None = None,
) -> Answer:
    """What the subject's memory holds about the question, word for word, best first.

    With a `source` it is recorded: the question, and what was found as given to that step. Asserts a transaction then.
    Raises: Invalid, NotFound.
    """
    answer = searching.search(
        subject_id,
        question,
        k=k,
        kinds=kinds,
        session_id=session_id,
        authors=authors,
        after=after,
        before=before,
        at=at,
        namespace=namespace,
        explain=explain,
    )
    found = opened(answer.hits)
    if source is not None:
        ledger.record([_injected(each) for each in found], source=source, session_id=for_session)
        ledger.keep_question(subject_id, agent, question.text, source)
    return Answer(found, answer.rung, answer.degraded_because, answer.units, answer.took)


def opened(hits: Collection[Hit]) -> list[Found]:
    """Hits with their words; one that was erased meanwhile is left out. One statement."""
    ids = {kind: [hit.id for hit in hits if hit.kind == kind] for kind in KINDS}
    rows = {row[0]: row[1:] for row in sql.rows(_WORDS, ids, binary=True)} if hits else {}
    found = (_found(hit, *rows[hit.id]) for hit in hits if hit.id in rows)
    return [each for each in found if each is not None]


def _found(
    hit: Hit, wrapped: bytes, version: int, text: bytes, author_no: int, author: bytes | None, role: str
) -> Found | None:
    if not wrapped:
        return None
    words = Words(keys.KEYS.opened(current_tenant(), hit.subject_id, [(wrapped,)]))
    if hit.kind == "item":
        return Found(hit, words.text("memory_itemrevision", f"{hit.id}:{version}:text", text), version)
    name = words.text("memory_author", f"{hit.subject_id}:{author_no}", author)
    return Found(hit, words.text("memory_message", hit.id, text), author=name or role)


def _injected(found: Found) -> Injected:
    hit = found.hit
    return Injected(
        "recalled",
        "item" if hit.kind == "item" else "message",
        hit.id,
        tokens.count(found.text),
        version=found.version,
        score=hit.score,
        scores=hit.scores,
        subject_id=hit.subject_id,
    )
