"""Proposals as people review them: what would change, beside what stands now, why, and out of which messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory import keys
from memory.models import Proposal, Subject
from memory.selectors import directory, shelf
from memory.selectors.opening import Words
from memory.selectors.shelf import ItemRow
from memory.states import ProposalStatus

COUNT_MAX = 1_000
ACTS = {
    "add": "remember",
    "update": "change",
    "supersede": "replace",
    "merge": "merge",
    "forget": "forget",
}


@dataclass(frozen=True, slots=True)
class ProposalRow:
    id: UUID
    subject_id: UUID
    subject: str  # its name
    act: str
    status: str
    item_id: UUID | None
    expected_version: int | None
    body: dict[str, Any]  # as drafts.NewItem says it
    why: str
    method: str
    confidence: float
    source_run_id: UUID | None
    source_step_seq: int | None
    source_message_ids: list[UUID]
    decided_by: str
    created_at: datetime
    decided_at: datetime | None
    item: ItemRow | None = None  # what it is about, as it stands now
    words: Words = field(default_factory=lambda: Words(None), repr=False, compare=False)

    @property
    def public_id(self) -> str:
        return public_id("proposal", self.id)

    @property
    def subject_public_id(self) -> str:
        return public_id("subject", self.subject_id)

    @property
    def pending(self) -> bool:
        return self.status == ProposalStatus.PENDING

    @property
    def text(self) -> str:
        return str(self.body.get("text", ""))

    @property
    def verb(self) -> str:
        return ACTS.get(self.act, self.act)

    @property
    def before(self) -> str:
        """The words that an update or a supersession takes the place of."""
        return self.item.text if self.item is not None and self.act in ("update", "supersede", "merge") else ""

    @property
    def is_stale(self) -> bool:
        """What it is about has changed since: accepting it withdraws it."""
        if self.act == "add" or not self.pending:
            return False
        return self.item is None or not self.item.in_recall or self.item.version != self.expected_version


@dataclass(frozen=True, slots=True)
class Proposals:
    rows: list[ProposalRow]
    after: str


def page(*, decided: bool = False, subject_id: UUID | None = None, after: str = "") -> Proposals:
    """Newest first. Four reads. Index: memory_proposal_pending. Raises: Invalid(field="after")."""
    found = Proposal.objects.all()
    found = found.exclude(status="pending") if decided else found.filter(status="pending")
    if subject_id is not None:
        found = found.filter(subject_id=subject_id)
    scope = f"{current_tenant()}:proposals:{decided}:{subject_id}"
    rows = cursors.page(found, order=("-id",), after=after, scope=scope)
    return Proposals(_opened(rows.rows), rows.after)


def find(public: str) -> ProposalRow:
    """Four reads. Raises: NotFound."""
    found = _opened(Proposal.objects.filter(id=parse_id("proposal", public)))
    if not found:
        raise NotFound("There is no such proposal.")
    return found[0]


def pending_count(subject_id: UUID | None = None) -> int:
    """At most COUNT_MAX. Index: memory_proposal_pending."""
    found = Proposal.objects.filter(status=ProposalStatus.PENDING)
    if subject_id is not None:
        found = found.filter(subject_id=subject_id)
    return found.order_by()[:COUNT_MAX].count()


def _opened(found: Iterable[Proposal]) -> list[ProposalRow]:
    rows = list(found)
    if not rows:
        return []
    ids = {row.subject_id for row in rows}
    opened = {subject_id: Words(key) for subject_id, key in keys.several(ids).items()}
    names = {
        row.id: directory.name_of(row, opened.get(row.id, Words(None))) for row in Subject.objects.filter(id__in=ids)
    }
    items = _items(rows, opened)
    return [_row(row, opened.get(row.subject_id, Words(None)), names, items) for row in rows]


def _items(rows: Sequence[Proposal], opened: dict[UUID, Words]) -> dict[UUID, ItemRow]:
    wanted = [row.item_id for row in rows if row.item_id is not None]
    found = shelf.with_words().filter(id__in=wanted) if wanted else []
    return {item.id: shelf.row_of(item, opened.get(item.subject_id, Words(None))) for item in found}


def _row(row: Proposal, words: Words, names: dict[UUID, str], items: dict[UUID, ItemRow]) -> ProposalRow:
    item = items.get(row.item_id) if row.item_id else None
    return ProposalRow(
        subject=names.get(row.subject_id, ""),
        body=words.json("memory_proposal", f"{row.id}:body", row.body) or {},
        why=words.text("memory_proposal", f"{row.id}:why", row.why),
        item=item if item is not None and item.subject_id == row.subject_id else None,
        words=words,
        **{name: getattr(row, name) for name in _PLAIN},
    )


_PLAIN = [name for name in ProposalRow.__dataclass_fields__ if name not in ("subject", "body", "why", "item", "words")]
