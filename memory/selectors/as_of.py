"""What was true then, as it was known then: the items of a subject on both axes of time.

Each revision of an item holds its status and its valid times, so the newest one at a moment is what was known at it;
edits, supersedes, expiry and restores since then change nothing of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from agentstate.core.clock import now
from agentstate.core.ids import public_id
from agentstate.core.limits import PAGE_ROWS
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory import facts, keys
from memory.models import Item, ItemRevision
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemFilter
from memory.states import ItemStatus

TABLE = "memory_itemrevision"
KNOWN = (ItemStatus.ACTIVE, ItemStatus.SUPERSEDED)  # a superseded one goes on telling what held until it ended


@dataclass(frozen=True, slots=True)
class Known:
    """One item as it stood. `since`: when we came to know it in these words."""

    item_id: UUID
    version: int
    kind: str
    namespace: str
    text: str
    facts: Any
    pinned: bool
    importance: float
    valid_from: datetime
    valid_to: datetime | None
    since: datetime
    version_now: int
    status_now: str

    @property
    def public_id(self) -> str:
        return public_id("item", self.item_id)

    @property
    def is_newest(self) -> bool:
        return self.version == self.version_now


@dataclass(frozen=True, slots=True)
class Moment:
    """A place on both axes of time."""

    true_at: datetime
    known_at: datetime


@dataclass(frozen=True, slots=True)
class KnownItems:
    rows: list[Known]
    after: str


def page(
    subject_id: UUID, moment: Moment, wanted: ItemFilter, words: Words, *, after: str = "", rows_max: int = PAGE_ROWS
) -> KnownItems:
    """What held then, pinned first, then what was learned last. One read. Raises: Invalid(field="after")."""
    # Index: memory_itemrevision_subject; each later version by its primary key.
    later = ItemRevision.objects.filter(
        item_id=OuterRef("item_id"), version__gt=OuterRef("version"), created_at__lte=moment.known_at
    )
    found = (
        ItemRevision.objects.select_related("item")
        .filter(~Exists(later), subject_id=subject_id, created_at__lte=moment.known_at, status__in=KNOWN)
        .filter(Q(valid_to=None) | Q(valid_to__gt=moment.true_at), valid_from__lte=moment.true_at)
    )
    if wanted.kind:
        found = found.filter(item__kind=wanted.kind)
    if wanted.namespace:
        found = found.filter(item__namespace=wanted.namespace)
    if wanted.state == "pinned":
        found = found.filter(pinned=True)
    # What is known today moves on from one page to the next.
    scope = f"{current_tenant()}:{subject_id}:as_of:{moment.true_at}:{wanted}"
    order = ("-pinned", "-created_at", "-item_id")
    shown = cursors.page(found, order=order, after=after, scope=scope, rows_max=rows_max)
    return KnownItems([_known(row, row.item, words) for row in shown.rows], shown.after)


def items_as_of(
    subject_id: UUID, *, true_at: datetime | None = None, known_at: datetime | None = None, words: Words | None = None
) -> list[Known]:
    """What held at `true_at`, by what was known at `known_at`; either None: now.

    In the order in which the items were made. One statement, two without `words`. Index: memory_itemrevision_subject.
    """
    true_at, known_at = true_at or now(), known_at or now()
    newest = (
        ItemRevision.objects.select_related("item")
        .filter(subject_id=subject_id, created_at__lte=known_at)
        .order_by("item_id", "-version")
        .distinct("item_id")
    )
    words = words or Words(keys.several([subject_id]).get(subject_id))
    return [_known(row, row.item, words) for row in newest if row.status in KNOWN and _holds(row, true_at)]


def _holds(revision: ItemRevision, at: datetime) -> bool:
    return revision.valid_from <= at and (revision.valid_to is None or at < revision.valid_to)


def _known(revision: ItemRevision, item: Item, words: Words) -> Known:
    place = f"{item.id}:{revision.version}"
    stored = words.json(TABLE, f"{place}:facts", revision.facts)
    return Known(
        item_id=item.id,
        version=revision.version,
        kind=item.kind,
        namespace=item.namespace,
        text=words.text(TABLE, f"{place}:text", revision.text),
        facts=facts.read(item.fact_kind, revision.schema_version, stored).facts,
        pinned=revision.pinned,
        importance=revision.importance,
        valid_from=revision.valid_from,
        valid_to=revision.valid_to,
        since=revision.created_at,
        version_now=item.version,
        status_now=item.status,
    )
