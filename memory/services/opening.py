"""An item opened to be changed: under its locks, and checked against what the caller has seen of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from agentstate.core.errors import Conflict
from agentstate.core.ids import public_id
from agentstate.tenants.actors import Actor
from memory.models import Item, ItemRevision
from memory.services import cap, drafts, locking, revising, rights, subjects
from memory.services.cap import Evicted
from memory.services.revising import Content
from memory.states import ItemStatus

_NO_LOCK = {"locked_by": "", "locked_name": "", "locked_until": None}


class Opened:
    """An item under its locks, checked against what the caller has seen; on leaving, the subject's counts are saved."""

    def __init__(self, item_id: UUID, *, expected_version: int | None, reason: str, actor: Actor) -> None:
        rights.require_writing(actor)
        self.reason, self.actor = drafts.checked_reason(reason, actor), actor
        self.evicted: list[Evicted] = []
        self.subject, self.item = locking.both(item_id)
        self.key = subjects.key_of(self.subject)
        if expected_version is not None and expected_version != self.item.version:
            raise _changed(self.item, expected_version, self.key)
        locking.check_free(self.item, actor)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            revising.save_counts(self.subject)

    def check_active(self) -> None:
        """Raises: Conflict."""
        if self.item.status != ItemStatus.ACTIVE:
            raise Conflict(
                f"{public_id('item', self.item.id)} is {self.item.status}. Restore it first.", status=self.item.status
            )

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
