"""What every kind of line needs while a file comes in: the target, its key, which id became which, and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agentstate.core.ids import public_id
from agentstate.tenants import keyring
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant
from memory import sealing, transfer
from memory.models import Item, Progress, Subject
from memory.services.imports.lines import Numbered, bad

CONFLICTS_NAMED_MAX = 50
PURPOSE = b"memory.import\0"


@dataclass(slots=True)
class Report:
    """What an import brought in, or would. `conflicts`: why it cannot be, each with its line."""

    subject_id: UUID | None = None
    is_new: bool = False
    new: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    evicted: int = 0  # items that left recall because of the cap
    cap_bytes: int = 0
    links_left_out: int = 0  # to runs of the tenant that exported it
    conflicts: list[str] = field(default_factory=list)
    done: bool = False

    @property
    def public_id(self) -> str:
        return public_id("subject", self.subject_id) if self.subject_id else ""


class Desk:
    """One file on its way in, inside one transaction under the target's lock."""

    def __init__(self, into: UUID | None, actor: Actor) -> None:
        self.into, self.actor = into, actor
        self.report = Report()
        self.subject: Subject
        self.key = b""
        self.same_tenant = False
        self.authors: dict[int, tuple[int, str]] = {0: (0, "")}  # number in the file -> number here, name
        self.sessions: dict[UUID, UUID] = {}  # id in the file -> id here
        self.session_lines: dict[UUID, tuple[str, int]] = {}  # id here -> its key, its line
        self.seen: set[UUID] = set()  # ids of items and documents in the file
        self.skipped: set[UUID] = set()  # those that are known: so are their revisions
        self.items: dict[UUID, tuple[Item, int]] = {}  # in the file's id -> the new item, its line
        self.documents: dict[UUID, tuple[Progress, int]] = {}  # the same of progress documents
        self.versions: Counter[UUID] = Counter()  # of each of these: how many came, no number twice

    def row_id(self, old: UUID) -> UUID:
        return mapped(self.subject.id, old)

    def row_ids(self, old: Sequence[UUID]) -> list[UUID]:
        return [self.row_id(each) for each in old]

    def here(self, model: Any, batch: Sequence[Numbered]) -> dict[UUID, UUID]:
        """Which of these rows the subject has, under the id that they get here or, in their own tenant, had there."""
        candidates = {self.row_id(each.line.id): each.line.id for each in batch}
        if len(candidates) < len(batch):
            raise bad(batch[0].number, f"one of the {len(batch)} lines from here on comes twice")
        if self.same_tenant:
            candidates |= {each.line.id: each.line.id for each in batch}
        found = model.objects.filter(id__in=list(candidates), subject_id=self.subject.id).values_list("id", flat=True)
        return {candidates[row_id]: row_id for row_id in found}

    def sealed(self, text: str, table: str, row: UUID | str, *, key: bytes | None = None) -> bytes:
        return sealing.seal_text(key or self.key, table, row, text) if text else b""

    def by(self, by: transfer.By) -> dict[str, str]:
        """Whoever the file names is not one of ours."""
        return {"actor_kind": "import", "actor_id": "", "actor_name": by.name}

    def link(self, run: UUID | None) -> None:
        self.report.links_left_out += run is not None

    def counted(self, what: str, is_new: bool) -> None:
        (self.report.new if is_new else self.report.known)[what] += 1

    def conflict(self, each: Numbered, why: str) -> None:
        if len(self.report.conflicts) < 10 * CONFLICTS_NAMED_MAX:
            self.report.conflicts.append(f"Line {each.number}: {why}")


def mapped(target: UUID, old: UUID) -> UUID:
    """A UUIDv7 of the same moment, another one in every target and tenant."""
    digest = keyring.hmac(current_tenant(), PURPOSE + target.bytes + old.bytes)
    tail = bytearray(old.bytes[:6] + digest[:10])
    tail[6] = 0x70 | (tail[6] & 0x0F)
    tail[8] = 0x80 | (tail[8] & 0x3F)
    return UUID(bytes=bytes(tail))
