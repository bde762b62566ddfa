"""How an item changes: every change is a revision, an audit entry, and exact counts on the subject, or nothing is.

All of it needs the subject's row locked (subjects.locked): the counts that the cap depends on move with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.models import OuterRef, QuerySet, Subquery

from agentstate.audit import trail
from agentstate.core import likeness, tokens
from agentstate.core.clock import now
from agentstate.core.errors import Conflict
from agentstate.core.ids import public_id
from agentstate.db import locks
from agentstate.tenants.actors import Actor
from memory import facts, sealing, texts
from memory.facts import VERSION_FIRST, Doc
from memory.models import Item, ItemRevision, Subject
from memory.recall import units
from memory.sources import Source
from memory.states import ITEM_TRANSITIONS, ItemStatus

TABLE = "memory_itemrevision"
NO_SOURCE = Source()
STILL_KNOWN = frozenset({ItemStatus.ACTIVE, ItemStatus.OVER_CAP})
COUNTS = ("item_bytes", "pinned_bytes", "item_count")


@dataclass(frozen=True, slots=True)
class Content:
    """What an item says. `schema_version`: of the facts, as they stand here."""

    text: str
    facts: Doc | None = None
    schema_version: int = VERSION_FIRST

    @property
    def bytes(self) -> int:
        return len(self.text.encode()) + facts.size_of(self.facts)

    @property
    def tokens(self) -> int:
        return tokens.count(self.text)


@dataclass(frozen=True, slots=True)
class Held:
    """An item with its words."""

    item: Item
    content: Content

    @property
    def words(self) -> likeness.Words:
        return likeness.words(self.content.text)


def active(subject: Subject, key: bytes) -> list[Held]:
    """All active items of a subject, opened; oldest first. One statement. Index: memory_item_of_subject."""
    return opened(Item.objects.filter(subject_id=subject.id, status=ItemStatus.ACTIVE).order_by("id"), key)


def opened(found: QuerySet[Item], key: bytes) -> list[Held]:
    """Items of one subject with the words of their newest revisions. One statement. Raises: Corrupt."""
    newest = ItemRevision.objects.filter(item_id=OuterRef("id"), version=OuterRef("version"))
    rows = found.annotate(
        sealed_text=Subquery(newest.values("text")[:1]), sealed_facts=Subquery(newest.values("facts")[:1])
    )
    return [Held(item, unsealed(item, item.version, item.sealed_text, item.sealed_facts, key)) for item in rows]


def content_of(item: Item, key: bytes) -> Content:
    """The words of its newest revision. One statement. Raises: Corrupt."""
    revision = ItemRevision.objects.get(item_id=item.id, version=item.version)
    return unsealed(item, revision.version, revision.text, revision.facts, key, revision.schema_version)


def unsealed(
    item: Item,
    version: int,
    text: bytes | memoryview,
    stored: bytes | memoryview | None,
    key: bytes,
    schema_version: int | None = None,
) -> Content:
    """The content of one revision, its facts upgraded when that can be done. Raises: Corrupt."""
    place = f"{item.id}:{version}"
    doc = None if stored is None else sealing.open_json(key, TABLE, f"{place}:facts", stored)
    read = facts.read(item.fact_kind, item.schema_version if schema_version is None else schema_version, doc)
    return Content(sealing.open_text(key, TABLE, f"{place}:text", text), read.facts, read.version)


def begin(
    subject: Subject,
    item: Item,
    content: Content,
    *,
    key: bytes,
    actor: Actor,
    change: str,
    source: Source = NO_SOURCE,
    reason: str = "",
    merged_ids: Iterable[UUID] = (),
) -> None:
    """Write a new item with its first revision. The caller filled its fields; counts are saved by save_counts()."""
    item.bytes, item.tokens, item.schema_version = content.bytes, content.tokens, content.schema_version
    item.digest = digest_of(item.namespace, content.text)
    with locks.translated():
        item.save(force_insert=True)
    _write(item, content, key=key, actor=actor, change=change, source=source, reason=reason, merged_ids=merged_ids)
    count(subject, item, +1)
    trail.record(
        item, action=f"item.{change}", actor=actor, reason=reason, detail={"bytes": item.bytes, "subject": subject.id}
    )
    units.index_item(item, content.text)


def revise(
    subject: Subject,
    item: Item,
    content: Content,
    *,
    key: bytes,
    actor: Actor,
    change: str,
    fields: Mapping[str, Any] | None = None,
    source: Source = NO_SOURCE,
    reason: str = "",
    restored_from: int | None = None,
    merged_ids: Iterable[UUID] = (),
) -> None:
    """A new revision of an active item. `fields`: columns of the item that change with it."""
    count(subject, item, -1)
    same_words = digest_of(item.namespace, content.text) == bytes(item.digest)
    for name, value in {**(fields or {}), "version": item.version + 1, "updated_at": now()}.items():
        assert name in _MUTABLE, f"{name} of an item does not change"
        setattr(item, name, value)
    _set_content(item, content)
    item.save(update_fields=_MUTABLE)
    count(subject, item, +1)
    _write(
        item,
        content,
        key=key,
        actor=actor,
        change=change,
        source=source,
        reason=reason,
        restored_from=restored_from,
        merged_ids=merged_ids,
    )
    trail.record(item, action=f"item.{change}", actor=actor, reason=reason, detail=_numbers(item))
    _index(item, content, same_words=same_words)


def move(
    subject: Subject,
    item: Item,
    *,
    to: ItemStatus,
    key: bytes,
    actor: Actor,
    change: str = "",
    content: Content | None = None,
    source: Source = NO_SOURCE,
    reason: str = "",
    valid_to: datetime | None = None,
    superseded_by: UUID | None = None,
    expires_at: datetime | None = None,
    restored_from: int | None = None,
    merged_ids: Iterable[UUID] = (),
) -> None:
    """Move an item to another status, as a revision. `content`: other words than before, with the move to active.

    Raises: Conflict when its status does not allow that.
    """
    if to not in ITEM_TRANSITIONS[item.status]:
        raise Conflict(
            f"{public_id('item', item.id)} is {item.status}: it cannot become {to}. Look at it again.",
            status=item.status,
        )
    change = change or str(to)
    content = content or content_of(item, key)
    if item.status == ItemStatus.ACTIVE:
        count(subject, item, -1)
    same_words = digest_of(item.namespace, content.text) == bytes(item.digest)
    _set_content(item, content)
    at = now()
    fields = {
        "version": item.version + 1,
        "updated_at": at,
        "bytes": item.bytes,
        "tokens": item.tokens,
        "digest": item.digest,
        "schema_version": item.schema_version,
        "importance": item.importance,
        "valid_from": item.valid_from,
        "valid_to": valid_to,
        "known_to": None if to in STILL_KNOWN else at,
        "superseded_by": superseded_by,
        "expires_at": expires_at,
    }
    trail.transition(
        item, to=to, actor=actor, reason=reason, action=f"item.{change}", set=fields, detail=_numbers(item)
    )
    _write(
        item,
        content,
        key=key,
        actor=actor,
        change=change,
        source=source,
        reason=reason,
        restored_from=restored_from,
        merged_ids=merged_ids,
    )
    if to == ItemStatus.ACTIVE:
        count(subject, item, +1)
    _index(item, content, same_words=same_words)


def count(subject: Subject, item: Item, sign: int) -> None:
    """An active item comes to the subject (+1) or leaves it (-1)."""
    subject.item_bytes += sign * item.bytes
    subject.pinned_bytes += sign * item.bytes * item.pinned
    subject.item_count += sign


def save_counts(subject: Subject) -> None:
    subject.last_active_at = now()
    subject.save(update_fields=[*COUNTS, "last_active_at"])


def digest_of(namespace: str, text: str) -> bytes:
    """The same for the same words said again, in this namespace."""
    return sealing.digest("item", namespace, texts.normalised(text))


_MUTABLE = [
    *(
        "fact_kind",
        "importance",
        "pinned",
        "version",
        "bytes",
        "tokens",
        "digest",
        "schema_version",
        "valid_from",
        "valid_to",
    ),
    *("expires_at", "source_message_ids", "locked_by", "locked_name", "locked_until", "updated_at"),
]


def _set_content(item: Item, content: Content) -> None:
    item.bytes, item.tokens, item.schema_version = content.bytes, content.tokens, content.schema_version
    item.digest = digest_of(item.namespace, content.text)


def _index(item: Item, content: Content, *, same_words: bool) -> None:
    """Words that stay keep their vector."""
    if same_words:
        units.update_item(item)
    else:
        units.index_item(item, content.text)


def _numbers(item: Item) -> dict[str, Any]:
    return {"version": item.version, "bytes": item.bytes, "pinned": item.pinned}


def _write(
    item: Item,
    content: Content,
    *,
    key: bytes,
    actor: Actor,
    change: str,
    source: Source,
    reason: str,
    restored_from: int | None = None,
    merged_ids: Iterable[UUID] = (),
) -> None:
    place = f"{item.id}:{item.version}"
    revision = ItemRevision(
        item=item,
        version=item.version,
        subject_id=item.subject_id,
        change=change,
        text=sealing.seal_text(key, TABLE, f"{place}:text", content.text),
        facts=None if content.facts is None else sealing.seal_json(key, TABLE, f"{place}:facts", content.facts),
        reason=sealing.seal_text(key, TABLE, f"{place}:reason", reason) if reason else b"",
        status=item.status,
        pinned=item.pinned,
        importance=item.importance,
        valid_from=item.valid_from,
        valid_to=item.valid_to,
        schema_version=content.schema_version,
        tokens=content.tokens,
        restored_from=restored_from,
        merged_ids=list(merged_ids),
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        run_id=source.run_id,
        key=source.key,
        created_at=now(),
    )
    try:
        revision.save(force_insert=True)
    except IntegrityError as error:
        if "memory_itemrevision_key" not in str(error):
            raise
        raise Conflict("This idempotency key was used for another write. Send a new key.", key=source.key) from error
