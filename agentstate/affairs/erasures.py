"""Erasures as a list: how many stand where, and what each one that goes on waits for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Q

from agentstate.affairs.models import Erasure
from agentstate.affairs.states import ERASURE_OPEN, ErasureStatus
from agentstate.core.errors import NotFound
from agentstate.core.ids import parse_id, public_id
from agentstate.core.limits import PAGE_ROWS
from agentstate.http import cursors
from agentstate.tenants.scope import current_tenant
from runs.services import erasing as run_erasing

STATES: dict[str, frozenset[str]] = {
    "open": frozenset(ERASURE_OPEN),
    "failed": frozenset({ErasureStatus.FAILED}),
    "verified": frozenset({ErasureStatus.VERIFIED}),
}
STAGES = {
    "runs": "keys of its runs are destroyed",
    "rows": "its rows are deleted",
    "sessions": "its sessions are deleted",
    "subject": "everything is searched",
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A live run that was asked to end. `until`: then it is ended without its worker."""

    run: str
    agent: str
    worker: str
    until: datetime


@dataclass(frozen=True, slots=True)
class ErasureRow:
    erasure: Erasure
    waits: tuple[Waiting, ...] = ()

    @property
    def public_id(self) -> str:
        return public_id("erasure", self.erasure.id)

    @property
    def subject(self) -> str:
        return public_id("subject", self.erasure.subject_id)

    @property
    def is_open(self) -> bool:
        return self.erasure.status in ERASURE_OPEN

    @property
    def rows(self) -> int:
        return sum(self.erasure.counts.values())

    @property
    def stage(self) -> str:
        return STAGES.get(self.erasure.cursor.partition(":")[0], "")


@dataclass(frozen=True, slots=True)
class Erasures:
    rows: list[ErasureRow]
    after: str


def page(*, state: str = "", after: str = "", rows_max: int = PAGE_ROWS) -> Erasures:
    """The newest first; `state` is one of STATES, else all. Two reads. Raises: Invalid(field="after")."""
    # Index: affairs_erasure_recent.
    found = Erasure.objects.defer("receipt", "signature")
    if state in STATES:
        found = found.filter(status__in=STATES[state])
    shown = cursors.page(found, after=after, scope=f"{current_tenant()}:erasures:{state}", rows_max=rows_max)
    return Erasures(rows_of(shown.rows), shown.after)


def get(erasure_id: UUID) -> ErasureRow:
    """Raises: NotFound."""
    found = rows_of(Erasure.objects.filter(id=erasure_id))
    if not found:
        raise NotFound("There is no such erasure.")
    return found[0]


def rows_of(found: Iterable[Erasure]) -> list[ErasureRow]:
    """With the runs that each of them waits for; one read of runs."""
    erasures = list(found)
    ids = {parse_id("run", run) for each in erasures for run in each.waits}
    runs = {run.public_id: run for run in run_erasing.concerned(run_ids=ids, session_keys=())} if ids else {}
    return [
        ErasureRow(
            each,
            tuple(
                Waiting(run, runs[run].agent, runs[run].worker, datetime.fromisoformat(until))
                for run, until in sorted(each.waits.items())
                if run in runs and runs[run].is_live
            ),
        )
        for each in erasures
    ]


def counts() -> dict[str, int]:
    """How many erasures are in each of STATES; one read of few rows."""
    found: dict[str, int] = Erasure.objects.aggregate(
        **{name: Count("id", filter=Q(status__in=statuses)) for name, statuses in STATES.items()}
    )
    return found
