"""The parts of a context and what each costs. A context is never larger than its budget, whatever goes in.

Costs are counted upwards: a text's stored tokens, its label's, and two for where they meet and the line break. So the
rendered whole never has more tokens than the sum, and nothing has to be counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import UUID

from agentstate.core import tokens
from agentstate.core.ids import public_id
from memory.recall.questions import Asked
from memory.selectors.messages import OpenedMessage, SealedMessage
from memory.selectors.summaries import OpenedSummary, SealedSummary
from memory.services.ledger import Part, SourceKind
from memory.sources import Source

# In the order in which they stand in a context.
HEADINGS: dict[Part, str] = {
    "progress": "# Progress of this task",
    "pinned": "# Always true",
    "summary": "# Earlier in this session, summarised",
    "recalled": "# Remembered",
    "tail": "# Messages",
    "prompt": "# How to work",
}
JOINT_TOKENS = 2  # a line break, and what two texts may cost more together than apart
MASKED_CHARS_MAX = 160  # of the first line that stays of a masked message

# Why something did not go in.
OVER_BUDGET = "over_budget"
DUPLICATE = "duplicate"  # the same stands elsewhere in the context
SUMMARISED = "summarised"  # a summary that went in tells it
STALE = "stale"  # its messages were taken back
ROUTINE = "routine"  # what matters went first


@dataclass(frozen=True, slots=True)
class Block:
    """One text of the context, word for word as its source's version says it unless `masked`.

    `tokens`: what it costs in the context, `label` included.
    """

    part: Part
    source: SourceKind
    source_id: UUID
    text: str
    tokens: int
    version: int = 1
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    masked: bool = False
    label: str = ""
    subject_id: UUID | None = None
    seq: int = 0


AnyMessage = OpenedMessage | SealedMessage


@dataclass(slots=True)
class End:
    """A message of the session's end and what it costs there. Its block is made when it goes in: few of many do."""

    message: AnyMessage
    tokens: int
    masked: Block | None = None

    def block(self) -> Block:
        return self.masked or of_message("tail", self.message)


@dataclass(frozen=True, slots=True)
class HeldItem:
    """An active item with the words of its newest version."""

    id: UUID
    subject_id: UUID
    version: int
    pinned: bool
    tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What could have gone in and did not: one source, or `count` messages or summaries from `from_seq` to `to_seq`."""

    part: Part
    source: SourceKind
    reason: str
    source_id: UUID | None = None
    tokens: int = 0
    count: int = 1
    from_seq: int = 0
    to_seq: int = 0


@dataclass(frozen=True, slots=True)
class Recalled:
    """Whether recall was asked, and how it worked. `why`: why it was not asked, or why not better."""

    asked: bool
    why: str = ""
    rung: str = ""
    units: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """`used` of `budget` tokens. Of each part, blocks and left out together are its `candidates`."""

    budget: int
    used: int
    strategy: str
    left_out: tuple[LeftOut, ...]
    candidates: Mapping[str, int]
    recalled: Recalled


@dataclass(frozen=True, slots=True)
class Context:
    """`blocks` in the order of the text. `call_id`: of the ledger's rows; None for a preview."""

    blocks: tuple[Block, ...]
    account: Account
    text: str
    question: str
    session_id: UUID
    subject_id: UUID
    call_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ContextRequest:
    """What a call asks for. `question` as text, or asked of the embedding model before any transaction.

    `agent`: whose policy and prompt; empty: the session's. Budget and strategy: the policy's unless given.
    """

    session_key: str = ""
    session_id: UUID | None = None
    agent: str = ""
    question: str | Asked = ""
    budget_tokens: int | None = None
    strategy: str | None = None
    source: Source | None = None

    @property
    def question_text(self) -> str:
        return self.question.text if isinstance(self.question, Asked) else self.question


def cost(blocks: Sequence[Block]) -> int:
    """With the headings of their parts."""
    return sum(block.tokens for block in blocks) + sum(heading_tokens(part) for part in {one.part for one in blocks})


def heading_tokens(part: Part) -> int:
    """With the empty line before it."""
    return _label_tokens(HEADINGS[part]) + 2 * JOINT_TOKENS


def at_end(message: AnyMessage, *, masked: bool) -> End:
    if masked:
        block = of_message("tail", message, masked=True)
        return End(message, block.tokens, block)
    return End(message, message.tokens + _label_tokens(f"{message.speaker}: ") + JOINT_TOKENS)


def tail_cost(ends: Sequence[End]) -> int:
    """As cost(), of blocks that are not made yet."""
    return sum(end.tokens for end in ends) + (heading_tokens("tail") if ends else 0)


def of_message(part: Part, message: AnyMessage, *, masked: bool = False, **scored: Any) -> Block:
    label = f"[{message.sent_at:%Y-%m-%d}] {message.speaker}: " if part == "recalled" else f"{message.speaker}: "
    text, count = (message.text, message.tokens) if not masked else _masked(message)
    return Block(
        part,
        "message",
        message.id,
        text,
        count + _label_tokens(label) + JOINT_TOKENS,
        masked=masked,
        label=label,
        subject_id=message.subject_id,
        seq=message.seq,
        **scored,
    )


def of_item(part: Part, item: HeldItem, **scored: Any) -> Block:
    label = "- "
    return Block(
        part,
        "item",
        item.id,
        item.text,
        item.tokens + _label_tokens(label) + JOINT_TOKENS,
        version=item.version,
        label=label,
        subject_id=item.subject_id,
        **scored,
    )


def summary_tokens(summary: OpenedSummary | SealedSummary) -> int:
    return summary.tokens + JOINT_TOKENS


def of_summary(summary: OpenedSummary | SealedSummary) -> Block:
    return Block(
        "summary",
        "summary",
        summary.id,
        summary.text,
        summary_tokens(summary),
        subject_id=summary.subject_id,
        seq=summary.from_seq,
    )


def of_document(
    part: Part, source: SourceKind, id: UUID, version: int, text: str, count: int, subject_id: UUID | None
) -> Block:
    return Block(part, source, id, text, count + JOINT_TOKENS, version=version, subject_id=subject_id)


def left_out(block: Block, reason: str) -> LeftOut:
    return LeftOut(block.part, block.source, reason, block.source_id, block.tokens, 1, block.seq, block.seq)


def ordered(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Parts in their order, inside a part as they were given."""
    places = {part: place for place, part in enumerate(HEADINGS)}
    return tuple(sorted(blocks, key=lambda block: places[block.part]))


def rendered(blocks: Sequence[Block]) -> str:
    """Blocks in their order, each part below its heading."""
    lines: list[str] = []
    part = ""
    for block in blocks:
        if block.part != part:
            part = block.part
            lines += ["", HEADINGS[block.part]] if lines else [HEADINGS[block.part]]
        lines.append(f"{block.label}{block.text}")
    return "\n".join(lines)


def _masked(message: AnyMessage) -> tuple[str, int]:
    first = message.text.strip().partition("\n")[0][:MASKED_CHARS_MAX].rstrip()
    text = f"{first} [… {message.tokens:,} tokens masked: {public_id('message', message.id)}]"
    return text, tokens.count(text)


@lru_cache(maxsize=4_096)
def _label_tokens(label: str) -> int:
    return tokens.count(label)
