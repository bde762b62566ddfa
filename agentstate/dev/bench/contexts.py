"""Sessions: what a context costs over a long one, and an append to a very long one beside a short one.

Written through the services, read as the application's role under row security. No model is asked inside: whoever asks
one does it before the transaction. So the words of the question are its recall, and the model has a line of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

from agentstate.core.ids import new_id
from agentstate.db import sql
from agentstate.dev.bench import contenders, states
from agentstate.dev.bench.report import Figure, Line, Remark, percentile
from agentstate.llm import embedding
from agentstate.tenants.actors import Actor, system, tenant_of
from agentstate.tenants.scope import tenant_scope
from memory.context.building import ContextRequest, build
from memory.recall import questions
from memory.services import items, messages, policies, sessions, subjects, summaries
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage

BUDGET_TOKENS, MESSAGES = 8_000, 2_000
CONTEXT_MS, APPEND_TIMES = 25.0, 1.3
SHORT, LONG = 50, 50_000
QUESTION = states.text(60, seed=5)  # words of which some were said
AGENT = "bench"
SUMMARISE_S = 600.0

COPY = """
INSERT INTO memory_message (id, session_id, subject_id, seq, role, author_no, text, tokens, bytes, importance, origin,
  outcome, sent_at, recorded_at)
SELECT gen_random_uuid(), session_id, subject_id, n, role, author_no, text, tokens, bytes, importance, origin, outcome,
  sent_at, recorded_at
FROM memory_message, generate_series(2, %s) n WHERE session_id = %s
"""
GROWN = "UPDATE memory_session SET last_seq = %s, message_count = %s WHERE id = %s"


@dataclass(frozen=True)
class Effort:
    times: int
    messages: int = MESSAGES
    long: int = LONG


def measure(effort: Effort) -> Iterator[Line]:
    actor = system("bench", tenant_id=tenant_of(contenders.bench_actor()))
    key = _talk(actor, effort.messages)
    for strategy, retrieval in (("summary", "never"), ("hierarchical", "never"), ("summary", "always")):
        yield _context(actor, key, strategy, retrieval, effort)
    yield _context(actor, key, "summary", "never", effort, record=True)
    yield from _asking(tenant_of(actor), effort)
    yield from _appends(actor, effort)


def _context(actor: Actor, key: str, strategy: str, retrieval: str, effort: Effort, *, record: bool = False) -> Line:
    """`record`: as an agent's call, with the ledger and the commit; for orientation, since the disk decides."""
    tenant_id = tenant_of(actor)
    with tenant_scope(tenant_id):
        _set(actor, retrieval=retrieval)
    took_ms, used, used_s = list[float](), 0, 0.0
    for _ in range(effort.times + 3):
        asked = questions.Asked(QUESTION, ())
        request = ContextRequest(key, question=asked, budget_tokens=BUDGET_TOKENS, strategy=strategy)
        began, spent = time.perf_counter(), time.process_time()
        with tenant_scope(tenant_id):
            context = build(request, record=record)
        took_ms.append(1_000 * (time.perf_counter() - began))
        used_s += time.process_time() - spent
        used = context.account.used
    cpu_ms = 1_000 * used_s / len(took_ms)
    note = f"p50 {percentile(took_ms[3:], 0.5):.1f} ms, processor {cpu_ms:.1f} ms here, {used:,} tokens"
    name = f"context of {BUDGET_TOKENS:,} tokens over {effort.messages:,} messages, {strategy}"
    with_recall = " with recall" if retrieval == "always" else ""
    target = None if record else CONTEXT_MS
    name = f"{name}{with_recall}{', recorded' if record else ''}, p95"
    return Figure(name, percentile(took_ms[3:], 0.95), "ms", target, note=note)


def _asking(tenant_id: UUID, effort: Effort) -> Iterator[Line]:
    if embedding.embedder() is None:
        return
    took_ms = [_timed(partial(questions.asked, QUESTION, tenant_id=tenant_id)) for _ in range(effort.times + 3)][3:]
    note = f"p50 {percentile(took_ms, 0.5):.1f} ms"
    yield Figure("the model is asked a question, before it, p95", percentile(took_ms, 0.95), "ms", note=note)


def _appends(actor: Actor, effort: Effort) -> Iterator[Line]:
    """One after the other, the first in turns, so that what else the machine does hits both alike."""
    sessions_ = {"short": _session(actor, SHORT), "long": _session(actor, effort.long)}
    took_ms: dict[str, list[float]] = {name: [] for name in sessions_}
    for number in range(effort.times * 2):
        for name in sorted(sessions_, reverse=bool(number % 2)):
            text = f"And another thing, number {number}."
            new = [NewMessage("user", text, author="Ada", client_id=new_id().hex)]
            took_ms[name].append(_timed(partial(_append, actor, sessions_[name], new)))
    long_ms, short_ms = (percentile(took_ms[name], 0.25) for name in ("long", "short"))
    note = f"the quickest quarter of each within {long_ms:.2f} and {short_ms:.2f} ms"
    yield Figure(f"append to {effort.long:,} messages / to {SHORT}", long_ms / short_ms, "x", APPEND_TIMES, note=note)
    yield Remark("an append is one transaction: the message, its unit of recall, the counters, one Redis read")


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return 1_000 * (time.perf_counter() - began)


def _append(actor: Actor, session_id: Any, new: list[NewMessage]) -> None:
    with tenant_scope(tenant_of(actor), durable=True):
        messages.append(session_id, new, actor=actor)


def _talk(actor: Actor, count: int) -> str:
    """A session of this many messages, summarised, about a subject with some items; its key."""
    dice, tenant_id, key = Random(11), tenant_of(actor), f"bench-{new_id().hex}"  # noqa: S311 (no secret)
    with tenant_scope(tenant_id):
        _set(actor)
        subject = subjects.resolve(external_id=key)
        session = sessions.open(key, subject_id=subject.id, agent=AGENT, actor=actor)
        for number in range(8):
            text = f"Fact {number}: {states.text(120, seed=number)}."
            items.remember(subject.id, NewItem(text, pinned=number < 4), actor=actor)
    for start in range(0, count, 200):
        new = [_message(dice, number) for number in range(start, min(start + 200, count))]
        _append(actor, session.id, new)
    summaries.summarise_due(tenant_id, until_s=time.monotonic() + SUMMARISE_S)
    return key


def _message(dice: Random, number: int) -> NewMessage:
    role = "user" if number % 2 else "assistant"
    kind = "decision" if number % 25 == 0 else "routine"
    return NewMessage(role, states.text(dice.choice([60, 120, 240, 480]), seed=number), importance=kind)


def _session(actor: Actor, count: int) -> Any:
    with tenant_scope(tenant_of(actor)):
        subject = subjects.resolve(external_id=f"bench-{new_id().hex}")
        session = sessions.open(f"bench-{new_id().hex}", subject_id=subject.id, agent=AGENT, actor=actor)
        messages.append(session.id, [NewMessage("user", "hello there")], actor=actor)
        sql.execute(COPY, [count, session.id])
        sql.execute(GROWN, [count, count, session.id])
    return session.id


def _set(actor: Actor, **fields: Any) -> None:
    policies.set_for_agent(AGENT, {"extraction": "off", **fields}, actor=actor, reason="bench")
