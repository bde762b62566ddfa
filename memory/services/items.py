"""Items: single statements about a subject, remembered once, changed in revisions, and never more than the cap.

Every verb is one transaction under the subject's row lock: what is written, what leaves recall because of it, the
counts, the unit of recall and the audit entry stand together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db import transaction

from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import new_id, public_id
from agentstate.core.limits import ITEM_BYTES_MAX, ITEM_LOCK_S_MAX, ITEM_SOURCES_MAX
from agentstate.db import locks
from agentstate.tenants.actors import Actor
from memory import facts, likeness, policies, texts
from memory.models import Item, ItemRevision, Subject
from memory.recall import units
from memory.services import cap, drafts, fence, hints, revising, rights, subjects, suggesting
from memory.services.cap import Evicted
from memory.services.drafts import UNSET, ItemChanges, NewItem, Unset
from memory.services.hints import Hint
from memory.services.revising import Content, Held
from memory.sources import Source
from memory.states import ItemStatus

__all__ = ["UNSET", "Evicted", "Hint", "ItemChanges", "Kept", "NewItem", "Rehearsal", "Source", "Unset"]

NO_SOURCE = Source()
SUPERSEDES = 0.6  # confidence of a proposal that only says: both are about the same
Seen = TypeVar("Seen")


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


@dataclass(frozen=True, slots=True)
class Rehearsal(Generic[Seen]):
    """What a change would do; nothing of it was done."""

    evicted: list[Evicted]
    bytes_after: int  # of the subject's active items
    cap_bytes: int
    tokens_after: int  # of the item
    contradicts: list[Hint]
    seen: Seen | None = None  # what the caller's look found while the change was in force


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


def edit(item_id: UUID, *, expected_version: int, changes: ItemChanges, reason: str, actor: Actor) -> Item:
    """Change an active item. Without a difference nothing is written.

    Raises: Conflict with `version`, `base` and `theirs` when it changed since, or with who is editing it; Invalid;
    TooLarge; NotFound; Forbidden. Locks: the subject, the item.
    """
    edited, _ = _edit(item_id, expected_version=expected_version, changes=changes, reason=reason, actor=actor)
    return edited.item


def rehearse_edit(
    item_id: UUID,
    *,
    expected_version: int,
    changes: ItemChanges,
    actor: Actor,
    look: Callable[[], Seen] | None = None,
) -> Rehearsal[Seen]:
    """The edit itself, taken back: what the cap would evict, and what would contradict it.

    `look` is called while the edit is in force: what recall would find then. Raises: as edit().
    """
    return _rehearsed(
        lambda: _edit(item_id, expected_version=expected_version, changes=changes, reason="rehearsed", actor=actor),
        look,
    )


def rehearse_new(
    subject_id: UUID, new: NewItem, *, actor: Actor, look: Callable[[], Seen] | None = None
) -> Rehearsal[Seen]:
    """As rehearse_edit(), for an item that is not there yet."""

    def act() -> tuple[Held, list[Evicted]]:
        kept = remember(subject_id, new, actor=actor)
        if kept.item is None:
            raise Invalid(f"This would not be stored: {kept.refused}.", field="text")
        subject = subjects.get(subject_id)
        return Held(kept.item, revising.content_of(kept.item, subjects.key_of(subject))), kept.evicted

    return _rehearsed(act, look)


def restore(item_id: UUID, *, version: int, expected_version: int | None = None, reason: str, actor: Actor) -> Item:
    """Give an item the words it had in `version`, as a new revision; one that had left recall is active again.

    Its pin stays as it is. Raises: as edit(); Conflict when an active item says the same already.
    """
    with _Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        item = opened.item
        former = ItemRevision.objects.filter(item_id=item.id, version=version).first()
        if former is None:
            raise NotFound(f"{public_id('item', item.id)} has no version {version}.")
        content = revising.unsealed(item, version, former.text, former.facts, opened.key, former.schema_version)
        opened.check_said_once(content)
        fields: dict[str, Any] = {
            "importance": former.importance,
            "valid_from": former.valid_from,
            "valid_to": former.valid_to,
        }
        if item.status == ItemStatus.ACTIVE:
            opened.revise(content, change="restored", fields=fields, restored_from=version)
        else:
            item.importance, item.valid_from = former.importance, former.valid_from
            opened.move(
                ItemStatus.ACTIVE,
                change="restored",
                content=content,
                valid_to=former.valid_to,
                expires_at=None if item.pinned else drafts.expiry(policies.for_tenant()),
                restored_from=version,
            )
        opened.enforce_cap()
    return item


def pin(item_id: UUID, *, expected_version: int | None = None, reason: str, actor: Actor) -> Item:
    """Keep it in every context, and never let it expire or leave. Idempotent. Raises: as edit(); Invalid when what is
    pinned would be larger than the cap.
    """
    return _set_pinned(item_id, True, expected_version=expected_version, reason=reason, actor=actor)


def unpin(item_id: UUID, *, expected_version: int | None = None, reason: str, actor: Actor) -> Item:
    """It may leave again, and expires after the tenant's number of days from now. Idempotent. Raises: as edit()."""
    return _set_pinned(item_id, False, expected_version=expected_version, reason=reason, actor=actor)


def forget(item_id: UUID, *, expected_version: int | None = None, reason: str, actor: Actor) -> Item:
    """Take it out of recall; its revisions stay, so that it can be restored. Idempotent. Raises: as edit()."""
    with _Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        if opened.item.status != ItemStatus.FORGOTTEN:
            opened.move(ItemStatus.FORGOTTEN, valid_to=opened.item.valid_to)
    return opened.item


def lock(item_id: UUID, *, actor: Actor, seconds: int = ITEM_LOCK_S_MAX) -> Item:
    """Tell others that you are editing it. Again by the same actor: renewed. It ends by itself.

    Raises: Conflict naming who holds it until when; Invalid; NotFound; Forbidden.
    """
    rights.require_writing(actor)
    if not 0 < seconds <= ITEM_LOCK_S_MAX:
        raise Invalid(f"An item is locked for 1 to {ITEM_LOCK_S_MAX} seconds.", field="seconds")
    _, item = _locked(item_id)
    _check_free(item, actor)
    item.locked_by, item.locked_name = actor.id, actor.name
    item.locked_until = now() + timedelta(seconds=seconds)
    item.save(update_fields=_LOCK)
    return item


def unlock(item_id: UUID, *, actor: Actor) -> Item:
    """Idempotent. Raises: Conflict while somebody else holds it."""
    rights.require_writing(actor)
    _, item = _locked(item_id)
    _check_free(item, actor)
    item.locked_by, item.locked_name, item.locked_until = "", "", None
    item.save(update_fields=_LOCK)
    return item


def supersede(item_id: UUID, *, by: Item, expected_version: int, reason: str, actor: Actor) -> Item:
    """`by` says what is true now: this one was true until then, and leaves recall. Undone by restore().

    Only an accepted proposal does this. Raises: as edit().
    """
    with _Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        ended = max(by.valid_from, opened.item.valid_from)
        until = ended if opened.item.valid_to is None else min(opened.item.valid_to, ended)
        opened.move(ItemStatus.SUPERSEDED, valid_to=until, superseded_by=by.id)
    return opened.item


def contradicting(item: Item, content: Content, held: Sequence[Held]) -> list[Hint]:
    """Which of these active items may say otherwise than this one. A hint to people; nothing follows from it."""
    return hints.contradictions(
        content,
        fact_kind=item.fact_kind,
        attribute=None if item.attribute is None else bytes(item.attribute),
        namespace=item.namespace,
        held=[each for each in held if each.item.id != item.id],
    )


_LOCK = ["locked_by", "locked_name", "locked_until"]
_NO_LOCK = {"locked_by": "", "locked_name": "", "locked_until": None}


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
        found = contradicting(item, content, [each for each in held if each.item.id not in gone])
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
            confidence=SUPERSEDES,
            item_id=hint.item_id,
            expected_version=hint.version,
            source=self.source,
            why=f"{public_id('item', item.id)} says something else about the same ({hint.why}).",
        )


class _Opened:
    """An item under its locks, checked against what the caller has seen; on leaving, the subject's counts are saved."""

    def __init__(self, item_id: UUID, *, expected_version: int | None, reason: str, actor: Actor) -> None:
        rights.require_writing(actor)
        self.reason, self.actor = drafts.checked_reason(reason, actor), actor
        self.evicted: list[Evicted] = []
        self.subject, self.item = _locked(item_id)
        self.key = subjects.key_of(self.subject)
        if expected_version is not None and expected_version != self.item.version:
            raise _changed(self.item, expected_version, self.key)
        _check_free(self.item, actor)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            revising.save_counts(self.subject)

    def content(self) -> Content:
        return revising.content_of(self.item, self.key)

    def revise(self, content: Content, *, change: str, fields: Mapping[str, Any], **how: Any) -> None:
        revising.revise(
            self.subject,
            self.item,
            content,
            key=self.key,
            actor=self.actor,
            change=change,
            fields={**fields, **_NO_LOCK},
            reason=self.reason,
            **how,
        )

    def move(self, to: ItemStatus, **how: Any) -> None:
        revising.move(self.subject, self.item, to=to, key=self.key, actor=self.actor, reason=self.reason, **how)

    def enforce_cap(self) -> None:
        self.evicted = cap.enforce(self.subject, key=self.key, actor=self.actor, keep=self.item)

    def check_said_once(self, content: Content) -> None:
        """Raises: Conflict when another active item says exactly this."""
        digest = revising.digest_of(self.item.namespace, content.text)
        same = Item.objects.filter(
            subject_id=self.subject.id, namespace=self.item.namespace, digest=digest, status=ItemStatus.ACTIVE
        ).exclude(id=self.item.id)
        other = same.first()
        if other is not None:
            raise Conflict(
                f"{public_id('item', other.id)} says the same already. Edit or forget that one.",
                item=public_id("item", other.id),
            )


def _edit(
    item_id: UUID, *, expected_version: int, changes: ItemChanges, reason: str, actor: Actor
) -> tuple[Held, list[Evicted]]:
    with _Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        item = opened.item
        if item.status != ItemStatus.ACTIVE:
            raise Conflict(f"{public_id('item', item.id)} is {item.status}. Restore it first.", status=item.status)
        before = opened.content()
        content, fields = _edited(item, before, changes)
        if content == before and all(getattr(item, name) == value for name, value in fields.items()):
            return Held(item, before), []
        opened.check_said_once(content)
        opened.revise(content, change="edited", fields=fields)
        opened.enforce_cap()
    return Held(item, content), opened.evicted


def _edited(item: Item, before: Content, changes: ItemChanges) -> tuple[Content, dict[str, Any]]:
    """What the item would say, and the columns that change. Raises: Invalid, TooLarge."""
    given = changes.given()
    text = before.text
    if "text" in given:
        text = texts.clean(given.pop("text"), field="text", bytes_max=ITEM_BYTES_MAX).strip()
    content = Content(text, before.facts, before.schema_version)
    if "facts" in given:
        content = Content(text, *_changed_facts(item, before, given.pop("facts")))
    if "importance" in given:
        given["importance"] = drafts.number_in_unit(given["importance"], field="importance")
    if "expires_at" in given:
        if item.pinned and given["expires_at"] is not None:
            raise Invalid("A pinned item does not expire. Unpin it first.", field="expires_at")
        if not item.pinned and given["expires_at"] is None:
            given["expires_at"] = drafts.expiry(policies.for_tenant())
    for name in ("valid_from", "valid_to", "expires_at"):
        if name in given:
            given[name] = drafts.instant(given[name], field=name)
    if given.get("valid_from", item.valid_from) is None:
        raise Invalid("valid_from is a time: since when it is true.", field="valid_from")
    drafts.check_times(
        valid_from=given.get("valid_from", item.valid_from),
        valid_to=given.get("valid_to", item.valid_to),
        expires_at=given.get("expires_at"),
    )
    return content, given


def _changed_facts(item: Item, before: Content, given: Mapping[str, Any] | None) -> tuple[facts.Doc | None, int]:
    if before.schema_version > facts.current_version(item.fact_kind):
        raise Conflict(
            f"Newer code wrote these facts (version {before.schema_version} of {item.fact_kind}): edit them with that."
        )
    found = facts.validated(item.fact_kind, given)
    return found, facts.current_version(item.fact_kind) if item.fact_kind else before.schema_version


def _set_pinned(item_id: UUID, pinned: bool, *, expected_version: int | None, reason: str, actor: Actor) -> Item:
    with _Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        item = opened.item
        if item.status != ItemStatus.ACTIVE:
            raise Conflict(f"{public_id('item', item.id)} is {item.status}. Restore it first.", status=item.status)
        if item.pinned != pinned:
            expires_at = None if pinned else drafts.expiry(policies.for_tenant())
            opened.revise(
                opened.content(),
                change="pinned" if pinned else "unpinned",
                fields={"pinned": pinned, "expires_at": expires_at},
            )
            opened.enforce_cap()
    return item


def _rehearsed(act: Callable[[], tuple[Held, list[Evicted]]], look: Callable[[], Seen] | None) -> Rehearsal[Seen]:
    with transaction.atomic():
        held, evicted = act()
        subject = subjects.get(held.item.subject_id)
        gone = {each.item_id for each in evicted}
        others = [each for each in revising.active(subject, subjects.key_of(subject)) if each.item.id not in gone]
        found: Rehearsal[Seen] = Rehearsal(
            evicted=evicted,
            bytes_after=subject.item_bytes,
            cap_bytes=cap.of(subject),
            tokens_after=held.content.tokens,
            contradicts=contradicting(held.item, held.content, others),
            seen=None if look is None else look(),
        )
        transaction.set_rollback(True)
    return found


def _locked(item_id: UUID) -> tuple[Subject, Item]:
    """Subject, then item. Raises: NotFound, Conflict, LockTimeout."""
    subject_id = Item.objects.filter(id=item_id).values_list("subject_id", flat=True).first()
    if subject_id is None:
        raise NotFound("There is no such item.")
    subject = subjects.locked(subject_id)
    try:
        (item,) = locks.lock_in_order(Item(id=item_id))
    except Item.DoesNotExist:
        raise NotFound("There is no such item.") from None
    return subject, item


def _check_free(item: Item, actor: Actor) -> None:
    held = item.locked_by and item.locked_until is not None and item.locked_until > now()
    if held and item.locked_by != actor.id and actor.kind != "system":
        assert item.locked_until is not None
        raise Conflict(
            f"{item.locked_name} is editing {public_id('item', item.id)} until {item.locked_until:%H:%M:%S} UTC.",
            locked_by=item.locked_name,
            locked_until=item.locked_until.isoformat(),
            version=item.version,
        )


def _changed(item: Item, expected_version: int, key: bytes) -> Conflict:
    """What the caller saw, and what stands there now: enough to put three versions beside each other."""
    found = {
        revision.version: revision
        for revision in ItemRevision.objects.filter(item_id=item.id, version__in=(expected_version, item.version))
    }
    theirs = found[item.version]
    return Conflict(
        f"{public_id('item', item.id)} is at version {item.version} by now, not {expected_version}:"
        f" {theirs.actor_name} changed it ({theirs.change}).",
        version=item.version,
        status=item.status,
        base=_told(item, found.get(expected_version), key),
        theirs=_told(item, theirs, key),
    )


def _told(item: Item, revision: ItemRevision | None, key: bytes) -> dict[str, Any] | None:
    if revision is None:
        return None
    content = revising.unsealed(item, revision.version, revision.text, revision.facts, key, revision.schema_version)
    return {
        "version": revision.version,
        "text": content.text,
        "facts": content.facts,
        "importance": revision.importance,
        "by": revision.actor_name,
        "at": revision.created_at.isoformat(),
    }


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


def _restated(verdict: fence.Verdict, held: Sequence[Held]) -> Kept:
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
