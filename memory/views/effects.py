"""What a change would do, told for a page: what leaves recall, what it may contradict, what an agent would get.

The context is built by the code that builds an agent's, before the change and while it is in force; nothing is kept.
Models are asked before any transaction is opened: for the question, and for the new words' vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any
from uuid import UUID

from agentstate.core.errors import Invalid
from agentstate.llm import embedding
from agentstate.llm.embedding import Embedded, Embedder, Question
from agentstate.llm.endpoint import ModelRefused
from memory.context import building
from memory.context.building import Block, Context, ContextRequest
from memory.recall import embedding as making
from memory.recall import questions
from memory.recall.questions import DOWN, Asked
from memory.selectors import conversation, shelf
from memory.selectors.opening import Words
from memory.selectors.sessions import SessionRow
from memory.selectors.shelf import ItemRow
from memory.services.rehearsing import Rehearsal

SESSIONS_OFFERED = 50
WHY = {
    "attribute": "it names the same attribute",
    "facts": "its facts are about the same",
    "wording": "nearly the same words, with another number or a “not”",
}


@dataclass(frozen=True, slots=True)
class Contradiction:
    item: ItemRow
    why: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One place of the context, before and after; None where it has nothing."""

    before: Block | None
    after: Block | None

    @property
    def part(self) -> str:
        block = self.after or self.before
        assert block is not None
        return block.part

    @property
    def is_changed(self) -> bool:
        return self.before is None or self.after is None or self.before.text != self.after.text


@dataclass(frozen=True, slots=True)
class Contexts:
    """What an agent would be given, before and after, without the newest messages, which stay."""

    question: str
    session: str  # its name
    agent: str
    before: Context
    after: Context
    pairs: list[Pair]

    @property
    def tail_before(self) -> int:
        return sum(block.part == "tail" for block in self.before.blocks)

    @property
    def tail_after(self) -> int:
        return sum(block.part == "tail" for block in self.after.blocks)

    @property
    def dropped(self) -> list[Block]:
        return [pair.before for pair in self.pairs if pair.before is not None and pair.after is None]

    @property
    def is_same(self) -> bool:
        return not any(pair.is_changed for pair in self.pairs) and self.tail_before == self.tail_after


@dataclass(frozen=True, slots=True)
class Effect:
    bytes_after: int
    cap_bytes: int
    tokens_after: int
    evicted: list[ItemRow]
    contradicts: list[Contradiction]
    contexts: Contexts | None = None

    @property
    def percent(self) -> float:
        return 100 * self.bytes_after / self.cap_bytes


@dataclass(frozen=True, slots=True)
class Asking:
    """What a preview asks, as far as models have to be asked for it."""

    question: Asked | None
    agent: str
    vector: Embedder | None  # knows the vector of the new words
    session: str = ""  # public id; empty: the subject's newest


def asking(tenant_id: UUID, typed: Mapping[str, str], *, text: str) -> Asking:
    """Before any transaction. `question` is one of those really asked, `asked` another one. Raises: Invalid."""
    question = (typed.get("asked", "") or typed.get("question", "")).strip()
    wanted = questions.asked(question, tenant_id=tenant_id) if question else None
    return Asking(wanted, typed.get("agent", "").strip(), _foreseen(text), typed.get("session", "").strip())


@dataclass(frozen=True, slots=True)
class Look:
    """How the context of one of a subject's sessions is looked at."""

    subject_id: UUID
    asking: Asking
    session: str
    request: ContextRequest

    def build(self) -> Context:
        """Writes nothing. Raises: Invalid when what is pinned is larger than the budget."""
        return building.build(self.request, record=False)

    def build_with(self, item_id: UUID) -> Context:
        """While a change of this item is in force: its new words get their vector first, as upkeep would give it."""
        if self.asking.vector is not None:
            cursor = making.Place(after=UUID(int=item_id.int - 1)).written()
            making.embed_batch(cursor, embedder=self.asking.vector, batch_units=1)
        return self.build()


def looking(subject_id: UUID, words: Words, asked: Asking) -> Look | None:
    """None when nobody has asked anything: without a question or a session there is no context to show.

    Raises: Invalid when the session is not one of this subject's.
    """
    if asked.question is None:
        return None
    found = conversation.newest_of(subject_id, words, rows_max=1, named=asked.session)
    if not found:
        return None
    request = ContextRequest(session_id=found[0].id, agent=asked.agent, question=asked.question)
    return Look(subject_id, asked, found[0].title or found[0].key, request)


def offered(subject_id: UUID, words: Words, *, chosen: str) -> list[SessionRow]:
    """Sessions to look at the context of: the newest, and the chosen one however old it is."""
    newest = conversation.newest_of(subject_id, words, rows_max=SESSIONS_OFFERED)
    if not chosen or any(row.public_id == chosen for row in newest):
        return newest
    try:
        return [*newest, *conversation.newest_of(subject_id, words, rows_max=1, named=chosen)]
    except Invalid:
        return newest


def told(
    subject_id: UUID, words: Words, rehearsal: Rehearsal[Any], look: Look | None = None, before: Context | None = None
) -> Effect:
    """One read. What was evicted in the rehearsal is there again; its words are opened as they stand."""
    gone = [each.item_id for each in rehearsal.evicted]
    hints = {hint.item_id: WHY[hint.why] for hint in rehearsal.contradicts}
    found = shelf.some(subject_id, [*gone, *hints], words)
    contexts = None
    if look is not None and before is not None and rehearsal.seen is not None:
        contexts = compared(look.session, look.asking.agent, before, rehearsal.seen)
    return Effect(
        bytes_after=rehearsal.bytes_after,
        cap_bytes=rehearsal.cap_bytes,
        tokens_after=rehearsal.tokens_after,
        evicted=[found[item_id] for item_id in gone if item_id in found],
        contradicts=[Contradiction(found[item_id], why) for item_id, why in hints.items() if item_id in found],
        contexts=contexts,
    )


def compared(session: str, agent: str, before: Context, after: Context) -> Contexts:
    """Two contexts of one session and one question, for a page. `session`: its name."""
    old, new = _without_tail(before), _without_tail(after)
    return Contexts(before.question, session, agent, before, after, _paired(old, new))


def _without_tail(context: Context) -> list[Block]:
    return [block for block in context.blocks if block.part != "tail"]


def _paired(old: Sequence[Block], new: Sequence[Block]) -> list[Pair]:
    """The same source stands beside itself; what moved is told as gone and as new."""
    matcher = SequenceMatcher(None, [_name(each) for each in old], [_name(each) for each in new], autojunk=False)
    pairs = []
    for op, a, b, c, d in matcher.get_opcodes():
        if op == "equal":
            pairs += [Pair(x, y) for x, y in zip(old[a:b], new[c:d], strict=True)]
        else:
            pairs += [Pair(each, None) for each in old[a:b]] + [Pair(None, each) for each in new[c:d]]
    return pairs


def _name(block: Block) -> tuple[str, str, UUID]:
    return block.part, block.source, block.source_id


class _Foreseen:
    """An embedder that has been asked already, about one text, and knows no other."""

    has_tokens = True

    def __init__(self, embedder: Embedder, text: str) -> None:
        (self._one,) = embedder.embed([text])
        self._text, self.model_id, self.dimensions = text, embedder.model_id, embedder.dimensions

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        if list(texts) != [self._text]:
            raise ModelRefused("Only the words of a preview are known here.")
        return [self._one]

    def ask(self, question: str) -> Question:
        raise ModelRefused("Only the words of a preview are known here.")


def _foreseen(text: str) -> Embedder | None:
    """None without a model, and when it is down: the new words are then found by their words, as right after a save."""
    embedder = embedding.embedder()
    if embedder is None or not text.strip():
        return None
    try:
        return _Foreseen(embedder, text.strip())
    except DOWN:
        return None
