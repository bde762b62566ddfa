"""The subjects of a tenant: the list, newest activity first, and whose a name is.

Names are sealed with each subject's key: a page of them costs one read of keys. One that was erased shows its id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from memory import keys, policies, sealing, texts
from memory.models import Alias, Subject
from memory.selectors.opening import Words

# What a person may paste into the search field without saying which kind it is.
KINDS = ("email", "phone", "handle", "username", "account")


@dataclass(frozen=True, slots=True)
class SubjectRow:
    id: UUID
    name: str
    external_id: str
    status: str
    items: int
    item_bytes: int
    pinned_bytes: int
    cap_bytes: int
    own_cap_bytes: int | None
    sessions: int
    messages: int
    version: int  # of its names and its cap: the number of its newest audit entry
    created_at: datetime
    last_active_at: datetime

    @property
    def public_id(self) -> str:
        return public_id("subject", self.id)

    @property
    def percent(self) -> float:
        return 100 * self.item_bytes / self.cap_bytes

    @property
    def left_bytes(self) -> int:
        return max(self.cap_bytes - self.item_bytes, 0)


@dataclass(frozen=True, slots=True)
class AliasRow:
    id: UUID
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Subjects:
    rows: list[SubjectRow]
    after: str


def page(*, after: str = "") -> Subjects:
    """Four reads. Index: memory_subject_recent. Raises: Invalid(field="after")."""
    found = cursors.page(
        Subject.objects.all(), order=("-last_active_at", "-id"), after=after, scope=f"{current_tenant()}:subjects"
    )
    return Subjects(rows_of(found.rows), found.after)


def find(public: str) -> tuple[SubjectRow, Words]:
    """The subject and what opens its words. Three reads. Raises: NotFound."""
    return get(parse_id("subject", public))


def get(subject_id: UUID) -> tuple[SubjectRow, Words]:
    row = Subject.objects.filter(id=subject_id).first()
    if row is None:
        raise NotFound("There is no such subject.")
    key = keys.several([subject_id]).get(subject_id)
    return _row(row, key, policies.for_tenant().cap_bytes), Words(key)


def aliases_of(subject_id: UUID, words: Words) -> list[AliasRow]:
    """Index: memory_alias_subject_list."""
    found = Alias.objects.filter(subject_id=subject_id).order_by("kind", "id")
    return [AliasRow(row.id, row.kind, words.text("memory_alias", row.id, row.value)) for row in found]


def rows_of(found: Iterable[Subject]) -> list[SubjectRow]:
    subjects = list(found)
    opened = keys.several(row.id for row in subjects if row.name)
    cap_bytes = policies.for_tenant().cap_bytes
    return [_row(row, opened.get(row.id), cap_bytes) for row in subjects]


def named(asked: str) -> UUID | None:
    """The subject whose public id, external id or alias this is exactly; `kind:value` asks for one kind of alias."""
    asked = asked.strip()
    if asked.startswith("subject_"):
        return Subject.objects.filter(id=parse_id("subject", asked)).values_list("id", flat=True).first()
    if not asked or "\0" in asked or len(asked) > 1000:
        return None
    digests = [sealing.digest("alias", kind, texts.normalised(value)) for kind, value in _spoken(asked)]
    # Two index ranges: memory_subject_external_id and memory_alias_digest.
    by_alias = Alias.objects.filter(digest__in=digests).values("subject_id")
    found = Subject.objects.filter(Q(external_id=asked) | Q(id__in=by_alias)).values_list("id", "external_id")[:10]
    return next((id for id, _ in sorted(found, key=lambda row: row[1] != asked)), None)


def name_of(subject: Subject, words: Words) -> str:
    """Its display name, else the external id, else its public id."""
    name = "" if words.erased else words.text("memory_subject", subject.id, subject.name)
    return name or subject.external_id or public_id("subject", subject.id)


def names(subject_ids: Iterable[UUID]) -> dict[UUID, str]:
    """Of several subjects. Two reads."""
    ids = set(subject_ids)
    opened = keys.several(ids)
    return {row.id: name_of(row, Words(opened.get(row.id))) for row in Subject.objects.filter(id__in=ids)}


def _spoken(asked: str) -> list[tuple[str, str]]:
    kind, colon, value = asked.partition(":")
    named = [(kind.strip().lower(), value.strip())] if colon and value.strip() else []
    return [*named, *((kind, asked) for kind in KINDS)]


def _row(row: Subject, key: bytes | None, cap_bytes: int) -> SubjectRow:
    return SubjectRow(
        id=row.id,
        name=name_of(row, Words(key)),
        external_id=row.external_id or "",
        status=row.status,
        items=row.item_count,
        item_bytes=row.item_bytes,
        pinned_bytes=row.pinned_bytes,
        cap_bytes=row.cap_bytes or cap_bytes,
        own_cap_bytes=row.cap_bytes,
        sessions=row.session_count,
        messages=row.message_count,
        version=row.audit_seq,
        created_at=row.created_at,
        last_active_at=row.last_active_at,
    )
