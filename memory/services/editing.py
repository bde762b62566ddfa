"""What is done with an item that is there: edit, restore, pin, unpin, forget, supersede.

Every verb is one transaction under the locks of subject and item, and one revision. A verb that finds nothing to change
writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import ITEM_BYTES_MAX
from agentstate.tenants.actors import Actor
from memory import facts, policies, texts
from memory.models import Item, ItemRevision
from memory.services import drafts, revising
from memory.services.cap import Evicted
from memory.services.drafts import ItemChanges
from memory.services.opening import Opened
from memory.services.revising import Content, Held
from memory.states import ItemStatus


@dataclass(frozen=True, slots=True)
class Edited:
    """The item with its words, and what left recall because of them."""

    held: Held
    evicted: list[Evicted] = field(default_factory=list)


def edit(item_id: UUID, *, expected_version: int, changes: ItemChanges, reason: str, actor: Actor) -> Item:
    """Change an active item. Without a difference nothing is written.

    Raises: Conflict with `version`, `base` and `theirs` when it changed since, or with who is editing it; Invalid;
    TooLarge; NotFound; Forbidden. Locks: the subject, the item.
    """
    return edited(item_id, expected_version=expected_version, changes=changes, reason=reason, actor=actor).held.item


def edited(item_id: UUID, *, expected_version: int, changes: ItemChanges, reason: str, actor: Actor) -> Edited:
    """As edit(), with what left recall because of it."""
    with Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        item = opened.item
        opened.check_active()
        before = opened.content()
        content, fields = _changed(item, before, changes)
        if content == before and all(getattr(item, name) == value for name, value in fields.items()):
            return Edited(Held(item, before))
        opened.check_said_once(content)
        opened.revise(content, change="edited", fields=fields)
        opened.enforce_cap()
    return Edited(Held(item, content), opened.evicted)


def restore(item_id: UUID, *, version: int, expected_version: int | None = None, reason: str, actor: Actor) -> Item:
    """Give an item the words it had in `version`, as a new revision; one that had left recall is active again.

    Its pin stays as it is. Raises: as edit(); Conflict when an active item says the same already.
    """
    with Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
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
    with Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        if opened.item.status != ItemStatus.FORGOTTEN:
            opened.move(ItemStatus.FORGOTTEN, valid_to=opened.item.valid_to)
    return opened.item


def supersede(item_id: UUID, *, by: Item, expected_version: int, reason: str, actor: Actor) -> Item:
    """`by` says what is true now: this one was true until then, and leaves recall. Undone by restore().

    Only an accepted proposal does this. Raises: as edit().
    """
    with Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        ended = max(by.valid_from, opened.item.valid_from)
        until = ended if opened.item.valid_to is None else min(opened.item.valid_to, ended)
        opened.move(ItemStatus.SUPERSEDED, valid_to=until, superseded_by=by.id)
    return opened.item


def _changed(item: Item, before: Content, changes: ItemChanges) -> tuple[Content, dict[str, Any]]:
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
    with Opened(item_id, expected_version=expected_version, reason=reason, actor=actor) as opened:
        item = opened.item
        opened.check_active()
        if item.pinned != pinned:
            expires_at = None if pinned else drafts.expiry(policies.for_tenant())
            opened.revise(
                opened.content(),
                change="pinned" if pinned else "unpinned",
                fields={"pinned": pinned, "expires_at": expires_at},
            )
            opened.enforce_cap()
    return item
