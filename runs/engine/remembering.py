"""The memory of a claimed run: acts of its steps, checked against the fence in the transaction that reads or writes.

A write holds the run against being taken over until it is committed, and stands under the key of its step: whoever
takes the run over asks again under the same key and gets the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agentstate.core.errors import Fenced, NotFound
from agentstate.core.failpoints import hit, register
from agentstate.core.ids import parse_id, public_id
from agentstate.db import locks, sql
from agentstate.sdk import memory_acts as acts
from agentstate.sdk import values
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory import policies
from memory.context import asking, building
from memory.recall import questions
from memory.recall.questions import Asked
from memory.selectors import directory, history, shelf
from memory.selectors import sessions as session_reads
from memory.services import (
    editing,
    items,
    ledger,
    messages,
    progress,
    prompts,
    proposals,
    recalling,
    receipts,
    sessions,
    subjects,
)
from memory.services.drafts import NewItem
from memory.services.ledger import Injected
from memory.sources import Source

METHOD_CHARS_MAX = 120

register("memory.act", "the step begun / memory read or written")
register("memory.wrote", "a write of memory committed / its reply to the step that asked")

# FOR SHARE: nobody takes the run over before the write is committed. The primary keys.
HELD = """
SELECT r.session_key, r.agent, r.worker_id, s.status, s.effect, coalesce(s.key, '')
FROM runs_run r LEFT JOIN runs_step s ON s.run_id = r.id AND s.seq = %s AND s.generation = r.generation
WHERE r.id = %s AND r.fence = %s AND r.status = 'running' AND r.lease_until > clock_timestamp()
"""
AGENT_OF_RUN = "SELECT coalesce(nullif(%(agent)s, ''), agent) FROM runs_run WHERE id = %(run)s"
HELD_UNTIL_COMMITTED = HELD + "FOR SHARE OF r"


@dataclass(frozen=True, slots=True)
class Asker:
    """The step that asks: its run, the session that is meant unless another is named, and who writes."""

    run_id: UUID
    session: str
    agent: str
    source: Source
    actor: Actor


def act(tenant_id: UUID, run_id: UUID, name: str, body: Any, *, fence: int, step_seq: int, key: str) -> Any:
    """The reply as JSON. Raises: Fenced, NotFound, Invalid, TooLarge, Conflict, LockTimeout."""
    found, wanted = acts.read(name, body)
    asked = _asked(tenant_id, run_id, name, wanted)  # may ask a model: before the transaction
    hit("memory.act")
    with tenant_scope(tenant_id):
        asker = asker_of(tenant_id, run_id, found, fence=fence, step_seq=step_seq, key=key)
        if found.writes:
            said = [name, values.plain(wanted)]
            reply = receipts.once(key, said, lambda: values.plain(_WRITES[name](wanted, asker)), by=str(run_id))
        else:
            reply = values.plain(_READS[name](wanted, asked, asker))
    if found.writes:
        hit("memory.wrote")
    return reply


def _asked(tenant_id: UUID, run_id: UUID, name: str, wanted: Any) -> Asked | None:
    """The question in the space of the model. Raises: Invalid for an empty one of a recall."""
    if name == "recall":
        return questions.asked(wanted.question, tenant_id=tenant_id)
    if name == "context" and wanted.question.strip():
        of = (AGENT_OF_RUN, {"agent": wanted.agent, "run": run_id})
        return asking.asked(wanted.question, tenant_id=tenant_id, of=of)
    return None


def asker_of(tenant_id: UUID, run_id: UUID, act: acts.Act, *, fence: int, step_seq: int, key: str) -> Asker:
    with locks.translated():
        held = sql.row(HELD_UNTIL_COMMITTED if act.writes else HELD, [step_seq, run_id, fence])
    if held is None:
        raise Fenced(f"{public_id('run', run_id)} belongs to another worker, or its lease (fence {fence}) has ended.")
    session, agent, worker_id, status, effect, step_key = held
    acts.check_step(act, status=status, step_key=step_key if effect == "keyed" else "", key=key)
    actor = Actor("worker", str(worker_id or ""), agent, tenant_id, scopes=frozenset({"runs.work"}))
    source = Source(run_id=run_id, step_seq=step_seq, key=key or None)
    return Asker(run_id, session or public_id("run", run_id), agent, source, actor)


# --- sessions


def _open(wanted: acts.OpenSession, asker: Asker) -> acts.SessionFacts:
    key = wanted.key or asker.session
    is_named = bool(wanted.subject or wanted.aliases)
    subject_id = _resolved(wanted, asker) if is_named else session_reads.by_key(key).subject_id
    session = sessions.open(key, subject_id=subject_id, agent=asker.agent, title=wanted.title, actor=asker.actor)
    return acts.SessionFacts(
        public_id("session", session.id), session.key, public_id("subject", subject_id), session.version, session.status
    )


def _resolved(wanted: acts.OpenSession, asker: Asker) -> UUID:
    known = _public_subject(wanted.subject)
    if known is not None:
        subject_id: UUID = subjects.get(known).id
        return subject_id
    aliases = [subjects.AliasIn(kind, value) for kind, value in wanted.aliases.items()]
    found = subjects.resolve(external_id=wanted.subject or None, aliases=aliases, name=wanted.name, actor=asker.actor)
    return found.id


def _say(wanted: acts.Say, asker: Asker) -> acts.Said:
    session = _session(wanted.session, asker)
    new = messages.NewMessage(
        wanted.role, wanted.text, author=wanted.author, importance=wanted.importance, outcome=wanted.outcome
    )
    appended = messages.append(
        session.id, [new], persistence=wanted.persistence or None, source=asker.source, actor=asker.actor
    )
    [(message_id, seq)] = appended.messages
    return acts.Said(public_id("message", message_id), seq, appended.durable)


def _undo(wanted: acts.Undo, asker: Asker) -> acts.Undone:
    session = _session(wanted.session, asker)
    undone = messages.undo(
        session.id, last_n=wanted.n, expected_version=session.version, reason=wanted.reason, actor=asker.actor
    )
    return acts.Undone(session.public_id, undone.session.version, len(undone.message_ids))


def _session(key: str, asker: Asker) -> session_reads.SessionRow:
    key = key or asker.session
    try:
        return session_reads.by_key(key)
    except NotFound:
        raise NotFound(f"There is no session {key}. Open it first: st.memory.session(subject=...).") from None


def _subject(subject: str, session: str, asker: Asker) -> UUID:
    """Whom an act is about: the one it names, else the one its session is about. Raises: NotFound."""
    if not subject:
        return _session(session, asker).subject_id
    known = _public_subject(subject)
    found = subjects.get(known) if known is not None else subjects.find(external_id=subject)
    if found is None:
        raise NotFound("There is no such subject. A session makes one: st.memory.session(subject=...).")
    subject_id: UUID = found.id
    return subject_id


def _public_subject(text: str) -> UUID | None:
    try:
        return parse_id("subject", text)
    except NotFound:
        return None  # a caller's own id


# --- reads


def _context(wanted: acts.BuildContext, asked: Asked | None, asker: Asker) -> acts.Context:
    session = _session(wanted.session, asker)
    built = building.build(
        building.ContextRequest(
            session_id=session.id,
            agent=wanted.agent or asker.agent,
            question=asked or wanted.question,
            budget_tokens=wanted.budget_tokens,
            strategy=wanted.strategy,
            source=asker.source,
        )
    )
    blocks = tuple(
        acts.Block(
            block.part,
            block.source,
            public_id(block.source, block.source_id),
            block.version,
            block.text,
            block.tokens,
            block.score,
            dict(block.scores),
            block.masked,
        )
        for block in built.blocks
    )
    left_out = tuple(
        acts.LeftOut(
            left.part,
            public_id(left.source, left.source_id) if left.source_id else "",
            left.tokens,
            left.reason,
            left.count,
            left.from_seq,
            left.to_seq,
        )
        for left in built.account.left_out
    )
    return acts.Context(built.text, blocks, built.account.budget, built.account.used, left_out, built.question)


def _recall(wanted: acts.AskRecall, asked: Asked | None, asker: Asker) -> acts.Recall:
    assert asked is not None, "an empty question was refused"
    session = _session(wanted.session, asker) if wanted.session or not wanted.subject else None
    subject_id = _subject(wanted.subject, "", asker) if session is None else session.subject_id
    answer = recalling.ask(
        subject_id,
        asked,
        k=wanted.k,
        kinds=("message",) if wanted.only_session else tuple(wanted.kinds),
        session_id=session.id if session and wanted.only_session else None,
        after=wanted.after,
        before=wanted.before,
        namespace=wanted.namespace,
        agent=asker.agent,
        source=asker.source,
        for_session=session.id if session else None,
    )
    hits = tuple(
        acts.Hit(
            found.public_id,
            found.hit.kind,
            found.text,
            found.hit.score,
            dict(found.hit.scores),
            found.version,
            public_id("session", found.hit.session_id) if found.hit.session_id else "",
            found.author,
            found.hit.sent_at,
        )
        for found in answer.found
    )
    return acts.Recall(hits, answer.rung)


def _read_progress(wanted: acts.ReadProgress, asked: Asked | None, asker: Asker) -> acts.Progress:
    key = wanted.key or asker.session
    found = progress.read(key)
    if found is None:
        return acts.Progress(key, sections=dict.fromkeys(acts.SECTIONS, ""))
    given = Injected(
        "progress", "progress", found.progress_id, found.tokens, version=found.version, subject_id=found.subject_id
    )
    ledger.record([given], source=asker.source)
    return acts.Progress(key, found.version, found.body, found.sections.as_dict())


def _prompt(wanted: acts.ReadPrompt, asked: Asked | None, asker: Asker) -> acts.Prompt:
    found = prompts.in_force(wanted.agent or asker.agent, wanted.name)
    if found is None:
        return acts.Prompt(wanted.name)
    given = Injected("prompt", "prompt", found.prompt_id, found.tokens, version=found.version)
    ledger.record([given], source=asker.source)
    return acts.Prompt(wanted.name, found.version, found.text)


# --- items and documents


def _remember(wanted: acts.Remember, asker: Asker) -> acts.Kept:
    new = NewItem(
        wanted.text,
        kind=wanted.kind,
        namespace=wanted.namespace,
        attribute=wanted.attribute,
        fact_kind=wanted.fact_kind,
        facts=wanted.facts,
        importance=wanted.importance,
        pinned=wanted.pinned,
        valid_from=wanted.valid_from,
        valid_to=wanted.valid_to,
        expires_at=wanted.expires_at,
    )
    subject_id = _subject(wanted.subject, wanted.session, asker)
    kept = items.remember(subject_id, new, actor=asker.actor, source=asker.source, reason=wanted.reason)
    return acts.Kept(
        public_id("item", kept.item.id) if kept.item else "",
        kept.item.version if kept.item else 0,
        kept.change,
        tuple(acts.Evicted(public_id("item", each.item_id), each.bytes) for each in kept.evicted),
        kept.refused,
        tuple(public_id("item", hint.item_id) for hint in kept.contradicts),
    )


def _forget(wanted: acts.Forget, asker: Asker) -> acts.Forgotten:
    item = editing.forget(parse_id("item", wanted.item), reason=wanted.reason or "the agent's", actor=asker.actor)
    return acts.Forgotten(public_id("item", item.id), item.status)


def _propose(wanted: acts.Propose, asker: Asker) -> acts.Proposed:
    subject_id = _subject(wanted.subject, wanted.session, asker)
    item = _item_of(subject_id, wanted.item) if wanted.act != "add" else None
    new = NewItem(
        wanted.text or (item.text if item and wanted.act == "forget" else ""),
        kind=wanted.kind,
        namespace=wanted.namespace,
        attribute=wanted.attribute,
        fact_kind=wanted.fact_kind,
        facts=wanted.facts,
        importance=wanted.importance,
    )
    proposed = proposals.propose(
        subject_id,
        act=wanted.act,
        new=new,
        item_id=item.id if item else None,
        expected_version=item.version if item else None,
        method=f"agent {asker.agent}"[:METHOD_CHARS_MAX],
        confidence=wanted.confidence,
        why=wanted.why,
        source=asker.source,
        accept=policies.for_agent(asker.agent).accept,
        actor=asker.actor,
    )
    kept = proposed.kept.item if proposed.kept else None
    return acts.Proposed(
        public_id("proposal", proposed.proposal.id) if proposed.proposal else "",
        proposed.outcome,
        public_id("item", kept.id) if kept else "",
        proposed.why,
    )


def _item_of(subject_id: UUID, item: str) -> shelf.ItemRow:
    _, words = directory.get(subject_id)
    return history.item(subject_id, item, words)


def _write_progress(wanted: acts.WriteProgress, asker: Asker) -> acts.Written:
    written = progress.write(
        wanted.key or asker.session,
        wanted.body or wanted.sections,
        expected_version=wanted.expected_version,
        agent=asker.agent,
        reason=wanted.reason,
        actor=asker.actor,
        source=asker.source,
    )
    return acts.Written(written.progress.key, written.progress.version)


_READS: dict[str, Callable[[Any, Asked | None, Asker], Any]] = {
    "context": _context,
    "recall": _recall,
    "read-progress": _read_progress,
    "prompt": _prompt,
}
_WRITES: dict[str, Callable[[Any, Asker], Any]] = {
    "session": _open,
    "say": _say,
    "undo": _undo,
    "remember": _remember,
    "forget": _forget,
    "propose": _propose,
    "write-progress": _write_progress,
}
