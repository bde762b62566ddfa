"""Everything that could go into a context, read in few statements: none depends on how long the session is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import orjson

from agentstate.core.errors import Conflict, NotFound
from agentstate.db import sql
from agentstate.tenants.scope import current_tenant
from memory import keys, policies
from memory.context import references
from memory.context.parts import (
    AnyMessage,
    Block,
    ContextRequest,
    End,
    HeldItem,
    Recalled,
    at_end,
    of_document,
)
from memory.models import Author
from memory.policies import ANY_AGENT, PREFIX, AgentPolicy
from memory.recall import searching
from memory.recall.searching import Hit
from memory.selectors.messages import OpenedMessage, SealedMessage
from memory.selectors.opening import Words
from memory.selectors.prompts import MAIN
from memory.services import buffering
from memory.states import ItemStatus, SubjectStatus

NEWEST_MAX = 2_000  # messages that are looked at from a session's end
LEAST_TOKENS = 4  # what a message costs besides its text, at least

# Indexes: memory_session_key or the primary key, memory_prompt_name, memory_progress_key. A destroyed key is empty.
STANDING = f"""
SELECT s.id, s.key, s.subject_id, s.agent, s.version, s.last_seq, s.message_count, s.summarised_seq,
  s.tokens, sub.status, k.wrapped, (SELECT jsonb_object_agg(t.key, t.value)::text FROM tenants_tenantsetting t
    WHERE t.key IN ('{PREFIX}{ANY_AGENT}', '{PREFIX}' || coalesce(nullif(%(agent)s, ''), s.agent))),
  pr.id, pr.id, pr.version, prv.body, prv.tokens, prk.wrapped,
  pg.id, coalesce(pg.subject_id, pg.id), pg.version, pgv.body, pgv.tokens, pgk.wrapped
FROM memory_session s JOIN memory_subject sub ON sub.id = s.subject_id
LEFT JOIN memory_ownerkey k ON k.owner_id = s.subject_id
LEFT JOIN memory_prompt pr ON pr.agent = coalesce(nullif(%(agent)s, ''), s.agent) AND pr.name = %(name)s
LEFT JOIN memory_promptversion prv ON prv.prompt_id = pr.id AND prv.version = pr.version
LEFT JOIN memory_ownerkey prk ON prk.owner_id = pr.id
LEFT JOIN memory_progress pg ON pg.key = s.key
LEFT JOIN memory_progressversion pgv ON pgv.progress_id = pg.id AND pgv.version = pg.version
LEFT JOIN memory_ownerkey pgk ON pgk.owner_id = coalesce(pg.subject_id, pg.id)
WHERE """
# The end of the session that may fit, what matters further back if it is asked for, and the messages recall has found.
# A long tool message counts as what a masked one costs. Index: memory_message_seq, from its end.
MESSAGES = """
WITH newest AS (
  SELECT id, subject_id, seq, role, tokens, importance, text, author_no, %(least)s
    + CASE WHEN role = 'tool' THEN least(tokens, %(mask)s) ELSE tokens END AS cost
  FROM memory_message WHERE session_id = %(session)s AND undone_in IS NULL ORDER BY seq DESC LIMIT %(rows)s),
counted AS (
  SELECT *, sum(cost) OVER (ORDER BY seq DESC) AS so_far,
    sum(CASE WHEN importance = 'routine' THEN 0 ELSE cost END) OVER (ORDER BY seq DESC) AS mattering_so_far
  FROM newest),
chosen AS (
  SELECT true AS in_tail, id, subject_id, seq, role, tokens, importance, text, author_no, NULL::timestamptz AS sent_at
  FROM counted
  WHERE so_far <= %(budget)s OR (%(mattering)s AND importance <> 'routine' AND mattering_so_far <= %(budget)s)
  UNION ALL SELECT false, id, subject_id, seq, role, tokens, importance, text, author_no, sent_at
  FROM memory_message WHERE id = ANY(%(hits)s::uuid[]))
SELECT c.in_tail, c.id, c.subject_id, c.seq, c.role, c.tokens, c.importance, c.text, c.author_no, a.name, c.sent_at
FROM chosen c LEFT JOIN memory_author a ON a.subject_id = c.subject_id AND a.no = c.author_no
ORDER BY c.seq
"""

# Index: memory_item_of_subject.
ITEMS = """
SELECT i.id, i.version, i.pinned, i.tokens, r.text
FROM memory_item i JOIN memory_itemrevision r ON r.item_id = i.id AND r.version = i.version
WHERE i.subject_id = %(subject)s AND i.status = %(status)s AND (i.pinned OR i.id = ANY(%(hits)s::uuid[]))
ORDER BY i.namespace, i.id
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The session, and what its agent is told in any case."""

    session_id: UUID
    key: str
    subject_id: UUID
    agent: str
    version: int
    last_seq: int
    message_count: int
    summarised_seq: int
    tokens: int  # of the messages that stand
    policy: AgentPolicy
    owner_key: bytes
    prompt: Block | None
    progress: Block | None

    @property
    def words(self) -> Words:
        return Words(self.owner_key)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What could go in. `tail`: the session's end, the oldest first; `standing_count`: of all its messages."""

    standing: Standing
    policy: AgentPolicy
    pinned: Sequence[HeldItem]
    tail: Sequence[AnyMessage]
    standing_count: int
    standing_tokens: int
    hits: Sequence[Hit]
    said: Mapping[UUID, AnyMessage] = field(default_factory=dict)  # of the hits
    items: Mapping[UUID, HeldItem] = field(default_factory=dict)  # of the hits
    recalled: Recalled = field(default_factory=lambda: Recalled(False))
    ends: list[End] = field(default_factory=list)  # one for each message of the tail

    def __post_init__(self) -> None:
        """Long tool messages are masked, except those of the turn that is being answered."""
        turn_seq = max((said.seq for said in self.tail if said.role == "user"), default=0)
        over = self.policy.mask_over_tokens
        for said in self.tail:
            masked = said.role == "tool" and said.tokens > over and said.seq < turn_seq
            self.ends.append(at_end(said, masked=masked))


def standing(request: ContextRequest) -> Standing:
    """One statement. Raises: NotFound, Conflict while the subject is erased."""
    where = "s.id = %(session)s" if request.session_id is not None else "s.key = %(session)s"
    args = {"agent": request.agent, "name": MAIN, "session": request.session_id or request.session_key}
    found = sql.row(STANDING + where, args, binary=True)
    if found is None:
        raise NotFound("There is no such session.")
    session, status, wrapped, stored, prompt, progress = found[:9], *found[9:12], found[12:18], found[18:]
    if status != SubjectStatus.ACTIVE:
        raise Conflict("The subject of this session is being erased: nothing of it is given to an agent any more.")
    owner_key = _key(session[2], wrapped)
    if owner_key is None:
        raise Conflict("The subject of this session was erased: nothing of it is given to an agent any more.")
    agent = request.agent or session[3]
    return Standing(
        session_id=session[0],
        key=session[1],
        subject_id=session[2],
        agent=agent,
        version=session[4],
        last_seq=session[5],
        message_count=session[6],
        summarised_seq=session[7],
        tokens=session[8],
        policy=policies.of_stored(agent, orjson.loads(stored) if stored else {}),
        owner_key=owner_key,
        prompt=_document("prompt", prompt, None),
        progress=_document("progress", progress, progress[1] if progress[1] != progress[0] else None),
    )


def gather(now: Standing, request: ContextRequest, *, budget: int, mattering: bool, waiting: bool) -> Gathered:
    """`mattering`: important messages further back too. `waiting`: what is in the buffer counts as said already."""
    policy = now.policy
    hits, recalled = _hits(now, policy, request)
    in_tail, said, items = _read(now, hits, budget=budget, mask=policy.mask_over_tokens, mattering=mattering)
    buffered = _waiting(now) if waiting else []
    if buffered:  # a flush is at it: its messages are recorded and still wait
        recorded = {said.id for said in in_tail}
        buffered = [said for said in buffered if said.id not in recorded]
    return Gathered(
        standing=now,
        policy=policy,
        pinned=[item for item in items if item.pinned],
        tail=[*in_tail, *buffered],
        standing_count=now.message_count + len(buffered),
        standing_tokens=now.tokens + sum(said.tokens for said in buffered),
        hits=hits,
        said=said,
        items={item.id: item for item in items},
        recalled=recalled,
    )


def _key(owner_id: UUID, wrapped: bytes | None) -> bytes | None:
    """None when there is none any more."""
    return keys.KEYS.opened(current_tenant(), owner_id, [(wrapped,)]) if wrapped else None


def _document(kind: Literal["prompt", "progress"], row: Sequence[Any], subject_id: UUID | None) -> Block | None:
    """None when there is none, or its key was destroyed."""
    id, owner_id, version, body, count, wrapped = row
    if body is None or not wrapped:
        return None
    text = Words(_key(owner_id, wrapped)).text(f"memory_{kind}version", f"{id}:{version}:body", body)
    return of_document(kind, kind, id, version, text, count, subject_id)


def _hits(now: Standing, policy: AgentPolicy, request: ContextRequest) -> tuple[Sequence[Hit], Recalled]:
    question = request.question_text
    if policy.retrieval in policies.UNASKED:
        why = "the agent asks by itself" if policy.retrieval == "tool" else "the policy says never"
        return [], Recalled(False, why)
    if not question.strip():
        return [], Recalled(False, "there is no question")
    if policy.retrieval == "reference" and not references.refers_back(question, authors=lambda: _authors(now)):
        return [], Recalled(False, "the question does not refer to anything said before")
    found = searching.search(now.subject_id, request.question, k=policy.recall_k)
    return found.hits, Recalled(True, found.degraded_because, found.rung, found.units)


def _authors(now: Standing) -> dict[int, str]:
    found = Author.objects.filter(subject_id=now.subject_id).order_by("no")[:200]
    words = now.words
    return {row.no: words.text("memory_author", f"{row.subject_id}:{row.no}", row.name) for row in found}


def _read(
    now: Standing, hits: Sequence[Hit], *, budget: int, mask: int, mattering: bool
) -> tuple[list[SealedMessage], dict[UUID, SealedMessage], list[HeldItem]]:
    """The session's end, the messages and the items that recall has found, pinned items too. One round trip."""
    said_ids = [hit.id for hit in hits if hit.kind == "message"]
    args = {"least": LEAST_TOKENS, "mask": mask, "session": now.session_id, "budget": budget, "mattering": mattering}
    rows = NEWEST_MAX if mattering else _likely(now, budget)
    args |= {"rows": rows, "hits": said_ids}
    held = {"subject": now.subject_id, "status": ItemStatus.ACTIVE.value}
    held |= {"hits": [hit.id for hit in hits if hit.kind == "item"]}
    found, items = sql.together((MESSAGES, args), (ITEMS, held), binary=True)
    if rows < min(NEWEST_MAX, now.message_count) and sum(row[0] for row in found) >= rows:
        found = sql.rows(MESSAGES, {**args, "rows": NEWEST_MAX}, binary=True)  # shorter ones than usual
    words, names = now.words, dict[int, str]()
    tail = [_sealed(row, words, names) for row in found if row[0]]
    said = {row[1]: _sealed(row, words, names) for row in found if not row[0]}
    return tail, said, [_held(row, now.subject_id, words) for row in items]


def _likely(now: Standing, budget: int) -> int:
    """More messages than are likely to fit: summing up all that could costs more than reading those that do."""
    usual = now.tokens / now.message_count + LEAST_TOKENS if now.message_count else 1.0
    return min(NEWEST_MAX, int(2 * budget / usual) + 50)


def _sealed(row: sql.Row, words: Words, names: dict[int, str]) -> SealedMessage:
    """`names`: of the authors that were opened already."""
    _, id, subject_id, seq, role, count, importance, text, author_no, author, sent_at = row
    if author_no not in names:
        names[author_no] = words.text("memory_author", f"{subject_id}:{author_no}", author)
    return SealedMessage(words, id, subject_id, seq, role, names[author_no] or role, count, importance, sent_at, text)


def _held(row: sql.Row, subject_id: UUID, words: Words) -> HeldItem:
    id, version, pinned, count, text = row
    opened = words.text("memory_itemrevision", f"{id}:{version}:text", text)
    return HeldItem(id, subject_id, version, pinned, count, opened)


def _waiting(now: Standing) -> list[OpenedMessage]:
    """What is accepted and not recorded yet, as it will stand."""
    entries = buffering.read(now.session_id, now.owner_key).entries if buffering.waits(now.session_id) else []
    return [
        OpenedMessage(
            id=entry.id,
            session_id=now.session_id,
            subject_id=now.subject_id,
            seq=now.last_seq + place,
            role=entry.role,
            author=entry.author,
            text=entry.text,
            tokens=entry.tokens,
            importance=entry.importance,
            origin=entry.origin,
            outcome=entry.outcome,
            client_id=entry.client_id,
            run_id=entry.run_id,
            step_seq=entry.step_seq,
            sent_at=entry.sent_at,
            undone_in=None,
        )
        for place, entry in enumerate(entries, start=1)
    ]
