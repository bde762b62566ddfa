"""build(): the one way to a context, for an agent's call and for the preview of it.

A call is recorded: every block as a row of the ledger, and its question. A preview writes nothing at all. Equal memory
and an equal request give the same blocks in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import connection

from agentstate.core.errors import Invalid
from agentstate.core.limits import CONTEXT_TOKENS_MAX, CONTEXT_TOKENS_MIN, MIB, NAME_CHARS_MAX
from memory import policies, texts
from memory.context import gathering, strategies
from memory.context.gathering import Gathered
from memory.context.parts import (
    DUPLICATE,
    OVER_BUDGET,
    Account,
    Block,
    Context,
    ContextRequest,
    LeftOut,
    cost,
    heading_tokens,
    left_out,
    of_item,
    of_message,
    ordered,
    rendered,
)
from memory.context.strategies import STRATEGIES, Told
from memory.services import ledger, messages
from memory.services.ledger import Injected

__all__ = ["Account", "Block", "Context", "ContextRequest", "LeftOut", "build"]

DOCUMENT_SHARE = 0.5  # of what is left, for the prompt and for the progress document each
RECALL_SHARE = 0.25  # of what is left, kept free for what recall has found


def build(request: ContextRequest, *, record: bool = True) -> Context:
    """What a model is given of memory, never over its budget. Asserts a transaction if it records.

    `record` False: a preview. Raises: Invalid (a budget smaller than what is pinned, naming both; a bad request),
    NotFound, Conflict while the subject is erased. Locks: session and subject, if messages wait in its buffer.
    """
    _check(request)
    now = gathering.standing(request)
    if record:
        assert connection.in_atomic_block, "what was given to a call is recorded in the transaction that chose it"
        if messages.flush(now.session_id):
            now = gathering.standing(request)
    strategy = request.strategy or now.policy.strategy
    budget = request.budget_tokens or now.policy.budget_tokens
    gathered = gathering.gather(now, request, budget=budget, mattering=strategy == "importance", waiting=not record)
    blocks, out, offered = _chosen(gathered, budget=budget, strategy=strategy)
    account = Account(budget, cost(blocks), strategy, tuple(out), offered, gathered.recalled)
    assert account.used <= budget, "a context is never over its budget"
    call_id = _recorded(request, gathered, blocks) if record else None
    return Context(blocks, account, rendered(blocks), request.question_text, now.session_id, now.subject_id, call_id)


def _chosen(
    gathered: Gathered, *, budget: int, strategy: str
) -> tuple[tuple[Block, ...], list[LeftOut], dict[str, int]]:
    """Blocks in their order, what was left out, and the number of candidates of each part."""
    pinned = _pinned(gathered, budget)
    documents, out = _documents(gathered, budget - cost(pinned))
    room = budget - cost([*pinned, *documents])
    found = _found(gathered, pinned, out)
    reserve = min(int(room * RECALL_SHARE), cost(found)) if found else 0
    told = STRATEGIES[strategy](gathered, room - reserve)
    recalled = _recalled(found, told, room - cost(told.blocks), out)
    out += told.left_out
    offered = {
        "progress": int(gathered.standing.progress is not None),
        "pinned": len(gathered.pinned),
        "summary": len(told.summaries) + sum(one.count for one in told.left_out if one.part == "summary"),
        "recalled": len(gathered.hits),
        "tail": gathered.standing_count,
        "prompt": int(gathered.standing.prompt is not None),
    }
    return ordered([*pinned, *documents, *told.blocks, *recalled]), out, offered


def _pinned(gathered: Gathered, budget: int) -> list[Block]:
    """All of them: what is pinned is always said. Raises: Invalid."""
    blocks = [of_item("pinned", item) for item in gathered.pinned]
    needed = cost(blocks)
    if needed > budget:
        raise Invalid(
            f"The pinned items of this subject take {needed:,} tokens, and the budget is {budget:,}. Ask for a budget "
            f"of at least {needed:,}, or unpin some of the {len(blocks)} items.",
            field="/budget_tokens",
            needed_tokens=needed,
            budget_tokens=budget,
        )
    return blocks


def _documents(gathered: Gathered, room: int) -> tuple[list[Block], list[LeftOut]]:
    """The prompt, then the progress document, each whole or not at all."""
    taken: list[Block] = []
    out: list[LeftOut] = []
    for block in (gathered.standing.prompt, gathered.standing.progress):
        if block is None:
            continue
        if cost([block]) <= (room - cost(taken)) * DOCUMENT_SHARE:
            taken.append(block)
        else:
            out.append(left_out(block, OVER_BUDGET))
    return taken, out


def _found(gathered: Gathered, pinned: Sequence[Block], out: list[LeftOut]) -> list[Block]:
    """What recall has found, the best first, each text once and not what is pinned."""
    seen = {texts.normalised(block.text) for block in pinned} if gathered.hits else set()
    blocks = []
    for hit in gathered.hits:
        scored: dict[str, Any] = {"score": hit.score, "scores": hit.scores}
        if hit.kind == "message" and hit.id in gathered.said:
            block = of_message("recalled", gathered.said[hit.id], **scored)
        elif hit.id in gathered.items:
            block = of_item("recalled", gathered.items[hit.id], **scored)
        else:  # it went while we read
            out.append(LeftOut("recalled", "item" if hit.kind == "item" else "message", "gone", hit.id))
            continue
        words = texts.normalised(block.text)
        if words in seen:
            out.append(left_out(block, DUPLICATE))
            continue
        seen.add(words)
        blocks.append(block)
    return blocks


def _recalled(found: Sequence[Block], told: Told, room: int, out: list[LeftOut]) -> list[Block]:
    """Those that do not stand in the tail and fit, the best first."""
    if not found:
        return []
    in_tail = {block.source_id for block in told.tail}
    words = {texts.normalised(block.text) for block in told.tail}
    taken: list[Block] = []
    left = room - heading_tokens("recalled")
    for block in found:
        if block.source_id in in_tail or texts.normalised(block.text) in words:
            out.append(left_out(block, DUPLICATE))
        elif block.tokens > left:
            out.append(left_out(block, OVER_BUDGET))
        else:
            taken.append(block)
            left -= block.tokens
    return taken


def _recorded(request: ContextRequest, gathered: Gathered, blocks: Iterable[Block]) -> UUID:
    rows = [
        Injected(
            block.part,
            block.source,
            block.source_id,
            block.tokens,
            version=block.version,
            score=block.score,
            scores=block.scores,
            masked=block.masked,
            subject_id=block.subject_id,
        )
        for block in blocks
    ]
    now = gathered.standing
    call_id = ledger.record(rows, source=request.source, session_id=now.session_id)
    if request.question_text.strip():
        ledger.keep_question(now.subject_id, now.agent, request.question_text, request.source)
    return call_id


def _check(request: ContextRequest) -> None:
    """Raises: Invalid, TooLarge."""
    if (request.session_id is None) == (not request.session_key):
        raise Invalid("A context is of one session: name it by its key or by its id.", field="/session")
    texts.optional(request.session_key, field="/session", bytes_max=NAME_CHARS_MAX * 4)
    texts.optional(request.agent, field="/agent", bytes_max=NAME_CHARS_MAX * 4)
    texts.optional(request.question_text, field="/question", bytes_max=MIB)
    if request.strategy is not None and request.strategy not in STRATEGIES:
        raise Invalid(f"strategy is one of {', '.join(STRATEGIES)}.", field="/strategy")
    budget = request.budget_tokens
    if budget is not None and not CONTEXT_TOKENS_MIN <= budget <= CONTEXT_TOKENS_MAX:
        raise Invalid(
            f"budget_tokens is a number from {CONTEXT_TOKENS_MIN} to {CONTEXT_TOKENS_MAX:,}.", field="/budget_tokens"
        )


assert set(STRATEGIES) == set(policies.STRATEGIES), strategies.__name__
