"""The items of a subject as its pages list them: pinned first, then the newest, each with the words of its version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import OuterRef, Subquery

from agentstate.core.ids import public_id
from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory import facts
from memory.models import Item, ItemRevision
from memory.selectors.opening import Words
from memory.states import ItemStatus

KINDS = ("semantic", "episodic", "procedural")
STATES = {"": "in use", "pinned": "pinned", **{str(status): str(status).replace("_", " ") for status in ItemStatus}}
STATES.pop(ItemStatus.ACTIVE)
STATES["any"] = "any status"


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """What the address asks for. Unknown values are dropped, so that an old link still opens."""

    kind: str = ""
    namespace: str = ""
    state: str = ""

    @property
    def active(self) -> bool:
        return bool(self.kind or self.namespace or self.state)


@dataclass(frozen=True, slots=True)
class ItemRow:
    id: UUID
    subject_id: UUID
    text: str
    facts: Any
    kind: str
    namespace: str
    fact_kind: str
    facts_problem: str  # why its facts are shown as they were stored
    status: str
    pinned: bool
    importance: float
    version: int
    bytes: int
    tokens: int
    origin: str
    valid_from: datetime
    valid_to: datetime | None
    expires_at: datetime | None
    superseded_by: UUID | None
    source_run_id: UUID | None
    source_step_seq: int | None
    source_message_ids: list[UUID]
    locked_by: str
    locked_name: str
    locked_until: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("item", self.id)

    @property
    def in_recall(self) -> bool:
        return self.status == ItemStatus.ACTIVE


@dataclass(frozen=True, slots=True)
class Items:
    rows: list[ItemRow]
    after: str


def read_filter(query: Mapping[str, str]) -> ItemFilter:
    kind, state = query.get("kind", ""), query.get("state", "")
    return ItemFilter(
        kind=kind if kind in KINDS else "",
        namespace=query.get("namespace", "").strip()[:NAME_CHARS_MAX].replace("\0", ""),
        state=state if state in STATES else "",
    )


def page(subject_id: UUID, wanted: ItemFilter, words: Words, *, after: str = "", rows_max: int = 50) -> Items:
    """One read. Index: memory_item_of_subject. Raises: Invalid(field="after")."""
    found = narrowed(with_words().filter(subject_id=subject_id), wanted)
    scope = f"{current_tenant()}:{subject_id}:items:{wanted}"
    order = ("-pinned", "-updated_at", "-id")
    rows = cursors.page(found, order=order, after=after, scope=scope, rows_max=rows_max)
    return Items([row_of(item, words) for item in rows.rows], rows.after)


def some(subject_id: UUID, item_ids: list[UUID], words: Words) -> dict[UUID, ItemRow]:
    """These items of a subject, by id. One read."""
    found = with_words().filter(subject_id=subject_id, id__in=item_ids)
    return {item.id: row_of(item, words) for item in found}


def with_words() -> Any:
    newest = ItemRevision.objects.filter(item_id=OuterRef("id"), version=OuterRef("version"))
    return Item.objects.annotate(text=Subquery(newest.values("text")[:1]), facts=Subquery(newest.values("facts")[:1]))


def narrowed(found: Any, wanted: ItemFilter) -> Any:
    if wanted.kind:
        found = found.filter(kind=wanted.kind)
    if wanted.namespace:
        found = found.filter(namespace=wanted.namespace)
    if wanted.state == "pinned":
        return found.filter(status=ItemStatus.ACTIVE, pinned=True)
    return found if wanted.state == "any" else found.filter(status=wanted.state or ItemStatus.ACTIVE)


def row_of(item: Any, words: Words) -> ItemRow:
    place = f"{item.id}:{item.version}"
    stored = words.json("memory_itemrevision", f"{place}:facts", item.facts)
    read = facts.read(item.fact_kind, item.schema_version, stored)
    return ItemRow(
        text=words.text("memory_itemrevision", f"{place}:text", item.text),
        facts=read.facts,
        facts_problem=read.problem,
        **{name: getattr(item, name) for name in _PLAIN},
    )


_PLAIN = [name for name in ItemRow.__dataclass_fields__ if name not in ("text", "facts", "facts_problem")]
