"""Items: single statements about a subject, each remembered once, and never more than the cap.

The write is one transaction under the subject's row lock: what is written, what leaves recall because of it, the
counts, the unit of recall and the audit entry stand together or not at all. What is done with an item that is there
stands in editing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agentstate.core import contradicting, likeness
from agentstate.core.clock import now
from agentstate.core.errors import Conflict
from agentstate.core.ids import new_id, public_id
from agentstate.core.limits import ITEM_SOURCES_MAX
from agentstate.core.verdict import Verdict
from agentstate.tenants.actors import Actor
from memory import policies
from memory.models import Item, ItemRevision, Subject
from memory.recall import units
from memory.services import cap, drafts, fence, hints, revising, rights, subjects, suggesting
from memory.services.cap import Evicted
from memory.services.drafts import NewItem
from memory.services.hints import Hint
from memory.services.revising import Content, Held
from memory.sources import Source

NO_SOURCE = Source()


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a write. `change`: created, merged, duplicate (nothing was written), refused (by the fence).

    `refused` says which sentences were not stored, and why; they may be a part of what was to be remembered.
    """

    item: Item | None
    change: str
    evicted: list[Evicted] = field(default_factory=list)
    refused: str = ""
    contradicts: list[Hint] = field(default_factory=list)


def remember(subject_id: UUID, new: NewItem, *, actor: Actor, source: Source = NO_SOURCE, reason: str = "") -> Kept:
    """Keep a statement, unless it is known: the same again is nothing new, nearly the same is a revision of the known.

    A machine's text goes through the feedback fence first. Idempotent by source.key.
    Raises: Forbidden; Invalid naming the field, also when it does not fit beside what is pinned; TooLarge; NotFound;
    Conflict when the subject is being erased. Locks: the subject.
    """
    rights.require_writing(actor)
    new, content = drafts.checked(new)
    source = drafts.checked_source(source)
    reason = drafts.checked_reason(reason or ("added by hand" if actor.kind == "user" else ""), actor)
    subject = subjects.locked(subject_id)
    done = _written(subject, source)
    if done is not None:
        return done
    key = subjects.key_of(subject)
    held = revising.active(subject, key)
    said = fence.spoken(subject, source)
    refused = ""
    if actor.kind != "user":
        verdict = fence.judge(subject, content.text, held=held, source=source, said=said, key=key)
        if not verdict.text:
            return _restated(verdict, held)
        content, refused = Content(verdict.text, content.facts, content.schema_version), verdict.why
    writer = _Writer(subject, key, actor, source, reason)
    same = _same(held, new, content)
    if same is not None and not _brings_facts(same, new, content):
        return writer.said_again(same, again=said.by_person or actor.kind == "user", refused=refused)
    near = same or _near(held, new, content)
    if near is not None:
        return writer.merge(near, new, content, held, refused=refused)
    return writer.create(new, content, held, refused=refused)


@dataclass(slots=True)
class _Writer:
    """A write about one subject whose row is locked."""

    subject: Subject
    key: bytes
    actor: Actor
    source: Source
    reason: str

    def said_again(self, same: Held, *, again: bool, refused: str) -> Kept:
        """Nothing is written, but what a person says again lives longer."""
        if again and not same.item.pinned:
            same.item.expires_at = drafts.expiry(policies.for_tenant())
            same.item.save(update_fields=["expires_at"])
            units.update_item(same.item)
        return Kept(same.item, "duplicate", refused=refused)

    def merge(self, near: Held, new: NewItem, content: Content, held: Sequence[Held], *, refused: str) -> Kept:
        """A revision of the known item: the longer words, the newer facts, the greater importance."""
        item = near.item
        longer = max((near.content.text, content.text), key=lambda text: len(likeness.words(text).terms))
        has_facts = content.facts is not None
        found = content if has_facts else near.content
        merged = Content(longer, found.facts, found.schema_version)
        known = [each for each in item.source_message_ids if each not in self.source.message_ids]
        fields: dict[str, Any] = {
            "fact_kind": new.fact_kind if has_facts else item.fact_kind,
            "importance": max(item.importance, new.importance),
            "source_message_ids": [*known, *self.source.message_ids][-ITEM_SOURCES_MAX:],
            "expires_at": None if item.pinned else drafts.expiry(policies.for_tenant()),
        }
        revising.revise(
            self.subject,
            item,
            merged,
            key=self.key,
            actor=self.actor,
            change="merged",
            fields=fields,
            source=self.source,
            reason=self.reason,
            merged_ids=self.source.message_ids,
        )
        return self._kept(item, "merged", merged, held, refused=refused)

    def create(self, new: NewItem, content: Content, held: Sequence[Held], *, refused: str) -> Kept:
        at = now()
        item = Item(
            id=new_id(),
            subject=self.subject,
            kind=new.kind,
            namespace=new.namespace,
            fact_kind=new.fact_kind,
            attribute=drafts.attribute_digest(new),
            pinned=new.pinned,
            importance=new.importance,
            valid_from=new.valid_from or at,
            valid_to=new.valid_to,
            known_from=at,
            expires_at=None if new.pinned else new.expires_at or drafts.expiry(policies.for_tenant()),
            source_run_id=self.source.run_id,
            source_step_seq=self.source.step_seq,
            source_message_ids=list(self.source.message_ids),
            created_at=at,
            updated_at=at,
        )
        revising.begin(
            self.subject,
            item,
            content,
            key=self.key,
            actor=self.actor,
            change="created",
            source=self.source,
            reason=self.reason,
        )
        return self._kept(item, "created", content, held, refused=refused)

    def _kept(self, item: Item, change: str, content: Content, held: Sequence[Held], *, refused: str) -> Kept:
        evicted = cap.enforce(self.subject, key=self.key, actor=self.actor, keep=item)
        revising.save_counts(self.subject)
        gone = {each.item_id for each in evicted}
        found = hints.against(item, content, [each for each in held if each.item.id not in gone])
        for hint in found:
            if hint.is_firm:
                self._propose_to_supersede(hint, item, content)
        return Kept(item, change, evicted, refused, found)

    def _propose_to_supersede(self, hint: Hint, item: Item, content: Content) -> None:
        suggesting.suggest(
            self.subject,
            act="supersede",
            new=NewItem(
                content.text, kind=item.kind, namespace=item.namespace, fact_kind=item.fact_kind, facts=content.facts
            ),
            key=self.key,
            actor=self.actor,
            confidence=contradicting.SUPERSEDES,
            item_id=hint.item_id,
            expected_version=hint.version,
            source=self.source,
            why=f"{public_id('item', item.id)} says something else about the same ({hint.why}).",
        )


def _written(subject: Subject, source: Source) -> Kept | None:
    """What this key wrote before. Raises: Conflict when that was about somebody else."""
    if source.key is None:
        return None
    revision = ItemRevision.objects.filter(key=source.key).first()
    if revision is None:
        return None
    if revision.subject_id != subject.id:
        raise Conflict("This idempotency key was used for another subject. Send a new key.", key=source.key)
    return Kept(Item.objects.get(id=revision.item_id), revision.change)


def _restated(verdict: Verdict, held: Sequence[Held]) -> Kept:
    known = {each.item.id: each.item for each in held}
    item = known.get(verdict.restated_item) if verdict.restated_item else None
    return Kept(item, "refused" if item is None else "duplicate", refused=verdict.why)


def _same(held: Sequence[Held], new: NewItem, content: Content) -> Held | None:
    digest = revising.digest_of(new.namespace, content.text)
    return next(
        (each for each in held if each.item.namespace == new.namespace and bytes(each.item.digest) == digest), None
    )


def _brings_facts(known: Held, new: NewItem, content: Content) -> bool:
    """The same words, now with facts, or with other ones of the same kind."""
    if content.facts is None or content.facts == known.content.facts:
        return False
    return known.item.fact_kind in ("", new.fact_kind)


def _near(held: Sequence[Held], new: NewItem, content: Content) -> Held | None:
    """The item that nearly says it, the longest first. With another attribute or facts it is another statement."""
    said = likeness.words(content.text)
    found = [
        each
        for each in held
        if each.item.namespace == new.namespace and _is_one(each, new, content) and likeness.is_near(said, each.words)
    ]
    return max(found, key=lambda each: (len(each.words.terms), each.item.id), default=None)


def _is_one(known: Held, new: NewItem, content: Content) -> bool:
    attribute = drafts.attribute_digest(new)
    if attribute is not None and known.item.attribute is not None and bytes(known.item.attribute) != attribute:
        return False
    if known.item.kind != new.kind or content.facts is None or known.content.facts is None:
        return known.item.kind == new.kind
    return known.item.fact_kind == new.fact_kind and known.content.facts == content.facts
