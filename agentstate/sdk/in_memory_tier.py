"""The memory of a MemoryStore: small, honest, gone with the process.

Recall is by shared words and a context is pinned items, what recall found and the last messages: enough to test what an
agent does with its memory, not how well the service searches. What is remembered or proposed goes through the service's
fence, and contradictions are found by its rules.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Any

from agentstate.core import canonical, clock, contradicting, ids, restating, tokens
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.limits import (
    ITEM_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PROGRESS_BYTES_MAX,
    SUBJECT_CAP_BYTES_MAX,
)
from agentstate.core.verdict import judged
from agentstate.sdk import in_memory_items, values
from agentstate.sdk import memory_acts as acts
from agentstate.sdk.in_memory_items import Item, Subject

CONTEXT_TOKENS = 8_000
CONTEXT_HITS = 10
_WORD = re.compile(r"\w+")


@dataclass(slots=True)
class Message:
    id: str
    seq: int
    role: str
    text: str
    author: str
    importance: str
    at: datetime
    undone: bool = False


@dataclass(slots=True)
class Session:
    id: str
    key: str
    subject: Subject
    version: int = 1
    messages: list[Message] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asker:
    """The step that asks: its run, the run's session, and its agent."""

    run: str
    session: str
    agent: str


class Tier:
    """Not thread-safe by itself: the store holds its lock around every act."""

    def __init__(self) -> None:
        self.subjects: list[Subject] = []
        self.sessions: dict[str, Session] = {}
        self.items: dict[str, Item] = {}
        self.proposals: dict[tuple[str, str, str, str], str] = {}  # subject, act, item and text -> id
        self.documents: dict[str, list[acts.Progress]] = {}
        self.prompts: dict[tuple[str, str], acts.Prompt] = {}
        self._given: defaultdict[str, dict[str, str]] = defaultdict(dict)  # run -> id@version -> text
        self._receipts: dict[str, tuple[bytes, Any]] = {}
        self._acts: dict[str, Callable[[Any, Asker], Any]] = {
            "session": self._open,
            "say": self._say,
            "undo": self._undo,
            "context": self._context,
            "recall": self._recall,
            "remember": self._remember,
            "forget": self._forget,
            "propose": self._propose,
            "read-progress": self._read_progress,
            "write-progress": self._write_progress,
            "prompt": self._prompt,
        }

    def answer(self, act: acts.Act, wanted: Any, *, asker: Asker, key: str) -> Any:
        """The reply as JSON. A write is done once under its key. Raises: what the service raises."""
        do = self._acts[act.name]
        if not act.writes:
            answer = do(wanted, asker)
            self._given[asker.run].update(_ours(answer))
            return values.settled(answer)
        said = canonical.dumps([act.name, values.plain(wanted)])
        known = self._receipts.get(key)
        if known is not None:
            if known[0] != said:
                raise Conflict("This idempotency key was used for another request.")
            return known[1]
        reply = values.settled(do(wanted, asker))
        self._receipts[key] = (said, reply)
        return values.settled(reply)

    # Sessions

    def _open(self, wanted: acts.OpenSession, asker: Asker) -> acts.SessionFacts:
        key = wanted.key or asker.session
        known = self.sessions.get(key)
        if not wanted.subject and not wanted.aliases and known is None:
            raise Invalid("A subject is found by your own id or by an alias: give one of them.", field="/subject")
        subject = known.subject if known else None
        if wanted.subject or wanted.aliases:
            subject = self._resolved(wanted.subject, wanted.aliases, wanted.name)
        assert subject is not None
        if known is not None and known.subject is not subject:
            raise Conflict(f"The session {key} is about {known.subject.id}. Use another key for another subject.")
        if known is None:
            known = self.sessions[key] = Session(_new("session"), key, subject)
        return acts.SessionFacts(known.id, key, subject.id, known.version)

    def _resolved(self, external_id: str, aliases: Mapping[str, str], name: str) -> Subject:
        pairs = {(kind, " ".join(value.casefold().split())) for kind, value in aliases.items()}
        found = [
            subject
            for subject in self.subjects
            if (external_id and external_id in (subject.external_id, subject.id)) or subject.aliases & pairs
        ]
        if len(found) > 1:
            raise Conflict("These names belong to several subjects.")
        if not found:
            if external_id.startswith("subject_"):
                raise NotFound("There is no such subject.")
            self.subjects.append(Subject(_new("subject"), external_id, name))
        subject = found[0] if found else self.subjects[-1]
        subject.external_id = subject.external_id or external_id
        subject.aliases |= pairs
        return subject

    def _say(self, wanted: acts.Say, asker: Asker) -> acts.Said:
        _check_text(wanted.text, MESSAGE_BYTES_MAX)
        session = self._session(wanted.session or asker.session)
        message = Message(
            _new("message"),
            len(session.messages) + 1,
            wanted.role,
            wanted.text,
            wanted.author,
            wanted.importance,
            clock.now(),
        )
        session.messages.append(message)
        return acts.Said(message.id, message.seq)

    def _undo(self, wanted: acts.Undo, asker: Asker) -> acts.Undone:
        session = self._session(wanted.session or asker.session)
        standing = _standing(session)
        if not 1 <= wanted.n <= len(standing):
            raise Invalid(f"{len(standing)} messages stand; {wanted.n} cannot be taken back.", field="/n")
        for message in standing[-wanted.n :]:
            message.undone = True
        session.version += 1
        return acts.Undone(session.id, session.version, wanted.n)

    def _session(self, key: str) -> Session:
        session = self.sessions.get(key)
        if session is None:
            raise NotFound(f"There is no session {key}. Open it first: st.memory.session(subject=...).")
        return session

    # Reads

    def _recall(self, wanted: acts.AskRecall, asker: Asker) -> acts.Recall:
        session = None if wanted.subject and not wanted.session else self._session(wanted.session or asker.session)
        subject = self._whose(wanted.subject, session)
        asked = _words(wanted.question)
        if not asked:
            raise Invalid("A question needs at least one word.", field="/question")
        found = [
            replace(hit, score=len(asked & _words(hit.text)) / len(asked))
            for hit in self._units(subject, session if wanted.only_session else None)
            if hit.kind in wanted.kinds and _is_within(hit, wanted)
        ]
        best = sorted((hit for hit in found if hit.score > 0), key=lambda hit: (hit.score, hit.at), reverse=True)
        return acts.Recall(tuple(best[: wanted.k]), "words")

    def _units(self, subject: Subject, only: Session | None) -> Iterator[acts.Hit]:
        for session in self.sessions.values():
            if session.subject is subject and only in (None, session):
                for said in _standing(session):
                    yield acts.Hit(
                        said.id, "message", said.text, 0.0, session_id=session.id, author=said.author, at=said.at
                    )
        if only is None:
            for item in self._active(subject):
                yield acts.Hit(item.id, "item", item.text, 0.0, version=item.version, at=item.at)

    def _context(self, wanted: acts.BuildContext, asker: Asker) -> acts.Context:
        session = self._session(wanted.session or asker.session)
        budget = CONTEXT_TOKENS if wanted.budget_tokens is None else wanted.budget_tokens
        offered = self._offered(session, wanted, asker)
        used, fitting = 0, set()
        for block in sorted(offered, key=_wanted_first):  # of the tail the newest first
            if used + block.tokens <= budget:
                used += block.tokens
                fitting.add(block.source_id)
        chosen = tuple(block for block in offered if block.source_id in fitting)
        left_out = tuple(
            acts.LeftOut(block.part, block.source_id, block.tokens, "over the budget")
            for block in offered
            if block.source_id not in fitting
        )
        text = "\n".join(block.text for block in chosen)
        return acts.Context(text, chosen, budget, used, left_out, wanted.question)

    def _offered(self, session: Session, wanted: acts.BuildContext, asker: Asker) -> list[acts.Block]:
        """In the order of the text."""
        items = self._active(session.subject)
        pinned = [_block("pinned", "item", item.id, item.text, item.version) for item in items if item.pinned]
        prompt = self.prompts.get((wanted.agent or asker.agent, "main"))
        prompts = [_block("prompt", "prompt", _new("prompt"), prompt.text, prompt.version)] if prompt else []
        asked = _words(wanted.question)
        free = [item for item in items if not item.pinned and asked & _words(item.text)]
        free.sort(key=lambda item: len(asked & _words(item.text)), reverse=True)
        recalled = [_block("recalled", "item", item.id, item.text, item.version) for item in free[:CONTEXT_HITS]]
        tail = [
            _block("tail", "message", message.id, f"{message.author or message.role}: {message.text}", 1)
            for message in _standing(session)
        ]
        document = self.documents.get(session.key, [])[-1:]
        progress = [_block("progress", "progress", _new("progress"), each.body, each.version) for each in document]
        return [*progress, *pinned, *recalled, *tail, *prompts]

    # Items

    def _remember(self, wanted: acts.Remember, asker: Asker) -> acts.Kept:
        _check_text(wanted.text, ITEM_BYTES_MAX)
        if wanted.facts and not wanted.fact_kind:
            raise Invalid("Facts need a fact_kind, which names their shape.", field="fact_kind")
        session = None if wanted.subject and not wanted.session else self._session(wanted.session or asker.session)
        subject = self._whose(wanted.subject, session)
        verdict = judged(wanted.text.strip(), self._known(subject, asker), subject.names, by_person=False)
        if not verdict.text:
            item_id = ids.public_id("item", verdict.restated_item) if verdict.restated_item else ""
            version = self.items[item_id].version if item_id else 0
            return acts.Kept(item_id, version, "duplicate" if item_id else "refused", refused=verdict.why)
        wanted = replace(wanted, text=verdict.text)
        held = self._active(subject)
        item = in_memory_items.same(held, wanted)
        if item is not None and not in_memory_items.brings_facts(item, wanted):
            return acts.Kept(item.id, item.version, "duplicate", refused=verdict.why)
        item, change = item or in_memory_items.near(held, wanted), "merged"
        if item is not None:
            in_memory_items.merge(item, wanted)
        else:
            item, change = self._new_item(subject, wanted), "created"
        evicted = tuple(self._evict(subject, keep=item))
        return acts.Kept(item.id, item.version, change, evicted, verdict.why, self._contradicted(item))

    def _contradicted(self, item: Item) -> tuple[str, ...]:
        """Items that may say otherwise. Of those that name the same, one is proposed to take the other's place."""
        found = in_memory_items.contradictions(item, self._active(item.subject))
        for other, why in found:
            if why in contradicting.FIRM:
                about = f"{item.id} says something else about the same ({why})."
                body = acts.Propose(item.text, "supersede", other.id, confidence=contradicting.SUPERSEDES, why=about)
                self._suggest(item.subject, body)
        return tuple(other.id for other, _ in found)

    def _known(self, subject: Subject, asker: Asker) -> list[restating.Clause]:
        """What a statement may only tell again: items, what the run was given, prompts."""
        items = {item.id: item.text for item in self._active(subject)}
        texts = [*items.items(), *self._given[asker.run].items()]
        prompts = [(f"prompt_{name}", prompt.text) for (_, name), prompt in self.prompts.items()]
        told = [restating.clauses(text, source=source, names=subject.names) for source, text in texts]
        told += [restating.clauses(text, source=source) for source, text in prompts]
        return list(chain.from_iterable(told))

    def _new_item(self, subject: Subject, wanted: acts.Remember) -> Item:
        item = Item(
            _new("item"),
            subject,
            wanted.text,
            wanted.namespace,
            wanted.kind,
            wanted.attribute,
            wanted.fact_kind,
            wanted.facts,
            wanted.importance,
            wanted.pinned,
            clock.now(),
        )
        self.items[item.id] = item
        return item

    def _evict(self, subject: Subject, *, keep: Item) -> Iterator[acts.Evicted]:
        active = self._active(subject)
        over = sum(item.bytes for item in active) - SUBJECT_CAP_BYTES_MAX
        for item in active:
            if over > 0 and not item.pinned and item is not keep:
                item.status = "over_cap"
                over -= item.bytes
                yield acts.Evicted(item.id, item.bytes)

    def _forget(self, wanted: acts.Forget, asker: Asker) -> acts.Forgotten:
        item = self._item(wanted.item)
        item.status = "forgotten"
        return acts.Forgotten(item.id, item.status)

    def _propose(self, wanted: acts.Propose, asker: Asker) -> acts.Proposed:
        session = None if wanted.subject else self._session(wanted.session or asker.session)
        subject = self._whose(wanted.subject, session)
        item = self._item(wanted.item, of=subject) if wanted.act != "add" else None
        if item is not None and wanted.act == "forget":
            wanted = replace(wanted, text=wanted.text or item.text)
        _check_text(wanted.text, ITEM_BYTES_MAX)
        if item is None:
            known = self._nothing_new(subject, wanted, asker)
            return known or self._suggest(subject, wanted)
        if item.status != "active":
            raise Conflict(f"{item.id} is {item.status}: nothing to change.", status=item.status)
        return self._suggest(subject, wanted)

    def _nothing_new(self, subject: Subject, wanted: acts.Propose, asker: Asker) -> acts.Proposed | None:
        """Why there is nothing to propose."""
        verdict = judged(wanted.text.strip(), self._known(subject, asker), subject.names, by_person=False)
        if not verdict.text:
            return acts.Proposed("", "known" if verdict.restated_item else "refused", why=verdict.why)
        item = in_memory_items.says_it(self._active(subject), wanted)
        return acts.Proposed("", "known", why=f"{item.id} says it") if item is not None else None

    def _suggest(self, subject: Subject, wanted: acts.Propose) -> acts.Proposed:
        """Once while it is pending, and nobody decides here."""
        same = (subject.id, wanted.act, wanted.item, in_memory_items.normal(wanted.text))
        if same in self.proposals:
            return acts.Proposed(self.proposals[same], "known", why="it is proposed already")
        self.proposals[same] = _new("proposal")
        return acts.Proposed(self.proposals[same], "proposed")

    def _item(self, item_id: str, *, of: Subject | None = None) -> Item:
        item = self.items.get(item_id)
        if item is None or of not in (None, item.subject):
            raise NotFound("There is no such item.")
        return item

    def _active(self, subject: Subject) -> list[Item]:
        return [item for item in self.items.values() if item.subject is subject and item.status == "active"]

    def _whose(self, subject: str, session: Session | None) -> Subject:
        if session is not None:
            return session.subject
        for known in self.subjects:
            if subject in (known.external_id, known.id):
                return known
        raise NotFound("There is no such subject.")

    # Documents

    def _read_progress(self, wanted: acts.ReadProgress, asker: Asker) -> acts.Progress:
        key = wanted.key or asker.session
        versions = self.documents.get(key)
        return versions[-1] if versions else acts.Progress(key, sections=dict.fromkeys(acts.SECTIONS, ""))

    def _write_progress(self, wanted: acts.WriteProgress, asker: Asker) -> acts.Written:
        key = wanted.key or asker.session
        sections = _sections(wanted.body) if wanted.body else _named(wanted.sections)
        body = "\n".join(f"## {heading}\n\n{sections[name]}\n" for name, heading in acts.SECTIONS.items())
        _check_text(body, PROGRESS_BYTES_MAX)
        versions = self.documents.setdefault(key, [])
        current = versions[-1].version if versions else 0
        if wanted.expected_version not in (None, current):
            raise Conflict(f"The progress document {key} is at version {current} by now.", version=current)
        versions.append(acts.Progress(key, current + 1, body, sections))
        return acts.Written(key, current + 1)

    def _prompt(self, wanted: acts.ReadPrompt, asker: Asker) -> acts.Prompt:
        return self.prompts.get((wanted.agent or asker.agent, wanted.name), acts.Prompt(wanted.name))


def _wanted_first(block: acts.Block) -> tuple[int, int]:
    """Ids grow with time, so of the tail the newest comes first."""
    rank = ("pinned", "prompt", "progress", "recalled", "tail").index(block.part)
    return rank, -int(block.source_id.rpartition("_")[2], 16) if block.part == "tail" else 0


def _block(part: str, source: str, source_id: str, text: str, version: int) -> acts.Block:
    return acts.Block(part, source, source_id, version, text, tokens.count(text))


def _ours(answer: acts.Reply) -> Iterator[tuple[str, str]]:
    """Texts of memory in an answer: told again, they are no news."""
    if isinstance(answer, acts.Recall):
        yield from ((f"{hit.id}@{hit.version}", hit.text) for hit in answer.hits if hit.kind == "item")
    elif isinstance(answer, acts.Context):
        blocks = [block for block in answer.blocks if block.source in ("item", "progress")]
        yield from ((f"{block.source_id}@{block.version}", block.text) for block in blocks)
    elif isinstance(answer, acts.Progress) and answer.version:
        yield f"progress_{answer.key}@{answer.version}", answer.body


def _standing(session: Session) -> list[Message]:
    return [message for message in session.messages if not message.undone]


def _is_within(hit: acts.Hit, wanted: acts.AskRecall) -> bool:
    assert hit.at is not None
    return (wanted.after is None or hit.at >= wanted.after) and (wanted.before is None or hit.at < wanted.before)


def _sections(body: str) -> dict[str, str]:
    before, *parts = re.split(r"^#{1,2} +(.+?) *$", body, flags=re.MULTILINE)
    if before.strip():
        raise Invalid("There is text before the first heading.", field="/body")
    return _named(dict(zip(parts[::2], parts[1::2], strict=True)))


def _named(given: Mapping[str, str]) -> dict[str, str]:
    """By field name or heading. Raises: Invalid."""
    fields = {heading.casefold(): name for name, heading in acts.SECTIONS.items()}
    found = dict.fromkeys(acts.SECTIONS, "")
    for name, text in given.items():
        known = fields.get(name.replace("_", " ").casefold())
        if known is None:
            raise Invalid(f"There is no section {name[:80]!r}; use {', '.join(acts.SECTIONS)}.", field="/sections")
        found[known] = text.strip()
    return found


def _check_text(text: str, bytes_max: int) -> None:
    if not text.strip():
        raise Invalid("There is no text here.", field="/text")
    if len(text.encode()) > bytes_max:
        raise Invalid(f"The text is {len(text.encode()):,} bytes, at most {bytes_max:,} are kept.", field="/text")


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _new(prefix: str) -> str:
    return ids.public_id(prefix, ids.new_id())
